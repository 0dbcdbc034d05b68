"""Which experts can be trained at the same time."""

from pathlib import Path

import pytest

from data.benchmark import read_benchmark
from data.folders import StudyFolders
from evaluation import summary
from methods.table import METHODS, NAMES, USUAL, chosen_methods, study_cells, trained
from train.cells import Cell, independent
from train.run_cell import check_sources
from train.train_all import chosen_cells

ROOT = Path(__file__).resolve().parents[3]


def cells_of(names: str | None, tmp_path: Path) -> list[Cell]:
    benchmark = read_benchmark(ROOT / "data_sample" / "avqa.json")
    return study_cells(benchmark, chosen_methods(names, "tiny"), StudyFolders(tmp_path))


def chains(expert_init: str, tmp_path: Path, names: str | None = None) -> list[list[str]]:
    cells = cells_of(names, tmp_path)
    return [[cell.title for cell in chain] for chain in independent(cells, expert_init)]


def test_experts_from_nothing_are_independent_but_for_the_sequential_ones(tmp_path: Path) -> None:
    made = chains("scratch", tmp_path)
    assert [f"sequential task {task}" for task in range(4)] in made
    assert sorted(len(chain) for chain in made) == [1] * 9 + [4]  # anchor_moe, blind, joint; sequential


@pytest.mark.parametrize("expert_init", ["previous", "nearest", "mean"])
def test_experts_that_start_from_earlier_ones_follow_them(expert_init: str, tmp_path: Path) -> None:
    made = chains(expert_init, tmp_path)
    assert [[title.split()[0] for title in chain] for chain in made] == [
        ["anchor_moe"] * 4 + ["sequential"] * 4,
        ["joint"],
        ["blind"] * 4,
    ]


def test_sequential_may_take_over_the_experts_of_anchor_moe(tmp_path: Path) -> None:
    cells = cells_of(None, tmp_path)
    ours = {cell.task_id: cell.expert for cell in cells if cell.method == "anchor_moe"}
    assert {cell.task_id: cell.twin for cell in cells if cell.method == "sequential"} == ours
    assert not any(cell.twin for cell in cells if cell.method != "sequential")


def test_tasks_are_chosen_by_number(tmp_path: Path) -> None:
    cells = cells_of("anchor_moe, joint", tmp_path)
    assert chosen_cells(cells, None) == cells
    assert [cell.title for cell in chosen_cells(cells, "3, 1")] == [
        "anchor_moe task 1",
        "anchor_moe task 3",
        "joint task 3",
    ]
    with pytest.raises(ValueError, match="'4', expected some of 0, 1, 2, 3"):
        chosen_cells(cells, "4")


def test_methods_are_checked() -> None:
    assert set(NAMES) == set(summary.METHOD_TITLES)  # every method has a title, and a place in the table
    assert [method.name for method in trained(chosen_methods("oracle joint zero_shot", "tiny"))] == ["joint"]
    with pytest.raises(ValueError, match="'anchor_mo', expected all or some of anchor_moe"):
        chosen_methods("anchor_mo", "tiny")
    with pytest.raises(ValueError, match="oracle need no training"):
        trained(chosen_methods("oracle", "tiny"))


def test_the_main_job_is_what_it_was() -> None:
    usual = ("anchor_moe", "oracle", "sequential", "joint", "zero_shot", "blind")
    assert usual == USUAL and set(usual) == set(summary.USUAL)
    assert chosen_methods(None, "tiny") == METHODS[: len(usual)]
    assert [method.name for method in chosen_methods(None, "published")] == ["anchor_moe"]
    assert chosen_methods("all", "tiny") == METHODS


def test_methods_that_go_on_learning_one_expert_are_chains_of_their_own(tmp_path: Path) -> None:
    made = chains("nearest", tmp_path, "anchor_moe sequential replay")
    assert [[title.split()[0] for title in chain] for chain in made] == [
        ["anchor_moe"] * 4 + ["sequential"] * 4,
        ["replay"] * 4,
    ]


def test_a_task_whose_starting_point_is_not_there_is_refused(tmp_path: Path) -> None:
    cells = cells_of("anchor_moe", tmp_path)
    check_sources(cells, "nearest")
    check_sources(cells[2:], "scratch")
    with pytest.raises(ValueError, match=r"expert_task_0\.pt: anchor_moe task 2 starts from it"):
        check_sources(cells[2:], "nearest")
    cells[1].expert.parent.mkdir(parents=True)
    cells[1].expert.touch()
    check_sources(cells[2:], "previous")
