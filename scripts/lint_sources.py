"""Keep the house rules that ruff does not know: short files, short functions, ASCII, no big files.

    python scripts/lint_sources.py [ROOT]

Looks at the files that git tracks or would track. Prints one line for each breach; exit status 1 if any.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60
MAX_BYTES = 1_000_000
CODE = {".py", ".sh"}
TEXT = CODE | {".md", ".toml", ".yml", ".yaml", ".cff", ".txt", ".json", ".sbatch"}
MAY_BE_BIG = ("checkpoints/tiny/", "data_sample/")


def list_files(root: Path) -> list[str]:
    """Return the tracked and the untracked, not ignored files below root, relative, sorted.

    Raises RuntimeError outside a git checkout.
    """
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{root}: not a git checkout ({done.stderr.decode().strip()})")
    return sorted(name for name in done.stdout.decode().split("\0") if name and (root / name).is_file())


def check_functions(name: str, text: str) -> Iterator[str]:
    """Yield a line for each function of more than MAX_FUNCTION_LINES lines, docstring included."""
    for node in ast.walk(ast.parse(text, filename=name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            lines = node.end_lineno - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield f"{name}:{node.lineno}: {node.name} has {lines} lines, at most {MAX_FUNCTION_LINES}"


def check_file(root: Path, name: str) -> Iterator[str]:
    """Yield a line for each rule that one file breaks."""
    path = root / name
    size = path.stat().st_size
    if size > MAX_BYTES and not name.startswith(MAY_BE_BIG):
        yield f"{name}: {size} bytes, at most {MAX_BYTES} outside {' and '.join(MAY_BE_BIG)}"
    if path.suffix not in TEXT or name.startswith(MAY_BE_BIG):
        return
    content = path.read_bytes()
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.isascii():
            yield f"{name}:{number}: not ASCII: {line.decode(errors='replace').strip()[:60]!r}"
    if path.suffix in CODE:
        lines = content.count(b"\n")
        if lines > MAX_FILE_LINES:
            yield f"{name}: {lines} lines, at most {MAX_FILE_LINES}; split it by idea"
    if path.suffix == ".py":
        yield from check_functions(name, content.decode(errors="replace"))


def main() -> int:
    """Print every breach and return the exit status."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    breaches = [breach for name in list_files(root) for breach in check_file(root, name)]
    print("\n".join(breaches) if breaches else "sources: no breach")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
