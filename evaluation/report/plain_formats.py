"""The tables and texts of a report as Markdown and as LaTeX (booktabs); figures and examples are left to the
page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from evaluation.report.document import Cell, Chapter, Code, Document, Section, Side, Table, Text

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~&!])")
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # after a line break a bracket or a star would be its argument
    "]": "{]}",
    "*": "{*}",
    "\u00b1": r"$\pm$",
    "\u2191": r"$\uparrow$",
    "\u2193": r"$\downarrow$",
    "\u2013": "--",
}


def escape_markdown(text: str) -> str:
    """Text in one line in which no character means anything to Markdown, a table or HTML."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def escape_latex(text: str) -> str:
    """Text in one line in which no character means anything to LaTeX; control characters are dropped."""
    shown = " ".join(text.split())
    return "".join(_LATEX.get(letter, letter) for letter in shown if letter.isprintable())


def to_markdown(document: Document) -> str:
    """The report as one Markdown text."""
    parts = [f"# {escape_markdown(document.title)}", escape_markdown(document.lead)]
    for chapter, section in _sections(document):
        if section is chapter.sections[0]:
            parts += [f"## {escape_markdown(chapter.title)}", escape_markdown(chapter.lead)]
        parts.append(f"### {escape_markdown(section.title)}")
        parts += _blocks(section, _markdown_table, escape_markdown, _markdown_code)
    return "\n\n".join(part for part in parts if part) + "\n"


def to_latex(document: Document) -> str:
    """The report as LaTeX to be read by another file; its tables need the packages booktabs and graphicx."""
    parts = [r"% \input this; needs \usepackage[T1]{fontenc} and \usepackage{booktabs,graphicx}"]
    for chapter, section in _sections(document):
        if section is chapter.sections[0]:
            parts += [rf"\section{{{escape_latex(chapter.title)}}}", escape_latex(chapter.lead)]
        parts.append(rf"\subsection{{{escape_latex(section.title)}}}")
        parts += _blocks(section, _latex_table, escape_latex, _latex_code)
    return "\n\n".join(part for part in parts if part) + "\n"


def _sections(document: Document) -> Iterator[tuple[Chapter, Section]]:
    """Sections that have something to say without pictures."""
    for chapter in document.chapters:
        yield from ((chapter, section) for section in chapter.sections)


def _blocks(
    section: Section,
    table: Callable[[Table], str],
    text: Callable[[str], str],
    code: Callable[[Code], str],
) -> Iterator[str]:
    pictured = False
    for block in section.blocks:
        match block:
            case Table():
                yield table(block)
            case Side(tables):
                yield from map(table, tables)
            case Text():
                yield text(block.text)
            case Code():
                yield code(block)
            case _:
                pictured = True
    if pictured:
        yield text("Pictures: see the HTML page.")


def _cell(cell: Cell) -> str:
    """A cell in one line, its note in brackets."""
    note = cell.note if cell.note.startswith("[") or not cell.note else f"({cell.note})"
    return f"{cell.line} {note}".strip()


def _markdown_table(table: Table) -> str:
    rule = ["--:" if column >= table.left else ":--" for column in range(len(table.header))]
    rows = [[escape_markdown(_cell(cell)) or " " for cell in row] for row in (table.header, *table.rows)]
    lines = ["| " + " | ".join(row) + " |" for row in (rows[0], rule, *rows[1:])]
    return escape_markdown(table.caption) + "\n\n" + "\n".join(lines)


def _markdown_code(code: Code) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", code.text)), default=0))
    return f"{escape_markdown(code.caption)}\n\n{fence}bash\n{code.text}\n{fence}"


def _latex_table(table: Table) -> str:
    """A table in booktabs style, shrunk to the width of the line where it is wider."""
    texts = table.left == len(table.header)  # then the last column may be long
    columns = "l" * (table.left - texts) + "r" * (len(table.header) - table.left)
    columns += r"p{0.62\linewidth}" if texts else ""
    rows = [
        " & ".join(_latex_row(row, table.left, table.compact)) + r" \\" for row in (table.header, *table.rows)
    ]
    lines = [
        r"\begin{table}[ht]",
        r"\centering\small",
        rf"\caption{{{escape_latex(table.caption)}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}[t]{{{columns}}}",
        r"\toprule",
        rows[0],
        r"\midrule",
        *rows[1:],
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _latex_row(row: tuple[Cell, ...], left: int, compact: bool) -> Iterator[str]:
    """The cells of a row; the spread and, unless compact, the note of a number stand under it."""
    for column, cell in enumerate(row):
        if column < left:
            yield _latex_text(_cell(cell), cell.strong)
            continue
        parts = [_latex_text(cell.text, cell.strong)]
        parts += [rf"\scriptsize $\pm$ {_latex_text(cell.spread)}"] if cell.spread else []
        parts += [rf"\scriptsize {_latex_text(cell.note)}"] if cell.note and not compact else []
        stacked = r" \\ ".join(parts)
        stack = rf"\begin{{tabular}}[t]{{@{{}}r@{{}}}}{stacked}\end{{tabular}}"
        yield stack if len(parts) > 1 else stacked


def _latex_text(text: str, strong: bool = False) -> str:
    """Words, those as long as a hash in pieces that may stand on different lines; true minus signs."""
    words = [r"\allowbreak{}".join(map(escape_latex, _pieces(word))) for word in text.split()]
    shown = re.sub(r"(?<![\w-])-(?=\d)", "$-$", " ".join(words))
    return rf"\textbf{{{shown}}}" if strong and shown else shown


def _pieces(word: str) -> list[str]:
    return [word[start : start + 8] for start in range(0, len(word), 8)] if len(word) > 20 else [word]


def _latex_code(code: Code) -> str:
    lines = r" \\ ".join(rf"\texttt{{{_latex_text(line)}}}" for line in code.text.splitlines())
    return rf"{escape_latex(code.caption)}: {{\small\raggedright {lines}\par}}"
