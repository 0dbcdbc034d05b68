"""What the README says is true: its tree, its results, its commands."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.results_tables import BEGIN, END, PAGES, add, section

COMMAND = re.compile(r"^(?:[A-Z]+=\S+ |[A-Z]+=\"[^\"]*\" )*(?:bash|sbatch|python) (\S+)", re.M)


@pytest.fixture(scope="module")
def readme(repo_root: Path) -> str:
    return (repo_root / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES)
def test_the_results_are_those_of_the_committed_summaries(page: str, repo_root: Path) -> None:
    shown = (repo_root / page).read_text().split(BEGIN, 1)[1].split(END, 1)[0].strip()
    assert shown == section(repo_root / "docs" / "results", PAGES[page]), (
        "run: python scripts/results_tables.py"
    )


def test_a_committed_summary_keeps_its_protocol_and_no_paths(tmp_path: Path) -> None:
    about = {"split": "test", "benchmark_file": "/somewhere/b.json"}
    for stated in ({}, {"protocol": "half of val"}):
        (tmp_path / "summary.json").write_text(json.dumps({"provenance": about | stated}))
        add(tmp_path, "data_sample", tmp_path / "summary.json")
        kept = json.loads((tmp_path / "data_sample.json").read_text())["provenance"]
        assert kept == {"split": "test"} | stated


def test_every_file_of_the_tree_exists_and_every_top_level_file_is_shown(
    readme: str, repo_root: Path
) -> None:
    block = readme.split("<!-- tree -->", 1)[1].split("<!-- end of tree -->", 1)[0]
    folders: list[str] = []
    shown = set()
    for line in re.findall(r"^ *[\w./{},-]+(?=  )", block, re.M):
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.strip()
        folders[depth:] = [name.rstrip("/")]
        for expanded in expand(name.rstrip("/")):
            path = Path(*folders[:depth], expanded)
            assert (repo_root / path).exists(), f"{path} is in the README's tree but not here"
            if depth == 0:
                shown.add(expanded.split("/")[0])
    tracked = subprocess.run(
        ["git", "-C", str(repo_root), "ls-files"], capture_output=True, text=True, check=True
    ).stdout.split()
    top = {name.split("/")[0] for name in tracked} - {".gitignore", ".gitattributes", ".ci"}
    assert top <= shown, f"not in the README's tree: {sorted(top - shown)}"


def expand(name: str) -> list[str]:
    """`a.{b,c}` -> a.b, a.c."""
    match = re.fullmatch(r"(.*)\{(.*)\}(.*)", name)
    return [f"{match[1]}{part}{match[3]}" for part in match[2].split(",")] if match else [name]


def test_every_script_in_a_command_exists(readme: str, repo_root: Path) -> None:
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", readme, re.S))
    scripts = COMMAND.findall(blocks)
    assert len(scripts) >= 6
    for script in scripts:
        assert (repo_root / script).is_file(), f"{script} is in a README command but not here"


def test_the_python_example_names_what_exists(readme: str) -> None:
    [block] = re.findall(r"```python\n(.*?)```", readme, re.S)
    check = "import ast,sys; tree=ast.parse(sys.stdin.read()); assert len(tree.body) <= 10"
    subprocess.run([sys.executable, "-c", check], input=block, text=True, check=True)
    from evaluation.anchor_moe import AnchorMoE, Prediction

    assert {"load", "ask"} <= set(dir(AnchorMoE))
    used = set(re.findall(r"prediction\.(\w+)", block))
    assert used <= set(Prediction.__dataclass_fields__)
