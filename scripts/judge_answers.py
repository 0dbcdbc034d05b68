"""Exact match, normalised match and an LLM judge's verdict side by side, for results files of eval_all.py.

    python scripts/judge_answers.py eval_results/AVQA/task*_results.json \\
        --endpoint http://localhost:8000/v1 --model NAME [--aliases avqa.aliases.json]

A results file is a sample file whose samples have the answer under `text`; each file is a row, and `mean` is
the mean of the rows. All columns count an empty answer as wrong, the judge's also one without a usable
verdict. Agreement is the judge's with exact match. The key is read from the environment (--key_env).
Verdicts are kept in --cache; a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
from numpy.typing import NDArray

from data.command_line import main_command
from data.files import write_json_atomic
from data.samples import read_samples
from evaluation.alias_files import read_aliases
from evaluation.chat_endpoint import ChatClient, Endpoint
from evaluation.judge import Case, Judgement, Verdict, VerdictBook, judge
from evaluation.scoring.agreement import agreement
from evaluation.scoring.answers import score_answers
from evaluation.scoring.normalised import Aliases
from evaluation.tables import Table, format_number, to_text


@dataclass(frozen=True)
class Row:
    """One line of the table: counts, and accuracies in percent."""

    name: str
    n: int
    failed_answers: int
    exact: float
    normalised: float
    judged: float
    agreement: float | None  # percent
    kappa: float | None
    unparsable: int
    failed_verdicts: int


def parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("results", type=Path, nargs="+", metavar="RESULTS_JSON")
    made.add_argument("--endpoint", required=True, help="base address, such as http://localhost:8000/v1")
    made.add_argument("--model", required=True, help="name of the judge at the endpoint")
    made.add_argument(
        "--key_env", default="JUDGE_API_KEY", help="environment variable with the key (JUDGE_API_KEY)"
    )
    made.add_argument("--aliases", type=Path, help="accepted spellings, see docs/scoring.md")
    made.add_argument(
        "--cache", type=Path, help="where verdicts are kept (judged.jsonl beside the first results file)"
    )
    made.add_argument("--jobs", type=int, default=8, help="questions on their way at a time (8)")
    made.add_argument("--attempts", type=int, default=Endpoint.attempts, help="for each question (6)")
    made.add_argument("--timeout", type=float, default=Endpoint.timeout_s, help="seconds (60)")
    made.add_argument("--max_tokens", type=int, default=Endpoint.max_tokens, help="of a reply (256)")
    made.add_argument("--price_in", type=float, default=0.0, help="per million tokens sent")
    made.add_argument("--price_out", type=float, default=0.0, help="per million tokens received")
    made.add_argument("--json", type=Path, help="file to write")
    made.add_argument("--quiet", action="store_true", help="no progress bar")
    return made


def main(arguments: argparse.Namespace) -> None:
    """Judge and print."""
    if arguments.jobs < 1:
        raise ValueError(f"--jobs: got {arguments.jobs}, expected at least 1")
    aliases = read_aliases(arguments.aliases)
    files = {path: read_cases(path) for path in arguments.results}
    endpoint = Endpoint(
        arguments.endpoint,
        arguments.model,
        os.environ.get(arguments.key_env),
        arguments.max_tokens,
        arguments.timeout,
        arguments.attempts,
    )
    book = VerdictBook(arguments.cache or arguments.results[0].with_name("judged.jsonl"))
    cases = [case for found in files.values() for case in found]
    judged = judge(cases, ChatClient(endpoint), book, arguments.jobs, not arguments.quiet)
    rows, verdicts = [], iter(judged.verdicts)
    for path, found in files.items():
        rows.append(make_row(str(path), found, [next(verdicts) for _ in found], aliases))
    print(to_text(table(rows)))
    print(f"\njudge: {arguments.model}, {cost(judged, arguments.price_in, arguments.price_out)}")
    if arguments.json is not None:
        content = {"judge": arguments.model, "rows": [asdict(row) for row in rows]}
        write_json_atomic(arguments.json, content)


def read_cases(path: Path) -> list[Case]:
    """Questions with expected and given answers; raises ValueError naming file and index."""
    cases = []
    for sample in read_samples(path):
        answer = sample.raw.get("text", 0)
        if answer is not None and not isinstance(answer, str):
            raise ValueError(
                f"{path}, index {sample.index}, id {sample.id!r}: no answer under 'text'; give "
                "a results file of eval_all.py"
            )
        cases.append(Case(sample.question_text, sample.answer, answer))
    return cases


def make_row(name: str, cases: Sequence[Case], verdicts: Sequence[Verdict], aliases: Aliases) -> Row:
    """The three scores of one file's answers, and how far the judge agrees with exact match."""
    exact = score_answers([case.answer for case in cases], [case.expected for case in cases])
    loose = np.array([aliases.matches(case.answer, case.expected) for case in cases])
    judged = np.array([verdict is Verdict.RIGHT for verdict in verdicts])
    both = agreement(judged, exact.correct)
    return Row(
        name,
        exact.n,
        exact.n_failed,
        percent(exact.correct),
        percent(loose),
        percent(judged),
        both.percent,
        both.kappa,
        verdicts.count(Verdict.UNPARSABLE),
        verdicts.count(Verdict.FAILED),
    )


def percent(correct: NDArray[np.bool_]) -> float:
    """Share of the right ones."""
    return 100.0 * float(correct.mean())


def table(rows: Sequence[Row]) -> Table:
    """The rows, and their mean where there are several."""
    header = ["file", "n", "failed", "exact", "normalised", "judged", "agreement", "kappa", "no verdict"]
    lines = [
        [
            row.name,
            str(row.n),
            str(row.failed_answers),
            *map(format_number, (row.exact, row.normalised, row.judged, row.agreement)),
            format_number(row.kappa),
            str(row.unparsable + row.failed_verdicts),
        ]
        for row in rows
    ]
    if len(rows) > 1:
        means = [
            float(np.mean([getattr(row, key) for row in rows])) for key in ("exact", "normalised", "judged")
        ]
        lines.append(["mean", "", "", *map(format_number, means), "", "", ""])
    return [header, *lines]


def cost(judged: Judgement, price_in: float, price_out: float) -> str:
    """One line on what was asked, what failed and what it took."""
    spent = judged.cost(price_in, price_out)
    return (
        f"{judged.asked} replies, {judged.kept} known before; "
        f"{judged.count(Verdict.UNPARSABLE)} answers with an unparsable verdict and "
        f"{judged.count(Verdict.FAILED)} without one count as wrong; "
        f"{judged.tokens_in} tokens in, {judged.tokens_out} out"
        + (f", cost {spent:.4f}" if price_in or price_out else "")
    )


if __name__ == "__main__":
    sys.exit(main_command(parser(), main))
