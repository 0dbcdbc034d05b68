"""The lint of house rules finds what it looks for."""

import subprocess
from pathlib import Path

import pytest

from scripts.lint_sources import check_file, list_files


def breaches(root: Path, name: str, content: str | bytes) -> list[str]:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(check_file(root, name))


def test_a_good_file_passes(tmp_path: Path) -> None:
    assert breaches(tmp_path, "good.py", "def f() -> int:\n    return 1\n") == []


@pytest.mark.parametrize("name", ["a.py", "a.sh", "a.md", "a.yml"])
def test_non_ascii(tmp_path: Path, name: str) -> None:
    (found,) = breaches(tmp_path, name, "# fine\n# na\u00efve\n")
    assert found.startswith(f"{name}:2: not ASCII")


def test_long_file(tmp_path: Path) -> None:
    assert breaches(tmp_path, "long.py", "x = 1\n" * 350) == []
    (found,) = breaches(tmp_path, "long.py", "x = 1\n" * 351)
    assert "351 lines, at most 350" in found


def test_long_function(tmp_path: Path) -> None:
    method = "class C:\n    def f(self):\n" + "        x = 1\n" * 59
    assert breaches(tmp_path, "a.py", method) == []
    (found,) = breaches(tmp_path, "a.py", method + "        x = 2\n")
    assert found.startswith("a.py:2: f has 61 lines")


def test_big_file(tmp_path: Path) -> None:
    assert "1000001 bytes" in breaches(tmp_path, "weights.bin", b"\0" * 1_000_001)[0]
    assert breaches(tmp_path, "checkpoints/tiny/weights.bin", b"\0" * 1_000_001) == []


def test_ignored_files_are_left_out(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    for name in ("kept.py", "made/output.bin", ".gitignore"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("made/\n")
    assert list_files(tmp_path) == [".gitignore", "kept.py"]


def test_outside_a_checkout(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="not a git checkout"):
        list_files(tmp_path / "nothing")
