"""Tell whether the running Python has what pyproject.toml asks for, without importing any of it.

    python scripts/check_environment.py [--extra dev] [--quiet]

Prints one line for each requirement that is missing or at another version. Exit status: 0 all there,
1 something missing, 2 Python too old. Standard library only, and readable by old Pythons, so that the message
comes out wherever it is run.
"""

import argparse
import re
import sys
from importlib import metadata
from pathlib import Path

OLDEST_PYTHON = (3, 10)
PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def read_requirements(text, extra=None):
    """Return the requirement strings of `dependencies`, and of the named extra, in a pyproject text.

    A reader for plain arrays of strings: tomllib came with Python 3.11. Raises ValueError without the array.
    """
    found = []
    for name in ["dependencies", extra] if extra else ["dependencies"]:
        block = re.search(rf"^{re.escape(name)} = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
        if block is None:
            raise ValueError(
                f"pyproject.toml: no array named {name!r}; expected `{name} = [` on its own line"
            )
        found += re.findall(r'^\s*"([^"]+)",?\s*$', block.group(1), re.MULTILINE)
    return found


def find_problems(requirements):
    """Return one line for each requirement that this Python does not meet."""
    try:
        from packaging.requirements import Requirement
    except ImportError:  # every full environment has packaging: several of the requirements need it
        return ["packaging is missing"]
    problems = []
    for line in requirements:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            problems.append(f"{requirement.name} is missing ({line})")
            continue
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"{requirement.name} is {version}, expected {line}")
    return problems


def main():
    """Print what is missing and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extra", help="check this optional group of pyproject.toml too (dev)")
    parser.add_argument("--quiet", action="store_true", help="print nothing, exit status only")
    args = parser.parse_args()
    if sys.version_info[:2] < OLDEST_PYTHON:
        if not args.quiet:
            print(f"Python {sys.version_info[0]}.{sys.version_info[1]} found, 3.10 or newer needed")
        return 2
    problems = find_problems(read_requirements(PYPROJECT.read_text(encoding="utf-8"), args.extra))
    if problems and not args.quiet:
        print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
