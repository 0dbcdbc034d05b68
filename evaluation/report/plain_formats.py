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
    r"""The report as LaTeX to be read by \input; its tables need \usepackage{booktabs}."""
    parts = [r"% needs \usepackage{booktabs}; wide tables may want \resizebox or a landscape page"]
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
    return f"{cell.line} {cell.note}".strip()


def _markdown_table(table: Table) -> str:
    rule = ["--:" if column >= table.left else ":--" for column in range(len(table.header))]
    rows = [[escape_markdown(_cell(cell)) or " " for cell in row] for row in (table.header, *table.rows)]
    lines = ["| " + " | ".join(row) + " |" for row in (rows[0], rule, *rows[1:])]
    return escape_markdown(table.caption) + "\n\n" + "\n".join(lines)


def _markdown_code(code: Code) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", code.text)), default=0))
    return f"{escape_markdown(code.caption)}\n\n{fence}bash\n{code.text}\n{fence}"


def _latex_table(table: Table) -> str:
    columns = "".join("r" if column >= table.left else "l" for column in range(len(table.header)))
    rows = [" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in (table.header, *table.rows)]
    lines = [
        r"\begin{table}[ht]",
        r"\centering\small",
        rf"\caption{{{escape_latex(table.caption)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        rows[0],
        r"\midrule",
        *rows[1:],
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _latex_cell(cell: Cell) -> str:
    text = re.sub(r"(?<!\w)-(?=\d)", "$-$", escape_latex(_cell(cell)))
    return rf"\textbf{{{text}}}" if cell.strong and text else text


def _latex_code(code: Code) -> str:
    lines = r"\\".join(rf"\texttt{{{escape_latex(line)}}}" for line in code.text.splitlines())
    return rf"{escape_latex(code.caption)}: {lines}"
