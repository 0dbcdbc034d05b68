"""experts.json: tasks that share an expert, and where the rest of the code finds their file."""

import json
from pathlib import Path

import pytest

from data.expert_map import MAP, merged_name, read_expert_map, write_expert_map
from data.folders import stored_expert, tasks_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Tasks 0 and 2 share an expert, task 1 has its own."""
    write_expert_map(tmp_path, {2: "expert_merged_0.pt", 0: "expert_merged_0.pt"})
    for name in ("expert_merged_0.pt", "expert_task_1.pt"):
        (tmp_path / name).touch()
    return tmp_path


def test_tasks_and_files(folder: Path) -> None:
    assert merged_name((2, 0)) == "expert_merged_0.pt"
    assert tasks_in(folder) == [0, 1, 2] and tasks_in(folder, "anchor_task_") == []
    names = [stored_expert(folder, task).name for task in range(4)]
    assert names == ["expert_merged_0.pt", "expert_task_1.pt", "expert_merged_0.pt", "expert_task_3.pt"]


def test_the_other_container(folder: Path) -> None:
    (folder / "expert_merged_0.pt").rename(folder / "expert_merged_0.safetensors")
    assert stored_expert(folder, 2).name == "expert_merged_0.safetensors"


def test_a_task_learned_after_the_merge(folder: Path) -> None:
    (folder / "expert_task_3.pt").touch()
    assert tasks_in(folder) == [0, 1, 2, 3] and stored_expert(folder, 3).is_file()


def test_two_experts_for_one_task_are_refused(folder: Path) -> None:
    (folder / "expert_task_2.safetensors").touch()
    with pytest.raises(ValueError, match=r"task 2 has an expert of its own and shares expert_merged_0.pt"):
        stored_expert(folder, 2)
    assert stored_expert(folder, 0).name == "expert_merged_0.pt"


def test_a_folder_without_it(tmp_path: Path) -> None:
    assert read_expert_map(tmp_path) == {} and read_expert_map(tmp_path / "missing") == {}


def test_a_changed_task_is_not_believed(folder: Path) -> None:
    file, wanted = folder / MAP, read_expert_map(folder)
    good = file.read_text()
    file.write_text(good.replace('"2"', '"3"'))
    with pytest.raises(ValueError, match=r"experts\.json: damaged \(the checksum does not fit"):
        read_expert_map(folder)
    content = json.loads(good)
    del content["crc"]  # as earlier versions wrote it
    file.write_text(json.dumps(content))
    assert read_expert_map(folder) == wanted


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not readable as JSON"),
        ([], "expected the keys"),
        ({"format": 2, "experts": {}}, "expected the keys"),
        ({"format": 1, "experts": []}, "experts is list"),
        ({"format": 1, "experts": {"one": "expert_merged_0.pt"}}, "'one'"),
        ({"format": 1, "experts": {"01": "expert_merged_0.pt"}}, "'01'"),
        ({"format": 1, "experts": {"1": "../expert_merged_0.pt"}}, "expected a task id and expert_merged_K"),
        ({"format": 1, "experts": {"1": "expert_task_0.pt"}}, "expected a task id and expert_merged_K"),
        ({"format": 1, "experts": {"1": 3}}, "expected a task id and expert_merged_K"),
    ],
)
def test_damage_is_refused(tmp_path: Path, content: object, message: str) -> None:
    (tmp_path / MAP).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_expert_map(tmp_path)
