"""A results folder with everything in it, and names and texts that try to break out of every format."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluation.scoring.routing import RoutingRecord
from evaluation.summary import MethodResult, build_summary

HOSTILE = '</td><script>alert("1")</script>\x00\ud800 & | `x` [a](b) * \\end{table} $x_1^2$ %# ~ {} \u202e'
QUESTION = "<img src=x onerror=alert(1)> & | `x` \\end{table} $x_1^2$ %# ~ {}"  # no media tag: readable
TASKS = ["Come", "<b>Where</b> & | _"]
ANSWERS = (("kitten", "axe"), ("lake", '"hill" & <3'))  # of each task's two test questions


def sample(task: int, place: int, answer: str, clip: str, text: str) -> dict[str, Any]:
    turns = [
        {"from": "human", "value": f"<video>\n{text}"},
        {"from": "gpt", "value": answer},
    ]
    return {"id": f"{task}-{place}", "conversations": turns, "video": [f"{clip}_0.png", f"{clip}_1.png"]}


def routed(task: int, chosen: int, text: str) -> dict[str, Any]:
    scores = {str(own): float(own == chosen) for own in range(2)}
    alone = {"text": scores, "video": {"0": 0.25, "1": None}}
    return {
        "text": text,
        "routing": {"task": chosen, "scores": scores, "modality_scores": alone, "far": False},
    }


def method(name: str, matrix: list[list[float | None]], record: RoutingRecord | None = None) -> MethodResult:
    last = [np.array([cell == 100, cell >= 50], dtype=float) for cell in matrix[-1] if cell is not None]
    scores = {(1, task): right for task, right in enumerate(last)}
    return MethodResult(
        name, (matrix,), 4, (0,), (record,) if record else (), samples=(scores,), normalised=([50.0, 50.0],)
    )


@pytest.fixture
def write_results(tmp_path: Path) -> Callable[..., Path]:
    """Writes a results folder NAME with all its files and the benchmark it speaks of; returns the folder."""

    def write(name: str = "AVQA") -> Path:
        folder, data = tmp_path / name, tmp_path / f"data_{name}"
        folder.mkdir(parents=True)
        data.mkdir()
        for clip in ("a", "b", "c", "d"):
            for frame in range(2):
                Image.new("RGB", (64, 48), (90, 120, 30 * frame)).save(data / f"{clip}_{frame}.png")
        tasks = []
        for task, (clips, answers) in enumerate(zip((("a", "b"), ("c", "d")), ANSWERS, strict=True)):
            text = f"{QUESTION} {task}"
            test = [sample(task, place, answers[place], clips[place], text) for place in range(2)]
            train = [sample(task, 9, answers[0], clips[0], text), sample(task, 10, "gong", "a", "else?")]
            (data / f"train_{task}.json").write_text(json.dumps(train))
            (data / f"test_{task}.json").write_text(json.dumps(test))
            given = [routed(task, task, answers[0]), routed(task, 0, HOSTILE)]
            rows = [item | answer for item, answer in zip(test, given, strict=True)]
            (folder / f"task{task}_x_results.json").write_text(json.dumps(rows))
            tasks.append(
                {
                    "name": TASKS[task],
                    "train": f"train_{task}.json",
                    "test": f"test_{task}.json",
                    "results": f"task{task}_x",
                }
            )
        (data / "b.json").write_text(json.dumps({"name": "B", "tasks": tasks}))
        (folder / "summary.json").write_text(json.dumps(make_summary(data / "b.json")))
        (folder / "anchor_map.json").write_text(json.dumps(make_map()))
        (folder / "costs.json").write_text(json.dumps(make_costs()))
        (folder / "judged.json").write_text(json.dumps(make_judged()))
        return folder

    return write


def make_summary(benchmark: Path) -> dict[str, Any]:
    record = RoutingRecord([0, 0, 1, 1], [0, 0, 1, 0], {"text": [0, 0, 1, 0], "video": [0, 0, 0, 0]})
    methods = [
        method("anchor_moe", [[90.0, 6.0], [50.0, 50.0]], record),
        method("sequential", [[90.0, None], [0.0, 50.0]]),
        method("blind", [[10.0, None], [0.0, 0.0]]),
        MethodResult("joint", note=HOSTILE),
    ]
    about = {
        "commit": "0123abc+changes",
        "benchmark_file": str(benchmark),
        "split": "test",
        "command": ["evaluation/eval_all.py", "--seeds", "0 1", HOSTILE],
        HOSTILE: {"x": HOSTILE},
        "data": {"test_0.json": "changed since"},
    }
    summary = build_summary("AVQA", TASKS, [0], methods, about)
    summary["methods"]["my_<u>row"] = summary["methods"]["sequential"]  # a method that nobody listed
    summary["tests"]["my_<u>row"] = summary["tests"]["sequential"] | {"MA_difference": -3.0, "p_holm": 0.5}
    return summary


def make_map() -> dict[str, Any]:
    view = {"shown": 1.0, "anchors": [[1, 0], [1, 0.01]], "samples": [[1, 0], [0, 1], [0.5, 0.5], None]}
    return {
        "router": "cosine",
        "metric": "whitened",
        "weights": {"text": 3.0, "video": 1.0},
        "candidates": [0, 1],
        "tasks": [0, 0, 1, 1],
        "chosen": [0, 0, 1, 0],
        "views": {"all": view, HOSTILE: view},
    }


def make_judged() -> dict[str, Any]:
    """As scripts/judge_answers.py writes it, of two seeds of the second task."""
    row = {
        "name": "eval_results/x/task1_x_results.json",
        "n": 2,
        "failed_answers": 1,
        "exact": 50.0,
        "normalised": 50.0,
        "judged": 100.0,
        "agreement": 50.0,
        "kappa": 0.25,
        "unparsable": 0,
        "failed_verdicts": 0,
        "similar": None,
    }
    other = {"name": "eval_results/x/seed_1/task1_x_results.json", "judged": 0.0, "kappa": None}
    return {"rows": [row, row | other | {"unparsable": 1, "failed_verdicts": 1}], "judge": HOSTILE}


def make_costs() -> dict[str, Any]:
    one = {
        "file": "x.pt",
        "bytes": 2_000_000,
        "parameters": 1234,
        "seconds": 36.0,
        "device": HOSTILE,
        "command": ["a.py"],
    }
    return {
        "trained": {
            "0": {"anchor_moe": [one, one], "sequential": [one | {"seconds": None}]},
            "7": {"blind": [one]},
        },
        "answering": {"device": "cpu", "threads": 1, "answers": 200, "seconds": 5.0},
    }
