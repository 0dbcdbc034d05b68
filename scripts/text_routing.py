"""How well question text alone tells tasks apart: fit on training questions, tested on others.

    python scripts/text_routing.py --train A.json B.json --test C.json D.json --lm FOLDER [--json OUT]

A file is a task, train and test in the same order. `--text_feature` is `question` (the default: mean input
embedding of the question's tokens), `hidden:L`, or the folder of an encoder. Rows: `cosine` (the default
rule), `cosine_raw` (the published rule), `lda`, `lookup` (the task that asked exactly this question most
often in training, the first if none did) and `bound` (the best that any function of the exact text can
reach on the test files). Macro: mean over tasks; micro: over questions; both in percent.

Legend: N questions, D width of their vectors.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from data.doctor.questions import text_bound
from data.files import write_json_atomic
from data.samples import read_samples
from data.text_features import usual_new_level, usual_rewordings, weigh_rewordings
from data.text_vectors import text_features
from evaluation.router_exam.material import Vectors
from model.moe.routing import Router, RouterConfig

ROWS = {
    "cosine": RouterConfig("cosine", modalities=("text",)),
    "cosine_raw": RouterConfig("cosine", "raw", "equal", modalities=("text",)),
    "lda": RouterConfig("lda", modalities=("text",)),
    "lookup": RouterConfig("lookup", modalities=("text",)),
}


def main() -> None:
    """Print the table, and write it as JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="sample files, one per task")
    parser.add_argument("--test", type=Path, nargs="+", required=True, help="sample files in the same order")
    parser.add_argument("--lm", type=Path, required=True, help="folder of a Hugging Face language model")
    parser.add_argument(
        "--text_feature", default="question", help="question, hidden:L or a folder (question)"
    )
    parser.add_argument(
        "--anchor_rewordings", type=int, help="rewordings by rule that an anchor knows (as in training)"
    )
    parser.add_argument("--json", type=Path, help="file to write")
    arguments = parser.parse_args()
    try:
        table = text_routing(
            arguments.train,
            arguments.test,
            arguments.lm,
            arguments.text_feature,
            arguments.anchor_rewordings,
        )
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"{'percent right':<14}{'macro':>8}{'micro':>8}")
    for row, value in table.items():
        print(f"{row:<14}{value['macro']:>8.2f}{value['micro']:>8.2f}")
    if arguments.json is not None:
        write_json_atomic(arguments.json, table)


def text_routing(
    train: Sequence[Path],
    test: Sequence[Path],
    lm: Path,
    text_feature: str = "question",
    rewordings: int | None = None,
) -> dict[str, dict[str, float]]:
    """Row -> macro and micro accuracy in percent; an anchor knows about `rewordings`, None: as usual.

    Raises:
        ValueError: unequal numbers of files, an unreadable file or model folder, a question without tokens.
    """
    if len(train) != len(test):
        raise ValueError(f"{len(train)} training and {len(test)} test files; give one of each per task")
    training, testing = ([questions(path) for path in paths] for paths in (train, test))
    number = usual_rewordings(text_feature) if rewordings is None else rewordings
    others = [weigh_rewordings(Counter(task), number) if number else {} for task in training]
    texts = {text for task in (*training, *testing, *others) for text in task}
    ordered = sorted(texts)
    features = text_features(ordered, lm, text_feature)  # (N, D)
    vectors = Vectors({text: row for row, text in enumerate(ordered)}, features, text_feature)
    anchors = [
        vectors.anchor(task, Counter(asked), reworded)
        for task, (asked, reworded) in enumerate(zip(training, others, strict=True))
    ]
    known: dict[str, Counter[int]] = {}
    for task, asked in enumerate(training):
        for text in asked:
            known.setdefault(text, Counter())[task] += 1
    tested = sorted({text for task in testing for text in task})
    level = usual_new_level(text_feature, number)
    table = {}
    for row, config in ROWS.items():
        routing = Router(anchors, replace(config, new_level=level), known).route(
            vectors.features(tested), texts=tested
        )
        table[row] = accuracy(dict(zip(tested, routing.task_ids, strict=True)), testing)
    table["bound"] = text_bound(testing)
    return table


def questions(path: Path) -> list[str]:
    """Question texts of a sample file, without media tags."""
    return [sample.question_text for sample in read_samples(path)]


def accuracy(chosen: dict[str, int], testing: Sequence[Sequence[str]]) -> dict[str, float]:
    """Percent of the questions sent to their own task."""
    right = [sum(chosen[text] == task for text in asked) for task, asked in enumerate(testing)]
    shares = [count / len(asked) for count, asked in zip(right, testing, strict=True)]
    return {"macro": 100 * sum(shares) / len(shares), "micro": 100 * sum(right) / sum(map(len, testing))}


if __name__ == "__main__":
    main()
