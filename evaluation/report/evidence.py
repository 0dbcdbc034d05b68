"""The chapter's last parts: cost, leakage, provenance; and the chapter common to all, formulas and notes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.report.document import (
    MISSING,
    Block,
    Cell,
    Chapter,
    Code,
    Section,
    Table,
    Text,
    table,
)
from evaluation.report.leakage import Leakage, measure_leakage
from evaluation.report.published import PUBLISHED
from evaluation.report.reading import COSTS, Results
from evaluation.report.routes import AGAIN
from evaluation.report.scores import BETTER, method_cell, number, title
from evaluation.summary import TESTED

NOT_RECORDED = "not recorded"
APART = ("command", "data")  # of the provenance: shown in a way of their own


def cost_section(results: Results) -> Section:
    """Parameters and hours of training for each method, and what an answer takes."""
    if results.costs is None:
        return Section(
            "cost", "Cost", (Text(f"Not recorded: {COSTS} is not there or damaged; {AGAIN}.", "gap"),)
        )
    trained = [
        entry
        for seed, entry in results.costs.get("trained", {}).items()
        if seed in map(str, results.summary["seeds"])
    ]
    rows = []
    for name in results.methods:
        files = [entry[name] for entry in trained if entry.get(name)]
        own = [cell for group in files for cell in group]
        if own:
            rows.append(_cost_row(name, own, len(files)))
        else:
            rows.append([method_cell(name), "0", *[MISSING] * 4])
    caption = (
        "Experts trained for a seed, parameters of each and all of them, size of the files, and hours of "
        "training a seed (mean over the seeds)."
    )
    if borrowing := [title(name) for name in results.methods if _borrows(name, trained)]:
        caption += f" Rows that use the experts of {title(TESTED)}: {'; '.join(borrowing)}."
    header = ["method", "experts", "parameters each", "together", "MB", "hours"]
    devices = sorted({_hardware(cell) for entry in trained for cells in entry.values() for cell in cells})
    used = "; ".join(devices) or NOT_RECORDED
    return Section(
        "cost",
        "Cost",
        (
            table(caption, header, rows),
            Text(f"Trained on: {used}. {_answering(results.costs.get('answering') or {})}"),
        ),
    )


def _cost_row(name: str, cells: Sequence[Mapping[str, Any]], seeds: int) -> list[str | Cell]:
    each = sorted({cell["parameters"] for cell in cells})
    times = [cell.get("seconds") for cell in cells]
    hours = [seconds for seconds in times if seconds is not None]
    return [
        method_cell(name, strong=name == TESTED),
        f"{len(cells) / seeds:g}",
        " to ".join(f"{count:,}" for count in dict.fromkeys((each[0], each[-1]))),
        f"{sum(cell['parameters'] for cell in cells) / seeds:,.0f}",
        f"{sum(cell['bytes'] for cell in cells) / seeds / 1e6:.1f}",
        f"{sum(hours) / seeds / 3600:.3f}" if len(hours) == len(times) else NOT_RECORDED,
    ]


def _borrows(name: str, trained: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a method's experts are TESTED's in every seed: the same entries of costs.json."""
    pairs = [(entry.get(name), entry.get(TESTED)) for entry in trained]
    return name != TESTED and bool(pairs) and all(own and own == ours for own, ours in pairs)


def _hardware(made: Mapping[str, Any]) -> str:
    parts = [str(made.get("device") or "hardware not recorded")]
    parts += [f"{key} {made[key]}" for key in ("threads", "processes") if made.get(key)]
    return ", ".join(parts)


def _answering(made: Mapping[str, Any]) -> str:
    answers, seconds = made.get("answers", 0), made.get("seconds", 0)
    if not answers:
        return "Time of an answer: not recorded (every answer was there already)."
    return (
        f"Answering: {1000 * seconds / answers:.0f} ms a question ({answers:,} distinct answers in "
        f"{seconds:,.0f} s on {_hardware(made)}; questions in batches, encoding of the clips not counted)."
    )


def leakage_section(results: Results) -> Section:
    """What of the test training has seen, and how far text alone goes."""
    questions = results.questions
    if questions.benchmark is None or not all(questions.test) or not any(questions.train):
        why = questions.reason or "the benchmark has no training or no test questions"
        return Section("leakage", "Leakage", (Text(f"Left out: {why}.", "gap"),))
    found = measure_leakage(questions.train, questions.test)
    blocks: list[Block] = [_leakage_table(results, found), *_text_alone(results, found)]
    if questions.changed:
        names = ", ".join(questions.changed)
        blocks.append(Text(f"Counted on files that changed since the evaluation: {names}.", "gap"))
    return Section("leakage", "Leakage", tuple(blocks))


def _leakage_table(results: Results, found: Leakage) -> Table:
    header = [
        "task",
        "test questions",
        "text in its training",
        "text in any training",
        "clip in its training",
        "clip in any training",
        "text and clip",
        "look-up right",
        "most frequent right",
    ]
    rows: list[list[str | Cell]] = []
    for name, task in zip(results.tasks, found.tasks, strict=True):
        counts = (
            task.same_text,
            task.text_anywhere,
            task.same_clip,
            task.clip_anywhere,
            task.same_question,
        )
        shares = [Cell(str(count), note=f"{100 * count / task.test:.1f} %") for count in counts]
        rows.append([name, str(task.test), *shares, number(task.look_up), number(task.most_frequent)])
    total = sum(task.test for task in found.tasks)
    summed = [
        sum(getattr(task, key) for task in found.tasks)
        for key in ("same_text", "text_anywhere", "same_clip", "clip_anywhere", "same_question")
    ]
    means = [
        sum(getattr(task, key) for task in found.tasks) / len(found.tasks)
        for key in ("look_up", "most_frequent")
    ]
    rows.append(
        [
            Cell("all tasks", strong=True),
            str(total),
            *(Cell(str(count), note=f"{100 * count / total:.1f} %") for count in summed),
            *(number(value) for value in means),
        ]
    )
    caption = (
        "Test questions whose exact text or whose clip (same files) training also has; and what answers "
        "without seeing or hearing anything reach, percent, the last row being means over tasks: the "
        "answer most often given to the very text in the task's training (else the task's most frequent "
        "one), and always the most frequent."
    )
    return table(caption, header, rows)


def _text_alone(results: Results, found: Leakage) -> list[Block]:
    total = sum(task.test for task in found.tasks)
    clips = sum(task.clip_anywhere for task in found.tasks)
    texts = sum(task.text_anywhere for task in found.tasks)
    statement = (
        f"Of {total} test questions, {texts} are worded exactly as a training question and {clips} are "
        "about a clip that training shows."
    )
    blind = results.methods.get("blind")
    if blind is None:
        statement += " The blind row (trained and tested without video and audio) did not run."
    else:
        statement += (
            f" Trained and tested without video and audio (the blind row), MA is {number(blind['MA']).text}"
            f" against {number(results.methods.get(TESTED, {}).get('MA')).text}."
        )
    alone = results.methods.get(TESTED, {}).get("routing_by_modality", {}).get("text")
    routed = (
        f", and routing by the text's features alone reaches {alone['accuracy']:.2f} percent" if alone else ""
    )
    bound = found.routing_bound
    return [
        Text(statement, "key"),
        Text(
            "No router that sees the exact text only can be right on more than "
            f"{bound['micro']:.2f} percent of the test questions ({bound['macro']:.2f} as mean over "
            f"tasks), as tasks share texts{routed}."
            if bound["micro"] < 100
            else "No two tasks share a test question's text, so that text alone could route all of "
            f"them{routed}."
        ),
    ]


def provenance_section(results: Results) -> Section:
    """What was run, on what, and the command that repeats it."""
    about = results.summary["provenance"]
    rows = [[key.replace("_", " "), plain(value)] for key, value in about.items() if key not in APART]
    rows += [[f"SHA-256 of {name}", str(digest)] for name, digest in (about.get("data") or {}).items()]
    seeds = plain(results.summary["seeds"])
    rows = [["benchmark", str(results.summary["benchmark"])], ["seeds", seeds], *rows]
    blocks: list[Block] = [table("What the numbers depend on", ["what", "value"], rows, left=2)]
    lines = [f"git checkout {about['commit'].removesuffix('+changes')}"] if about.get("commit") else []
    for command in [*_training(results), about.get("command")]:
        if command:
            lines.append("python " + shlex.join(map(str, command)))
    if lines:
        blocks.append(Code("\n".join(lines), "To reproduce"))
    if str(about.get("commit", "")).endswith("+changes"):
        blocks.append(Text("Tracked files differed from that commit when this was run.", "gap"))
    return Section("provenance", "Provenance", tuple(blocks))


def _training(results: Results) -> list[Sequence[str]]:
    """The distinct commands that trained the experts, in the order of the methods."""
    trained = (results.costs or {}).get("trained", {})
    commands = [
        tuple(cell["command"])
        for entry in trained.values()
        for cells in entry.values()
        for cell in cells
        if cell.get("command")
    ]
    return list(dict.fromkeys(commands))


def plain(value: Any) -> str:
    """A value of the provenance in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    return " ".join(map(plain, value)) if isinstance(value, list | tuple) else str(value)


def notes_chapter(found: Sequence[Results]) -> Chapter:
    """Formulas with the direction of each, and the sources of what is published."""
    formulas: dict[str, str] = {}
    for results in found:
        formulas |= results.summary["formulas"]
    rows: list[list[str | Cell]] = [
        [name.replace("_", " "), Cell(formula), BETTER.get(name, MISSING)]
        for name, formula in formulas.items()
    ]
    caption = (
        "R[k][i] is the accuracy in percent on task i after learning task k of T. Failed and empty answers "
        "count as wrong. AF and FM are positive where something was forgotten, BWT is negative then."
    )
    known = [
        [item.benchmark, f"{item.MA:.2f}", f"{item.AF:.2f}", item.source, plain(item.questions)]
        for item in PUBLISHED
    ]
    published = table(
        "Published numbers known to this report", ["benchmark", "MA", "AF", "source", "test questions"], known
    )
    return Chapter(
        "notes",
        "Formulas and sources",
        "What the columns mean, and where numbers that were not measured here come from.",
        (
            Section("formulas", "Formulas", (table(caption, ["name", "formula", "better"], rows, left=2),)),
            Section("published", "Published numbers", (published,)),
        ),
    )
