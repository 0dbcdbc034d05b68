"""Exact match, normalised match, an LLM judge's verdict and embedding similarity side by side, for results
files of eval_all.py; judge and similarity each where asked for.

    python scripts/judge_answers.py eval_results/AVQA/task*_results.json [--aliases avqa.aliases.json] \\
        [--endpoint http://localhost:8000/v1 --model NAME] [--similarity ENCODER_FOLDER]

A results file is a sample file whose samples have the answer under `text`; each file is a row, and `mean` is
the mean of the rows. All columns count an empty answer as wrong, the judge's also one without a usable
verdict. Agreement is that of the column before it with exact match. The judge's key is read from the
environment (--key_env) and its verdicts are kept in --cache; a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
from numpy.typing import NDArray

from data.command_line import main_command
from data.files import with_checksum, write_json_atomic
from data.samples import read_samples
from evaluation.alias_files import read_aliases
from evaluation.chat_endpoint import ChatClient, Endpoint
from evaluation.judge import Case, Judgement, Verdict, VerdictBook, judge
from evaluation.scoring.agreement import agreement
from evaluation.scoring.answers import score_answers
from evaluation.scoring.normalised import Aliases
from evaluation.similarity import LEVEL, Similarity, load_similarity, wrong_quantiles
from evaluation.tables import Table, format_number, to_text

MEANS = ("exact", "normalised", "judged", "similar")  # columns whose mean over the files is shown


@dataclass(frozen=True)
class Row:
    """One line of the table: counts, and accuracies and agreements in percent; None where not asked for."""

    name: str
    n: int
    failed_answers: int
    exact: float
    normalised: float
    judged: float | None = None
    agreement: float | None = None  # of judge and exact match
    kappa: float | None = None
    unparsable: int | None = None
    failed_verdicts: int | None = None
    similar: float | None = None
    similar_agreement: float | None = None  # of similarity and exact match
    similar_kappa: float | None = None

    @property
    def no_verdict(self) -> int:
        """Answers that the judge gave no usable verdict on."""
        return (self.unparsable or 0) + (self.failed_verdicts or 0)


def parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("results", type=Path, nargs="+", metavar="RESULTS_JSON")
    made.add_argument("--aliases", type=Path, help="accepted spellings, see docs/scoring.md")
    made.add_argument("--json", type=Path, help="file to write")
    made.add_argument("--quiet", action="store_true", help="no progress bar")
    alike = made.add_argument_group("embedding similarity, on this machine")
    alike.add_argument("--similarity", type=Path, metavar="FOLDER", help="Hugging Face folder of an encoder")
    alike.add_argument(
        "--similarity_level", type=float, default=LEVEL, help=f"cosine from which on it is right ({LEVEL})"
    )
    asked = made.add_argument_group("LLM judge")
    asked.add_argument("--endpoint", help="base address, such as http://localhost:8000/v1")
    asked.add_argument("--model", help="name of the judge at the endpoint")
    asked.add_argument(
        "--key_env", default="JUDGE_API_KEY", help="environment variable with the key (JUDGE_API_KEY)"
    )
    asked.add_argument(
        "--cache", type=Path, help="where verdicts are kept (judged.jsonl beside the first results file)"
    )
    asked.add_argument("--jobs", type=int, default=8, help="questions on their way at a time (8)")
    asked.add_argument("--attempts", type=int, default=Endpoint.attempts, help="for each question (6)")
    asked.add_argument("--timeout", type=float, default=Endpoint.timeout_s, help="seconds (60)")
    asked.add_argument("--max_tokens", type=int, default=Endpoint.max_tokens, help="of a reply (256)")
    asked.add_argument("--price_in", type=float, default=0.0, help="per million tokens sent")
    asked.add_argument("--price_out", type=float, default=0.0, help="per million tokens received")
    return made


def main(arguments: argparse.Namespace) -> None:
    """Score and print."""
    if arguments.jobs < 1:
        raise ValueError(f"--jobs: got {arguments.jobs}, expected at least 1")
    if (arguments.endpoint is None) != (arguments.model is None):
        raise ValueError("--endpoint and --model: one was given without the other; a judge needs both")
    if arguments.endpoint is None and arguments.similarity is None:
        raise ValueError(
            "nothing to score by: give --endpoint and --model, --similarity FOLDER, or all three"
        )
    aliases = read_aliases(arguments.aliases)
    files = {path: read_cases(path) for path in arguments.results}
    similarity = None
    if arguments.similarity is not None:
        similarity = load_similarity(arguments.similarity, arguments.similarity_level)
    cases = [case for found in files.values() for case in found]
    judged = None if arguments.endpoint is None else ask_judge(arguments, cases)
    rows, scores, verdicts = [], [], iter(judged.verdicts if judged else ())
    for path, found in files.items():
        row = make_row(str(path), found, aliases)
        if judged is not None:
            row = with_verdicts(row, found, [next(verdicts) for _ in found])
        if similarity is not None:
            scores.append(similarity.scores(*columns(found), aliases))
            row = with_similarity(row, found, similarity.correct(scores[-1]))
        rows.append(row)
    print(to_text(table(rows)) + "\n")
    content: dict[str, Any] = {"rows": [asdict(row) for row in rows]}
    if judged is not None:
        print(f"judge: {arguments.model}, {cost(judged, arguments.price_in, arguments.price_out)}")
        content["judge"] = arguments.model
    if similarity is not None:
        content["similarity"] = about(similarity, np.concatenate(scores), cases, aliases)
        print(in_words(content["similarity"]))
    if arguments.json is not None:
        write_json_atomic(arguments.json, with_checksum(content))


def ask_judge(arguments: argparse.Namespace, cases: Sequence[Case]) -> Judgement:
    """The verdicts on all cases."""
    endpoint = Endpoint(
        arguments.endpoint,
        arguments.model,
        os.environ.get(arguments.key_env),
        arguments.max_tokens,
        arguments.timeout,
        arguments.attempts,
    )
    book = VerdictBook(arguments.cache or arguments.results[0].with_name("judged.jsonl"))
    return judge(cases, ChatClient(endpoint), book, arguments.jobs, not arguments.quiet)


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


def columns(cases: Sequence[Case]) -> tuple[list[str | None], list[str]]:
    """Given and expected answers."""
    return [case.answer for case in cases], [case.expected for case in cases]


def matches(cases: Sequence[Case], aliases: Aliases) -> NDArray[np.bool_]:
    """Normalised match. (N,)"""
    return np.array([aliases.matches(case.answer, case.expected) for case in cases], dtype=bool)


def make_row(name: str, cases: Sequence[Case], aliases: Aliases) -> Row:
    """One file's answers by exact and normalised match."""
    exact = score_answers(*columns(cases))
    return Row(name, exact.n, exact.n_failed, percent(exact.correct), percent(matches(cases, aliases)))


def with_verdicts(row: Row, cases: Sequence[Case], verdicts: Sequence[Verdict]) -> Row:
    """The row with the judge's columns."""
    judged = np.array([verdict is Verdict.RIGHT for verdict in verdicts], dtype=bool)
    both = agreement(judged, score_answers(*columns(cases)).correct)
    return replace(
        row,
        judged=percent(judged),
        agreement=both.percent,
        kappa=both.kappa,
        unparsable=verdicts.count(Verdict.UNPARSABLE),
        failed_verdicts=verdicts.count(Verdict.FAILED),
    )


def with_similarity(row: Row, cases: Sequence[Case], similar: NDArray[np.bool_]) -> Row:
    """The row with the columns of embedding similarity."""
    both = agreement(similar, score_answers(*columns(cases)).correct)
    return replace(row, similar=percent(similar), similar_agreement=both.percent, similar_kappa=both.kappa)


def percent(correct: NDArray[np.bool_]) -> float:
    """Share of the right ones."""
    return 100.0 * float(correct.mean())


def table(rows: Sequence[Row]) -> Table:
    """The rows, and their mean where there are several."""
    shown = [("exact", "exact"), ("normalised", "normalised")]  # title, field
    if rows[0].judged is not None:
        shown += [("judged", "judged"), ("agreement", "agreement"), ("kappa", "kappa")]
        shown += [("no verdict", "no_verdict")]
    if rows[0].similar is not None:
        shown += [("similar", "similar"), ("agreement", "similar_agreement"), ("kappa", "similar_kappa")]
    lines = [[row.name, str(row.n), str(row.failed_answers)] for row in rows]
    for row, line in zip(rows, lines, strict=True):
        values = [getattr(row, name) for _, name in shown]
        line += [str(value) if isinstance(value, int) else format_number(value) for value in values]
    if len(rows) > 1:
        lines.append(["mean", "", "", *(mean_of(rows, name) for _, name in shown)])
    return [["file", "n", "failed", *(title for title, _ in shown)], *lines]


def mean_of(rows: Sequence[Row], name: str) -> str:
    """The mean of a column, empty for one that has none."""
    return format_number(float(np.mean([getattr(row, name) for row in rows]))) if name in MEANS else ""


def about(
    similarity: Similarity, scores_N: NDArray[np.float64], cases: Sequence[Case], aliases: Aliases
) -> dict[str, Any]:
    """What the similarity's column hangs on, and how near the answers that do not match come."""
    return {
        "encoder": str(similarity.folder),
        "fingerprint": similarity.fingerprint,
        "level": similarity.level,
        "of_answers_that_do_not_match": wrong_quantiles(scores_N, matches(cases, aliases)),
    }


def in_words(found: dict[str, Any]) -> str:
    """One line of `about`."""
    near = found["of_answers_that_do_not_match"]
    seen = ", ".join(f"{name} {value:.2f}" for name, value in near.items())
    return (
        f"similarity: {found['encoder']} ({found['fingerprint'][:16]}), right from a cosine of "
        f"{found['level']:g} on; " + (f"of answers that do not match: {seen}" if near else "all match")
    )


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
