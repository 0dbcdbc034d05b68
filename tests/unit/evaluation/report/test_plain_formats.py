"""Markdown and LaTeX: tables keep their shape whatever stands in a cell."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluation.report.document import Cell, Chapter, Code, Document, Section, Side, Text, table
from evaluation.report.plain_formats import escape_latex, escape_markdown, to_latex, to_markdown
from evaluation.report.writing import write_pages


def test_markdown_keeps_its_cells(write_results: Callable[..., Path], tmp_path: Path) -> None:
    text = write_pages([write_results()], tmp_path / "out")[1].read_text(encoding="utf-8")
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]
    assert len(blocks) > 8
    for lines in blocks:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
        assert len(widths) == 1, lines
    prose = re.sub(r"```bash\n.*?\n```", "", text, flags=re.S)
    assert not re.search(r"(?<!\\)<", prose) and "anchor MoE" in prose


def test_latex_is_balanced(write_results: Callable[..., Path], tmp_path: Path) -> None:
    text = write_pages([write_results()], tmp_path / "out")[2].read_text(encoding="utf-8")
    plain = re.sub(r"\\[\\{}$&#%_]", "", text)
    assert plain.count("{") == plain.count("}") and plain.count("$") % 2 == 0
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == text.count(r"\toprule") > 8
    for body in re.findall(r"\\toprule\n(.*?)\\bottomrule", text, flags=re.S):
        rows = [row for row in body.splitlines() if row != r"\midrule"]
        assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1
        assert all(row.endswith(r" \\") and not row.startswith(("[", "*")) for row in rows)


@pytest.mark.parametrize(
    ("text", "markdown", "latex"),
    [
        ("a_b | c", r"a\_b \| c", r"a\_b \textbar{} c"),
        ("<i>\n5 %", r"\<i\> 5 %", r"\textless{}i\textgreater{} 5 \%"),
        ("[x]*", r"\[x\]\*", "{[}x{]}{*}"),
        ("1 \u00b1 2 \u2191", "1 \u00b1 2 \u2191", r"1 $\pm$ 2 $\uparrow$"),
        ("\\{$}", r"\\\{$\}", r"\textbackslash{}\{\$\}"),
    ],
)
def test_escapes(text: str, markdown: str, latex: str) -> None:
    assert (escape_markdown(text), escape_latex(text)) == (markdown, latex)


def test_what_stands_where() -> None:
    made = table(
        "C", ["m", "x"], [[Cell("ours", note="task given", strong=True), Cell("-1.5", "0.2", "[1, 2]")]]
    )
    blocks = (made, Side((made,)), Text("t"), Code("a ``` b", "run"))
    document = Document("T", "L", (Chapter("c", "C", "lead", (Section("s", "S", blocks),)),))
    assert to_markdown(document).count("| ours (task given) | -1.5 \u00b1 0.2 \\[1, 2\\] |") == 2
    assert "````bash\na ``` b\n````" in to_markdown(document)
    under = r"\scriptsize $\pm$ 0.2 \\ \scriptsize {[}1, 2{]}"
    stack = rf"\begin{{tabular}}[t]{{@{{}}r@{{}}}}$-$1.5 \\ {under}\end{{tabular}}"
    row = rf"\textbf{{ours (task given)}} & {stack} \\"
    assert to_latex(document).count(row) == 2


def test_intervals_of_single_cells_are_left_out_of_latex_alone(
    write_results: Callable[..., Path], tmp_path: Path
) -> None:
    page, markdown, latex = (
        path.read_text(encoding="utf-8") for path in write_pages([write_results()], tmp_path / "out")
    )
    assert "50.0<small>[0.0, 100.0]</small>" in page
    assert r"| 50.0 \[0.0, 100.0\] | 50.0 \[0.0, 100.0\] |" in markdown
    assert "0.0, 100.0" not in latex and "& 50.0 & 50.0" in latex


def test_a_hash_can_be_broken() -> None:
    made = table("C", ["what", "value"], [["sum", "0123456789abcdef" * 4]], left=2)
    text = to_latex(Document("T", "L", (Chapter("c", "C", "", (Section("s", "S", (made,)),)),)))
    assert r"01234567\allowbreak{}89abcdef" in text and r"{lp{0.62\linewidth}}" in text
