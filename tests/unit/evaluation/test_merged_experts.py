"""A folder of merged experts: what is written, what loads from it, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from data.expert_map import MAP, read_expert_map
from data.files import sha256_file
from data.folders import StudyFolders, stored_expert, tasks_in
from evaluation.expert_loading import load_experts
from evaluation.merged_experts import RECORD, fold_group, open_sources, write_merged
from model.moe.anchor_files import load_anchor, save_anchor, save_published_anchor
from model.moe.anchors import Anchor
from model.moe.expert_files import inspect_expert
from model.moe.expert_pack import PACK
from model.moe.experts import ExpertBank, ExpertConfig
from model.moe.merging import FoldConfig

BASE, SIZES = "base-1", (10, 20, 40)
CENTERS = ((0.0, 0.0), (9.0, 9.0), (0.5, 0.0))  # tasks 0 and 2 are alike


class Llm(nn.Module):
    """One decoder layer's MLP under the usual names."""

    def __init__(self) -> None:
        super().__init__()
        mlp = nn.ModuleDict({name: nn.Linear(6, 6) for name in ("gate_proj", "up_proj", "down_proj")})
        self.layers = nn.ModuleList([nn.ModuleDict({"mlp": mlp})])


def anchor(task: int, base: str = BASE) -> Anchor:
    rows = torch.randn(SIZES[task], 2, generator=torch.Generator().manual_seed(task))
    return Anchor.from_features(task, {"text": rows + torch.tensor(CENTERS[task])}, base_identity=base)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Writes experts/ and anchors/ of three tasks; keywords change those of task 2."""

    def write(of_all: str = "lora", *, base: str = BASE, **change: object) -> Path:
        for task in range(3):
            settings = {"kind": of_all, "rank": 2, "layers": (0,), **(change if task == 2 else {})}
            bank = ExpertBank(Llm(), ExpertConfig(**settings), base if task == 2 else BASE)
            generator = torch.Generator().manual_seed(task)
            bank.add(task, generator=generator)
            state = {k: torch.randn(v.shape, generator=generator) for k, v in bank.state(task).items()}
            bank.load_state(task, state)
            bank.save(task, tmp_path / "experts" / f"expert_task_{task}.pt")
            save_anchor(anchor(task), tmp_path / "anchors" / f"anchor_task_{task}.pt")
        return tmp_path

    return write


def merge(root: Path, keep: int, method: str = "average") -> Path:
    sources = open_sources(root / "experts", root / "anchors")
    write_merged(sources, sources.group(keep), FoldConfig(method), root / "merged")
    return root / "merged"


@pytest.mark.parametrize("kind", ["lora", "mlp"])
def test_tasks_of_a_group_are_answered_by_one_expert_that_is_held_once(
    make: Callable[..., Path], kind: str
) -> None:
    root = make(kind)
    folder = merge(root, 2) / "experts"
    assert tasks_in(folder) == [0, 1, 2]
    files = {task: stored_expert(folder, task) for task in range(3)}
    assert [files[task].name for task in range(3)] == [
        "expert_merged_0.pt",
        "expert_task_1.pt",
        "expert_merged_0.pt",
    ]
    bank, digests = load_experts(Llm(), BASE, files)
    assert bank.task_ids == [0, 1, 2] and digests[0] == digests[2] == sha256_file(files[0])
    assert bank.active.experts[0] is bank.active.experts[2], "one file, one expert in memory"
    sources = open_sources(root / "experts", root / "anchors")
    wanted = fold_group(sources, (0, 2), FoldConfig("average"))
    states = [torch.load(root / "experts" / f"expert_task_{t}.pt", weights_only=True) for t in (0, 2)]
    for key, value in bank.state(2).items():
        assert torch.equal(value, wanted[key]) and torch.equal(value, bank.state(0)[key])
        mean = (10 * states[0][key].double() + 40 * states[1][key].double()) / 50  # by training samples
        torch.testing.assert_close(value, mean.float())


@pytest.mark.parametrize("kind", ["lora", "mlp"])
def test_experts_that_stay_alone_keep_their_bytes(make: Callable[..., Path], kind: str) -> None:
    root = make(kind)
    folder = merge(root, 3) / "experts"
    assert not (folder / MAP).exists()
    for task in range(3):
        name = f"expert_task_{task}.pt"
        assert (folder / name).read_bytes() == (root / "experts" / name).read_bytes()


def test_anchors_and_layout_are_those_that_the_evaluation_looks_for(make: Callable[..., Path]) -> None:
    root = make()
    output = merge(root, 1)
    study = StudyFolders(root, given_experts=output)
    assert study.experts("anchor_moe") == output / "experts"
    assert study.anchors("anchor_moe") == output / "anchors"
    assert read_expert_map(output / "experts") == dict.fromkeys(range(3), "expert_merged_0.pt")
    for task in range(3):
        assert torch.equal(
            load_anchor(output / "anchors" / f"anchor_task_{task}.pt", task, BASE).stats["text"].outer,
            anchor(task).stats["text"].outer,
        )
    assert inspect_expert(output / "experts" / "expert_merged_0.pt").header.task_id is None
    record = json.loads((output / RECORD).read_text())
    assert record["identity"]["groups"] == [[0, 1, 2]] and record["identity"]["weights"]["2"] == 40
    assert [join["first"] + join["second"] for join in record["joins"]] == [[0, 2], [0, 2, 1]]
    files = json.loads((output / "experts" / "expert_merged_0.run.json").read_text())["files"]
    assert files["expert_merged_0.pt"] == sha256_file(output / "experts" / "expert_merged_0.pt")


def test_without_packs(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = merge(make(), 1) / "experts"
    monkeypatch.setattr("evaluation.expert_loading.packed_experts", lambda paths: {})
    bank, _ = load_experts(Llm(), BASE, {task: stored_expert(folder, task) for task in range(3)})
    assert not (folder / PACK).exists() and len(bank.experts) == 1 and bank.task_ids == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": "base-2"}, "base_identity is 'base-2', of expert_task_0.pt 'base-1'"),
        ({"kind": "mlp"}, "kind is 'mlp'"),
        ({"rank": 3}, "rank is 3"),
        ({"alpha": 8.0}, "alpha is 8.0"),
        ({"tokens": "answer"}, "tokens is 'answer'"),
        ({"projections": ("up_proj",)}, "other layers or projections"),
    ],
)
def test_experts_of_another_make_are_refused(
    make: Callable[..., Path], change: dict[str, object], message: str
) -> None:
    base = str(change.pop("base", BASE))
    root = make(base=base, **change)
    with pytest.raises(ValueError, match=rf"expert_task_2\.pt: .*{message}"):
        open_sources(root / "experts", root / "anchors")


def test_missing_damaged_and_foreign_files_are_refused(make: Callable[..., Path]) -> None:
    root = make()
    save_anchor(anchor(2, "base-2"), root / "anchors" / "anchor_task_2.pt")
    with pytest.raises(ValueError, match="made with base base-2"):
        open_sources(root / "experts", root / "anchors")
    (root / "anchors" / "anchor_task_2.pt").unlink()
    with pytest.raises(ValueError, match=r"anchor_task_2\.pt: missing"):
        open_sources(root / "experts", root / "anchors")
    root = make()
    path = root / "experts" / "expert_task_2.pt"
    content = path.read_bytes()
    sources = open_sources(root / "experts", root / "anchors")
    path.write_bytes(content[:-100])
    with pytest.raises(ValueError, match=r"expert_task_2\.pt"):
        write_merged(sources, sources.group(1), FoldConfig(), root / "merged")
    assert sorted(p.name for p in root.iterdir()) == ["anchors", "experts"], "nothing half-made is left"


def test_merged_experts_are_not_merged_again_nor_written_over(make: Callable[..., Path]) -> None:
    root = make()
    output = merge(root, 2)
    with pytest.raises(ValueError, match="merged already"):
        open_sources(output / "experts", output / "anchors")
    with pytest.raises(ValueError, match="exists; choose a new folder"):
        merge(root, 2)


def test_experts_weigh_alike_where_an_anchor_has_no_counts(make: Callable[..., Path]) -> None:
    root = make("mlp")
    save_published_anchor(anchor(0), root / "anchors" / "anchor_task_0.pt")
    sources = open_sources(root / "experts", root / "anchors")
    assert sources.counts is None
    states = [torch.load(root / "experts" / f"expert_task_{t}.pt", weights_only=True) for t in (0, 2)]
    for key, value in fold_group(sources, (0, 2), FoldConfig("average")).items():
        torch.testing.assert_close(value, (states[0][key] + states[1][key]) / 2)


def test_records_of_a_group_agree_on_frames(make: Callable[..., Path]) -> None:
    root = make()
    for task, frames in ((0, 8), (2, 8)):
        identity = {"identity": {"inputs": {"num_frames": frames}}}
        (root / "experts" / f"expert_task_{task}.run.json").write_text(json.dumps(identity))
    output = merge(root, 2)
    record = json.loads((output / "experts" / "expert_merged_0.run.json").read_text())
    assert record["identity"]["inputs"] == {"num_frames": 8} and record["identity"]["tasks"] == [0, 2]
    other = {"identity": {"inputs": {"num_frames": 4}}}
    (root / "experts" / "expert_task_2.run.json").write_text(json.dumps(other))
    sources = open_sources(root / "experts", root / "anchors")
    with pytest.raises(ValueError, match=r"expert_task_2\.run\.json: inputs are .*4"):
        write_merged(sources, sources.group(1), FoldConfig(), root / "other")
