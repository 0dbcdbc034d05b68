"""Examine routers on question text: verbatim, reworded, cut off, misspelt, in stages, in orders, from few.

    python scripts/examine_routers.py --train VAL_A.json VAL_B.json --test TEST_A.json TEST_B.json \\
        --lm FOLDER --text_feature FOLDER --rewordings split_avqa --json OUT.json

A file is a task, train and test in the same order; a task is called what its test file is, without `test_`.
`--text_feature` as in scripts/text_routing.py. `--rewordings` names sets of this project (data/paraphrases)
or files like them; `--half dev` is for choosing, `--half test` for reporting. `lookup` is the task that asked
exactly this question most often, `bound` the best that any function of the exact text can reach.
All numbers in percent, but for AUROC and ECE (0 to 1) and the cost (microseconds a sample, on this machine).
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from data.command_line import main_command
from data.files import write_json_atomic
from data.paraphrases import HALVES, Rewording, benchmark_rewordings, read_rewordings
from data.samples import read_samples
from data.spoilt_questions import misspelt, truncated
from data.text_features import usual_new_level, usual_rewordings, weigh_rewordings
from data.text_vectors import text_features
from evaluation.router_exam.exam import Exam, bound
from evaluation.router_exam.material import Asked, TaskQuestions, Vectors, foremost
from evaluation.router_exam.synthetic import many_tasks
from evaluation.router_exam.unknown import held_out
from model.moe.routing import RouterConfig

ROUTERS = {
    "cosine_raw": RouterConfig("cosine", "raw", "equal", modalities=("text",)),
    "cosine": RouterConfig("cosine", modalities=("text",)),
    "lda": RouterConfig("lda", modalities=("text",)),
    "lookup": RouterConfig("lookup", modalities=("text",)),
}
PARTS = ("questions", "stages", "orders", "confidence", "few", "held_out", "many")
FEW = (5, 20, 100)
MANY = (25, 100, 1000)


def make_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="sample files, one per task")
    parser.add_argument("--test", type=Path, nargs="+", required=True, help="sample files in the same order")
    parser.add_argument("--lm", type=Path, required=True, help="folder of a Hugging Face language model")
    parser.add_argument("--text_feature", default="question", help="as in text_routing.py (question)")
    parser.add_argument(
        "--anchor_rewordings", type=int, help="rewordings by rule that an anchor knows (as in training)"
    )
    parser.add_argument("--new_level", type=float, help="of `cosine`, 0: none (as in evaluation)")
    parser.add_argument("--routers", nargs="+", choices=ROUTERS, default=list(ROUTERS))
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to examine (all)"
    )
    parser.add_argument("--rewordings", nargs="*", default=[], help="sets of reworded questions, or files")
    parser.add_argument(
        "--half", choices=(*HALVES, "all"), default="all", help="half of the rewordings (all)"
    )
    parser.add_argument("--seeds", type=int, default=5, help="draws of few questions (5)")
    parser.add_argument("--seed", type=int, default=0, help="of misspellings, orders and drawn tasks (0)")
    parser.add_argument("--json", type=Path, help="file to write")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Print the tables, and write them as JSON where asked."""
    tasks = read_tasks(arguments.train, arguments.test)
    sets = asked_sets(tasks, arguments.rewordings, arguments.half, arguments.seed)
    number = arguments.anchor_rewordings
    if number is None:
        number = usual_rewordings(arguments.text_feature)
    if number:
        own = foremost([task.train for task in tasks])
        tasks = [
            replace(
                task,
                reworded=weigh_rewordings(task.train, number),
                surely_reworded=weigh_rewordings(task.train, number, of=own[place]),
            )
            for place, task in enumerate(tasks)
        ]
    texts = {text for task in tasks for asked in (task.train, task.reworded) for text in asked}
    ordered = sorted(texts.union(*(questions for asked in sets.values() for questions in asked)))
    features = text_features(ordered, arguments.lm, arguments.text_feature)
    vectors = Vectors({text: row for row, text in enumerate(ordered)}, features, arguments.text_feature)
    anchors = [vectors.anchor(place, task.train, task.reworded) for place, task in enumerate(tasks)]
    level = arguments.new_level
    if level is None:
        level = usual_new_level(arguments.text_feature, number)
    found: dict[str, Any] = {
        "tasks": [task.name for task in tasks],
        "text_feature": arguments.text_feature,
        "anchor_rewordings": number,
        "new_level": level,
        "bound": {name: bound(asked) for name, asked in sets.items() if name == "verbatim"},
    }
    print(f"best possible from the exact text: {_pair(found['bound']['verbatim'])}")
    for name in arguments.routers:
        config = replace(ROUTERS[name], new_level=level)
        exam = Exam(config, tasks, vectors, anchors)
        print(f"\n{name}")
        found[name] = examine(exam, sets, arguments)
    if arguments.json is not None:
        write_json_atomic(arguments.json, found)


def examine(exam: Exam, sets: dict[str, list[Asked]], arguments: argparse.Namespace) -> dict[str, Any]:
    """The parts asked for, of one router; printed as they come."""
    compares = exam.config.router != "lookup"
    parts: dict[str, Callable[[], Any]] = {
        "questions": lambda: questions_part(exam, sets),
        "stages": lambda: stages_part(exam),
        "orders": lambda: orders_part(exam, arguments.seed),
        "confidence": lambda: confidence_part(exam, sets),
        "few": lambda: few_part(exam, arguments.seeds),
        "held_out": lambda: held_out_part(exam),
        "many": lambda: many_part(exam, arguments.seed),
    }
    return {
        name: parts[name]()
        for name in arguments.parts
        if compares or name == "questions"  # the others are about distances
    }


def read_tasks(train: Sequence[Path], test: Sequence[Path]) -> list[TaskQuestions]:
    """Tasks from sample files.

    Raises:
        ValueError: unequal numbers of files, or an unreadable one.
    """
    if len(train) != len(test) or len(train) < 2:
        raise ValueError(
            f"{len(train)} training and {len(test)} test files; give one of each per task, two tasks"
        )

    def asked(path: Path) -> Counter[str]:
        return Counter(sample.question_text for sample in read_samples(path))

    pairs = zip(train, test, strict=True)
    return [
        TaskQuestions(there.stem.removeprefix("test_"), asked(here), asked(there)) for here, there in pairs
    ]


def asked_sets(
    tasks: Sequence[TaskQuestions], rewordings: Sequence[str], half: str, seed: int
) -> dict[str, list[Asked]]:
    """Name -> questions of each task: verbatim, cut off, misspelt, and reworded where a set is given."""
    found: dict[str, list[Asked]] = {
        "verbatim": [task.test for task in tasks],
        "truncated": [_changed(task.test, truncated) for task in tasks],
        "misspelt": [_changed(task.test, lambda text: misspelt(text, seed)) for task in tasks],
    }
    items: list[Rewording] = []
    for name in rewordings:
        items += read_rewordings(Path(name)) if name.endswith(".json") else benchmark_rewordings(name)
    own = [
        Counter(r.text for r in items if r.task == task.name and half in ("all", r.half)) for task in tasks
    ]
    if items and not any(own):
        raise ValueError(
            f"rewordings of {sorted({r.task for r in items})}, none of {[t.name for t in tasks]}"
        )
    return found | ({"reworded": own} if items else {})


def _changed(asked: Asked, change: Callable[[str], str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for text, count in asked.items():
        found[change(text)] += count
    return found


def questions_part(exam: Exam, sets: dict[str, list[Asked]]) -> dict[str, Any]:
    """Accuracy of every set, and the confusion of the verbatim and the reworded one."""
    found: dict[str, Any] = {}
    names = [task.name for task in exam.tasks]
    for name, asked in sets.items():
        scores = exam.score(asked)
        print(f"  {name:<12}{_pair({'macro': scores.macro, 'micro': scores.micro})}")
        found[name] = {"macro": scores.macro, "micro": scores.micro, "confusion": scores.confusion.tolist()}
        if name in ("verbatim", "reworded"):
            for task, row in zip(names, found[name]["confusion"], strict=True):
                print(f"    {task[:20]:<22}" + "".join(f"{count:>6}" for count in row))
    return found


def stages_part(exam: Exam) -> list[dict[str, float]]:
    """Accuracy among the tasks known so far."""
    found = exam.stages()
    print("  stages      macro" + "".join(f"{stage['macro']:>8.2f}" for stage in found))
    return found


def orders_part(exam: Exam, seed: int) -> dict[str, Any]:
    """Lowest and highest accuracy over orders of the tasks."""
    found = {name: asdict(spread) for name, spread in exam.orders(seed).items()}
    for name, spread in found.items():
        print(f"  orders, {name:<18}{spread['mean']:.2f} ({spread['low']:.2f} to {spread['high']:.2f})")
    return found


def confidence_part(exam: Exam, sets: dict[str, list[Asked]]) -> dict[str, Any]:
    """Expected calibration error and reliability."""
    temperatures = exam.temperatures()
    found: dict[str, Any] = {"temperatures": asdict(temperatures)}
    print(f"  temperatures  {temperatures.known:.4g}, of new words {temperatures.new:.4g}")
    for name in ("verbatim", "reworded"):
        if name in sets:
            found[name] = asdict(exam.calibration(sets[name], temperatures))
            print(f"  ECE {name:<12}{found[name]['ece']:.3f}")
    return found


def few_part(exam: Exam, seeds: int) -> dict[str, Any]:
    """Anchors of few questions."""
    found = {}
    for number in FEW:
        spreads = exam.few(number, range(seeds))
        found[str(number)] = {name: asdict(spread) for name, spread in spreads.items()}
        macro = spreads["macro"]
        print(f"  {number:>3} questions macro {macro.mean:.2f} ({macro.low:.2f} to {macro.high:.2f})")
    return found


def held_out_part(exam: Exam) -> list[dict[str, Any]]:
    """Each task left out in turn."""
    found = [held_out(exam, task) for task in range(len(exam.tasks))]
    for one in found:
        print(
            f"  without {one.task[:20]:<22}AUROC {one.auroc:.3f}  found at 5 % alarms {one.coverage:6.2f}  "
            f"flagged {one.flagged:6.2f}  alarms {one.alarms:5.2f}  right {one.right:.2f}, "
            f"abstaining {one.right_abstaining:.2f}"
        )
    print(f"  mean AUROC {sum(one.auroc for one in found) / len(found):.3f}")
    return [asdict(one) for one in found]


def many_part(exam: Exam, seed: int) -> list[dict[str, float]]:
    """Drawn tasks; the cost is printed only, for no two runs agree on it."""
    found = []
    for number in MANY:
        one = many_tasks(exam.config, number, seed)
        print(f"  {one.tasks:>4} drawn tasks: {one.accuracy:.2f}, {one.microseconds:.0f} us a sample")
        found.append({"tasks": one.tasks, "accuracy": one.accuracy})
    return found


def _pair(value: dict[str, float]) -> str:
    return f"macro {value['macro']:6.2f}  micro {value['micro']:6.2f}"


if __name__ == "__main__":
    sys.exit(main_command(make_parser(), main))
