"""Single questions with what was answered, failures first, and a few frames of their clips.

Chosen are, task after task in turn, questions that went to another task's expert, then other wrong answers,
and in the last quarter right ones; within a task in the order of the file.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.benchmark import Benchmark
from data.media_paths import MediaPaths
from data.samples import Media, is_picture
from data.tags import MediaKind, remove_tags
from evaluation.report.document import MISSING, Block, Cell, Example, Gallery, Section, Table, Text, table
from evaluation.report.markup import Markup, tag
from evaluation.report.reading import Results
from evaluation.report.routes import AGAIN
from evaluation.scoring.answers import is_correct, is_failed

if TYPE_CHECKING:
    from PIL.Image import Image

FRAMES = 3  # of a clip
FRAME_HEIGHT = 120  # pixels
QUALITY = 68  # of JPEG
RIGHT_SHARE = 4  # every so-manyth example is a right answer

Row = tuple[int, int, Mapping[str, Any]]  # task, position in its file, the row of the results file


def examples_section(results: Results, most: int, media: bool) -> Section:
    """Up to `most` examples; without `media` no frames."""
    if not results.answers or not most:
        why = "none were asked for" if results.answers else f"the results files are not there; {AGAIN}"
        return Section("examples", "Examples", (Text(f"Left out: {why}.", "gap"),))
    rows = [
        (task, place, row)
        for task, group in enumerate(results.answers)
        for place, row in enumerate(group)
        if complete(row)
    ]
    chosen = choose(rows, most)
    wrong = sum(not is_right(row) for _, _, row in rows)
    seed = results.summary["seeds"][0] if results.summary["seeds"] else 0
    lead = (
        f"{len(chosen)} of {len(rows)} test questions of seed {seed}, failures first; {wrong} of all are "
        "answered wrongly."
    )
    blocks: list[Block] = [Text(lead)]
    if media and results.questions.benchmark is None:
        blocks.append(Text(f"Without frames: {results.questions.reason}.", "gap"))
    return Section(
        "examples",
        "Examples",
        (*blocks, Gallery(tuple(_example(results, row, media) for row in chosen))),
    )


def choose(rows: Sequence[Row], most: int) -> list[Row]:
    """Up to `most` rows: misrouted and wrong, wrong, and in the last quarter right ones."""
    kinds: list[list[Row]] = [[], [], []]
    for row in rows:
        right = is_right(row[2])
        kinds[2 if right else 0 if _expert(row[2]) != row[0] else 1].append(row)
    misrouted, wrong, right_ones = (list(_in_turn(kind)) for kind in kinds)
    failures = misrouted + wrong
    few = min(len(right_ones), max(most // RIGHT_SHARE, most - len(failures)))
    return failures[: most - few] + right_ones[:few]


def _in_turn(rows: Sequence[Row]) -> Iterator[Row]:
    """One row of every task, then the next of every task."""
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[0], []).append(row)
    for place in range(max(map(len, groups.values()), default=0)):
        yield from (group[place] for _, group in sorted(groups.items()) if place < len(group))


def complete(row: Mapping[str, Any]) -> bool:
    """Whether a row of a results file has question, expected and given answer."""
    turns = row.get("conversations")
    return (
        isinstance(turns, list)
        and len(turns) == 2
        and all(isinstance(turn, dict) and isinstance(turn.get("value"), str) for turn in turns)
        and isinstance(row.get("text"), str)
        and bool(turns[1]["value"].strip())
    )


def _expected(row: Mapping[str, Any]) -> str:
    return row["conversations"][1]["value"]


def is_right(row: Mapping[str, Any]) -> bool:
    """Exact match."""
    return is_correct(row["text"], _expected(row))


def _expert(row: Mapping[str, Any]) -> int | None:
    """The task whose expert answered, -1 for none; None where the row does not say."""
    return (row.get("routing") or {}).get("task")


def _example(results: Results, chosen: Row, media: bool) -> Example:
    task, place, row = chosen
    expert = _expert(row)
    given = row["text"]
    frames, reason = _frames(results, task, place, row) if media else ((), "")
    return Example(
        id=str(row.get("id", place)),
        task=results.tasks[task],
        expert="no expert" if expert in (-1, None) else _task_name(results, expert),
        verdict="right" if is_right(row) else "failed" if is_failed(given) else "wrong",
        question=remove_tags(row["conversations"][0]["value"]).strip(),
        expected=_expected(row),
        given=given,
        scores=_scores(results, row),
        frames=frames,
        without_frames=reason,
    )


def _task_name(results: Results, task: Any) -> str:
    known = isinstance(task, int) and 0 <= task < len(results.tasks)
    return results.tasks[task] if known else f"task {task}"


def _scores(results: Results, row: Mapping[str, Any]) -> Table | None:
    """Routing scores: a row for each task, a column for each modality and one for all together, the best of
    each strong."""
    routing = row.get("routing") or {}
    together = routing.get("scores")
    if not together:
        return None
    columns = {**(routing.get("modality_scores") or {}), "together": together}
    known = {
        name: [value for value in scores.values() if value is not None] for name, scores in columns.items()
    }
    rows = []
    for key in together:
        cells = [Cell(_task_name(results, int(key) if key.isdigit() else key))]
        for name, scores in columns.items():
            value = scores.get(key)
            strong = value is not None and value == max(known[name])
            cells.append(Cell(MISSING if value is None else f"{value:.2f}", strong=strong))
        rows.append(cells)
    return table("Routing scores", ["task", *columns], rows)


def _frames(
    results: Results, task: int, place: int, row: Mapping[str, Any]
) -> tuple[tuple[Markup, ...], str]:
    """Small pictures of the clip as data URIs, and why there are none."""
    questions = results.questions
    if questions.benchmark is None:
        return (), ""  # said once, above the examples
    known = questions.test[task][place] if place < len(questions.test[task]) else None
    if known is None or (known.id, known.answer) != (str(row.get("id", place)), _expected(row)):
        return (), "not in the benchmark's files"
    from data.media import MediaError, load_frames

    try:
        media = _media(row, questions.files[task], questions.benchmark)
        pictures = load_frames(media, FRAMES) if media else []
    except (MediaError, ValueError) as error:
        return (), f"media not there or damaged: {error}"
    return tuple(
        tag(
            "img",
            src=_data_uri(picture),
            alt=f"Frame {number} of {len(pictures)} of the clip",
            loading="lazy",
        )
        for number, picture in enumerate(pictures, start=1)
    ), "" if pictures else "the question has no picture"


def _media(row: Mapping[str, Any], file: Path | None, benchmark: Benchmark) -> Media | None:
    """The video or image of a row; None where it has none. Raises ValueError for a path that cannot be."""
    kind: MediaKind = "video" if row.get("video") else "image"
    value = row.get(kind)
    if not value or file is None:
        return None
    resolver = MediaPaths(file.parent, benchmark.media_root, benchmark.media_prefix)
    paths = [resolver.resolve(text) for text in ([value] if isinstance(value, str) else value)]
    return Media(kind, tuple(paths) if kind == "video" and is_picture(paths[0]) else (paths[0],), True)


def _data_uri(picture: Image) -> str:
    width = max(1, round(picture.width * FRAME_HEIGHT / picture.height))
    small = picture.convert("RGB").resize((min(width, 3 * FRAME_HEIGHT), FRAME_HEIGHT))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
