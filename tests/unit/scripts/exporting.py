"""Runs scripts/export_peft.py in this process, on the tiny backbone."""

from pathlib import Path

import scripts.export_peft as command

TASKS = (0, 2)


def export(root: Path, trained: Path, output: Path, *flags: str | Path, tokens: str = "all") -> None:
    arguments = ["--experts", trained / tokens, "--anchors", trained / "anchors", "--output", output]
    arguments += ["--benchmark", root / "data_sample" / "avqa.json", *flags]
    run(root, *arguments)


def run(root: Path, *flags: str | Path) -> None:
    checkpoints = ["--checkpoints", str(root / "checkpoints"), "--device", "cpu"]
    command.main(command.parser().parse_args([*map(str, flags), *checkpoints]))
