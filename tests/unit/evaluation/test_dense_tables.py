"""Tables of multi-task results: means over seeds, delta-m seed by seed, all three formats."""

from typing import Any

import pytest

from evaluation.dense_pictures import draw_curves, draw_panel
from evaluation.dense_tables import FORMULA, as_table, latex, markdown, summarise
from evaluation.scoring.dense import HIGHER_IS_BETTER


def result(seed: int, factor: float) -> dict[str, Any]:
    """Every score `factor` times better than 0.5."""
    scores = {
        task: {name: 0.5 * factor if up else 0.5 / factor for name, up in names.items()}
        for task, names in HIGHER_IS_BETTER.items()
    }
    return {"config": {"seed": seed}, "test": scores, "flops": 2e9, "parameters": 3_000_000}


RESULTS = {"STL": [result(0, 1.0), result(1, 1.1)], "AoE-MTL": [result(1, 1.32), result(0, 1.25)]}


def test_summary() -> None:
    summary = summarise(RESULTS, "STL")
    columns = summary["rows"]["AoE-MTL"]["columns"]
    gains = []
    for factor in (1.32 / 1.1, 1.25):
        up, down = factor - 1, 1 - 1 / factor
        gains.append(100 * (up + down + (2 * down + 3 * up) / 5) / 3)
    assert columns["delta-m"]["mean"] == pytest.approx(sum(gains) / 2)
    assert columns["segmentation mIoU"]["mean"] == pytest.approx(64.25)
    assert columns["depth abs_err"]["mean"] < 1
    assert columns["GFLOPs"] == {"mean": 2.0, "std": 0.0} and columns["params (M)"]["mean"] == 3


def test_formats() -> None:
    summary = summarise(RESULTS, "STL")
    table = as_table(summary)
    assert [row[0] for row in table] == ["method", "STL", "AoE-MTL"]
    assert {len(row) for row in table} == {13}
    assert table[0][1:4] == ["mIoU (up)", "pixAcc (up)", "abs_err (down)"]
    assert table[1][10] == "-" and "+-" in table[2][10]
    assert FORMULA in markdown(summary) and "Seeds 0, 1; baseline STL" in markdown(summary)
    text = latex(summary)
    assert text.count(r"\\") == 3 and r"$\pm$" in text and r"\begin{tabular}{lrrrrrrrrrrrr}" in text


def test_names_of_rows_mean_nothing_to_the_formats() -> None:
    name = r"a|b & 5% $x$ #1 {y_z} ~ ^ \p"
    summary = summarise({**RESULTS, name: RESULTS["AoE-MTL"]}, "STL")
    row = next(line for line in markdown(summary).splitlines() if line.startswith("| a"))
    assert row.replace(r"\|", "").count("|") == 14
    escaped = r"a\textbar{}b \& 5\% \$x\$ \#1 \{y\_z\} \textasciitilde{} \textasciicircum{} \textbackslash{}p"
    assert f"\n{escaped} & " in latex(summary)


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="baseline 'MTL'"):
        summarise(RESULTS, "MTL")
    with pytest.raises(ValueError, match=r"AoE-MTL: seeds \[0\], the baseline has \[0, 1\]"):
        summarise({"STL": RESULTS["STL"], "AoE-MTL": RESULTS["AoE-MTL"][1:]}, "STL")


def test_a_baseline_score_of_0_leaves_delta_m_open() -> None:
    nothing = result(0, 1.0)
    nothing["test"]["normal"]["<11.25"] = 0.0
    summary = summarise({"STL": [nothing], "AoE-MTL": [result(0, 1.2)]}, "STL")
    assert [row[10] for row in as_table(summary)[1:]] == ["-", "-"]


def test_pictures(tmp_path: Any) -> None:
    import numpy as np

    scores = {"depth": {"abs_err": 0.5, "rel_err": 0.2}}
    entry = {"epoch": 1, "train_losses": [1.0], "val_losses": {"depth": 2.0}, "val_scores": scores}
    draw_curves([entry, {**entry, "epoch": 2}], tmp_path / "curves.png")
    targets = {
        "segmentation": np.full((4, 5), -1.0),
        "depth": np.zeros((1, 4, 5)),
        "normal": np.zeros((3, 4, 5)),
    }
    predicted = {
        "segmentation": np.ones((6, 4, 5)),
        "depth": np.ones((1, 4, 5)),
        "normal": np.ones((3, 4, 5)),
    }
    sample = {"image": np.ones((3, 4, 5)), "targets": targets, "predicted": predicted}
    draw_panel([sample], tmp_path / "panel.png")
    assert all((tmp_path / name).read_bytes()[:4] == b"\x89PNG" for name in ("curves.png", "panel.png"))
