"""All benchmarks: ratios of the published recipe (or PEFT) to ours, both sides in this one run.

    bash scripts/bench.sh [--quick] [--json OUT] [--only training experts]

A ratio above 1 says how many times as fast ours is; names with `memory` are our bytes over the others. The
machine, its peak of matrix products and all versions are printed with them, and at the end the seconds of
the whole run. Our side works in bf16 where the processor multiplies it faster than fp32, else in fp32.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch

from data.command_line import main_command
from data.files import write_json_atomic
from data.parallel import count_cores
from scripts.benchmark.timing import parser, product_peak, working_dtype

TOPICS = tuple(
    sorted(p.stem for p in Path(__file__).parent.glob("*.py") if "\ndef run(quick" in p.read_text("utf-8"))
)
LIMIT = Path("/sys/fs/cgroup/memory.max")
PACKAGES = ("torch", "transformers", "accelerate", "peft")


def make_parser() -> argparse.ArgumentParser:
    """Flags of this command."""
    made = parser(__doc__)
    made.add_argument("--json", type=Path, help="write every ratio under its name, hardware and versions")
    made.add_argument("--only", nargs="+", choices=TOPICS, default=TOPICS, help=f"({' '.join(TOPICS)})")
    return made


def main(arguments: argparse.Namespace) -> None:
    """Run the topics one after another."""
    begun = time.monotonic()
    report: dict[str, Any] = {"quick": arguments.quick, "machine": machine(), "ratios": {}, "seconds": {}}
    for key, value in report["machine"].items():
        print(f"{key}: {value}", flush=True)
    for topic in arguments.only:
        print(f"== {topic}", flush=True)
        started = time.monotonic()
        found = importlib.import_module(f"scripts.benchmark.{topic}").run(arguments.quick)
        report["seconds"][topic] = round(time.monotonic() - started, 1)
        report["ratios"] |= {name: float(f"{value:.4g}") for name, value in found.items()}
        for name, value in found.items():
            print(f"{name:<45} {value:10.4g}", flush=True)
        report["total_seconds"] = round(time.monotonic() - begun, 1)
        if arguments.json:
            write_json_atomic(arguments.json, report)
    print(f"total: {report['total_seconds']} s", flush=True)


def machine() -> dict[str, Any]:
    """What the ratios were measured on."""
    return {
        "processor": processor(),
        "cores": count_cores(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(memory() / 1e9, 1),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "peak_gflops_fp32": round(product_peak(torch.float32) / 1e9),
        "peak_gflops_bf16": round(product_peak(torch.bfloat16) / 1e9),
        "our_dtype": str(working_dtype()).removeprefix("torch."),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def memory() -> int:
    """Bytes that the machine has, or that this process's control group may take."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(there, int(LIMIT.read_text()))
    except (OSError, ValueError):  # no control group, or no limit ("max")
        return there


def processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


if __name__ == "__main__":
    sys.exit(main_command(make_parser(), main))
