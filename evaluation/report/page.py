"""The report as one HTML page: style sheet, pictures and frames inside, no script, no network."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from evaluation.report.document import (
    PLUS_MINUS,
    Block,
    Cell,
    Chapter,
    Code,
    Document,
    Example,
    Figure,
    Gallery,
    Section,
    Side,
    Table,
    Text,
)
from evaluation.report.markup import Markup, join, tag

STYLE = Path(__file__).with_name("style.css")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"  # no script, nothing from elsewhere
WIDE = 7  # columns from which a table does not share the width of the page
VERDICTS = {"right": "right", "wrong": "wrong", "failed": "no answer"}


def to_html(document: Document) -> str:
    """The whole page."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", document.title),
        tag("style", Markup(STYLE.read_text(encoding="ascii"))),
    )
    top = tag("header", tag("h1", document.title), tag("p", document.lead, class_="lead"))
    body = tag(
        "body",
        tag("a", "Skip to the results", href="#content", class_="skip"),
        top,
        _contents(document),
        tag("main", *(_chapter(chapter) for chapter in document.chapters), id="content"),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def anchor(*parts: str) -> str:
    """An id from any texts: letters, digits and hyphens, with a short hash where something was replaced."""
    text = "-".join(parts)
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return plain if plain == text else f"{plain or 'x'}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _contents(document: Document) -> Markup:
    chapters = [
        tag(
            "li",
            tag("a", chapter.title, href=f"#{anchor(chapter.key)}"),
            tag(
                "ul",
                *(
                    tag("li", tag("a", section.title, href=f"#{anchor(chapter.key, section.key)}"))
                    for section in chapter.sections
                ),
            ),
        )
        for chapter in document.chapters
    ]
    return tag("nav", tag("ul", *chapters), aria_label="Contents")


def _chapter(chapter: Chapter) -> Markup:
    numbers = [
        tag("div", tag("dt", name), tag("dd", tag("b", *_content(value)), tag("span", what)))
        for name, value, what in chapter.headline
    ]
    return tag(
        "section",
        tag("h2", chapter.title, id=anchor(chapter.key)),
        tag("p", chapter.lead),
        tag("dl", *numbers, class_="numbers") if numbers else "",
        *(_section(section, anchor(chapter.key, section.key)) for section in chapter.sections),
        class_="chapter",
        aria_labelledby=anchor(chapter.key),
    )


def _section(section: Section, name: str) -> Markup:
    return tag(
        "section",
        tag("h3", section.title, id=name),
        *map(_block, section.blocks),
        aria_labelledby=name,
    )


def _block(block: Block) -> Markup:
    match block:
        case Table():
            return _table(block)
        case Side(tables):
            wide = any(len(table.header) > WIDE for table in tables)
            return tag("div", *map(_table, tables), class_="side wide" if wide else "side")
        case Text(text, kind):
            return tag("p", text, class_=None if kind == "plain" else kind)
        case Code(text, caption):
            shown = tag("pre", tag("code", text), tabindex=0)
            return tag("figure", tag("figcaption", caption), shown, class_="code")
        case Figure(pictures, caption, legend):
            shown = tag("div", *pictures, class_="pictures")
            return tag("figure", legend, shown, tag("figcaption", caption))
        case Gallery(examples):
            return tag("div", *map(_example, examples), class_="gallery")


def _table(table: Table) -> Markup:
    """A table in a box of its own that scrolls where the page is too narrow, by keyboard too."""
    header = [
        tag("th", *_content(cell), scope="col", class_=None if column < table.left else "number")
        for column, cell in enumerate(table.header)
    ]
    rows = [tag("tr", *_row(row, table.left)) for row in table.rows]
    shown = tag(
        "table",
        tag("caption", tag("span", table.caption)),
        tag("thead", tag("tr", *header)),
        tag("tbody", *rows),
    )
    return tag("div", shown, class_="scroll", tabindex=0, role="region", aria_label=table.caption)


def _row(row: tuple[Cell, ...], left: int) -> Iterator[Markup]:
    for column, cell in enumerate(row):
        classes = [] if column < left else ["number"]
        style = None
        if cell.strong:
            classes.append("strong")
        if cell.heat is not None:
            classes.append("heat")
            style = f"--shade:{100 * cell.heat:.0f}%"
        name = "th" if column == 0 else "td"
        scope = "row" if column == 0 else None
        yield tag(name, *_content(cell), scope=scope, class_=" ".join(classes) or None, style=style)


def _content(cell: Cell) -> Iterator[object]:
    yield cell.text
    if cell.spread:
        yield tag("small", f"{PLUS_MINUS} {cell.spread}")
    if cell.note:
        yield tag("small", cell.note)


def _example(example: Example) -> Markup:
    facts = {
        "Question": example.question,
        "Expected": example.expected,
        "Given": example.given if example.given.strip() else "(empty)",
        "Expert": example.expert
        if example.expert == example.task
        else f"{example.expert} (task: {example.task})",
    }
    if example.frames:
        pictures = tag("div", *example.frames, class_="frames")
    else:
        why = f"No frames: {example.without_frames}." if example.without_frames else ""
        pictures = tag("p", why, class_="gap") if why else Markup()
    verdict = tag("span", VERDICTS[example.verdict], class_=f"verdict {example.verdict}")
    scores = (
        tag("details", tag("summary", "Routing scores"), _table(example.scores))
        if example.scores
        else Markup()
    )
    return tag(
        "article",
        pictures,
        tag("h4", verdict, tag("span", example.task), tag("small", example.id)),
        tag("dl", join(*(tag("div", tag("dt", key), tag("dd", value)) for key, value in facts.items()))),
        scores,
        class_=f"example {example.verdict}",
    )
