"""Training, testing and resuming through main.py's functions, and faults as one message."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from data.dense.rooms import write_rooms
from examples.nyu.arguments import make_parser
from examples.nyu.config import StudyConfig
from examples.nyu.main import main
from examples.nyu.study import load_best, make_accelerator

SMALL = (
    "--img_size 3 24 32 --encoder plain --width 4 --head_width 8 --train_bs 2 --test_bs 2 --epochs 2 --quiet"
)
PUBLISHED = "--weighting EW --arch AOEMTL --num_experts 2 2 --gpu_id 0 --scheduler step"


def call(line: str, *more: object) -> None:
    main(make_parser("").parse_args([*line.split(), *map(str, more)]))


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rooms(tmp_path_factory.mktemp("nyu") / "rooms", 6, 3, 24, 32)


@pytest.fixture(scope="module")
def trained(rooms: Path) -> Path:
    folder = rooms.parent / "run"
    call(f"{PUBLISHED} {SMALL} --tensorboard", "--dataset_path", rooms, "--save_path", folder)
    return folder


def test_what_a_run_leaves_behind(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    wanted = {"best.pt", "state.pt", "identity.json", "history.json", "result.json", "train_log.jsonl"}
    assert wanted | {"curves.png", "predictions.png"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    result = json.loads((trained / "result.json").read_text())
    assert list(result["test"]["normal"]) == ["mean", "median", "<11.25", "<22.5", "<30"]
    assert result["samples"] == 3 and result["config"]["num_experts"] == [2, 2]
    assert result["flops"] > 0 and result["parameters"] > 0
    config, content = load_best(trained)
    assert config.num_experts == (2, 2) and content["entry"]["epoch"] == result["best_epoch"]


def test_a_test_needs_the_checkpoint_only(trained: Path, tmp_path: Path) -> None:
    call("--mode test", "--load_path", trained / "best.pt", "--save_path", tmp_path)
    ours, theirs = (json.loads((f / "result.json").read_text())["test"] for f in (tmp_path, trained))
    assert ours == theirs


def test_a_relative_dataset_is_found_from_elsewhere(
    rooms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As trained in examples/nyu and tested in the root."""
    monkeypatch.chdir(rooms)
    call(f"{SMALL} --epochs 1 --dataset_path ../rooms", "--save_path", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    call("--mode test --load_path run --save_path test")
    ours, theirs = (json.loads((tmp_path / f / "result.json").read_text()) for f in ("test", "run"))
    assert ours["test"] == theirs["test"] and ours["config"]["dataset_path"] == str(rooms)
    monkeypatch.chdir(rooms.parent)
    call("--mode test --dataset_path ./rooms --save_path given --load_path", tmp_path / "run")
    given = json.loads(Path("given/result.json").read_text())
    assert given["config"] == theirs["config"]


def test_the_identity_of_a_run_is_as_ever(trained: Path, rooms: Path) -> None:
    """As runs made before the trainer told of itself have it: theirs go on."""
    optim = {"optim": "adam", "lr": 1e-4, "weight_decay": 1e-5, "momentum": 0.9, "scheduler": "step"}
    optim |= {"step_size": 100, "gamma": 0.5, "eta_min": 0.0, "T_max": None, "patience": 10}
    weighting = {"name": "EW", "T": 2.0, "alpha": 1.5, "FAMO_w_lr": 0.025, "FAMO_w_gamma": 1e-3}
    weighting |= {"mgda_gn": "none", "calpha": 0.5, "rescale": 1, "update_weights_every": 1}
    weighting |= {"optim_niter": 20, "max_norm": 1.0}
    config = {"arch": "AOEMTL", "weighting": weighting, "optim": optim, "encoder": "plain", "width": 4}
    config |= {"head_width": 8, "pretrained": "imagenet", "num_experts": [2, 2], "img_size": [3, 24, 32]}
    config |= {"symmetry": "broken", "dataset": "nyuv2", "dataset_path": str(rooms), "aug": False}
    config |= {"train_bs": 2, "test_bs": 2, "seed": 0, "precision": "no", "recompute": True}
    stored = json.loads((trained / "identity.json").read_text())["identity"]
    assert stored == {**config, "epochs": 2, "samples": 5}
    assert load_best(trained)[1]["config"] == {**config, "epochs": 2}


def test_a_finished_run_is_not_trained_again(trained: Path, rooms: Path) -> None:
    before = (trained / "best.pt").read_bytes()
    call(f"{PUBLISHED} {SMALL}", "--dataset_path", rooms, "--save_path", trained)
    assert (trained / "best.pt").read_bytes() == before
    with pytest.raises(ValueError, match="optim.lr: was 0.0001, is 0.1") as caught:
        call(f"{PUBLISHED} {SMALL} --lr 0.1", "--dataset_path", rooms, "--save_path", trained)
    assert "Choose another --save_path" in str(caught.value)  # flags that main.py has
    assert "--overwrite" not in str(caught.value) and "OUTPUT" not in str(caught.value)


def test_a_run_goes_on_without_the_weights_that_it_began_with(
    rooms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun in one folder, gone on with in another, and the file that its encoders came from is gone."""
    monkeypatch.chdir(tmp_path)
    call(f"{SMALL} --epochs 1 --arch HPS --save_path source", "--dataset_path", rooms)
    flags = f"{SMALL} --arch AOEMTL --num_experts 1 1 --dataset_path {rooms} --save_path {tmp_path / 'run'}"
    call(f"{flags} --pretrained source")
    before = (tmp_path / "run" / "best.pt").read_bytes()
    (tmp_path / "source" / "best.pt").unlink()
    monkeypatch.chdir(rooms)
    call(f"{flags} --pretrained {os.path.relpath(tmp_path / 'source')}")
    assert (tmp_path / "run" / "best.pt").read_bytes() == before
    (tmp_path / "run" / "state.pt").unlink()
    with pytest.raises(ValueError, match="source/best.pt: no such file"):
        call(f"{flags} --pretrained {tmp_path / 'source'}")


def test_a_test_on_other_data_leaves_a_run_s_result(trained: Path, rooms: Path, tmp_path: Path) -> None:
    before = (trained / "result.json").read_bytes()
    other = write_rooms(tmp_path / "rooms", 1, 2, 24, 32)
    flags = f"--mode test --load_path {trained} --save_path {trained}"
    with pytest.raises(ValueError, match=r"a run of its own; choose another:\s+dataset_path: was .*rooms"):
        call(flags, "--dataset_path", other)
    assert (trained / "result.json").read_bytes() == before
    call(flags, "--dataset_path", rooms, "--test_bs", 2)
    assert json.loads((trained / "result.json").read_text())["test"] == json.loads(before)["test"]


def test_weights_that_do_not_fit_are_refused(trained: Path, tmp_path: Path) -> None:
    content = torch.load(trained / "best.pt", weights_only=True)
    content["model"].pop("decoders.depth.4.bias")
    torch.save(content, tmp_path / "best.pt")
    with pytest.raises(ValueError, match="weights do not fit its own configuration"):
        call("--mode test", "--load_path", tmp_path / "best.pt", "--save_path", tmp_path / "out")
    torch.save(content["model"], tmp_path / "bare.pt")
    with pytest.raises(ValueError, match="bare.pt: holds no configuration"):
        call("--mode test", "--load_path", tmp_path / "bare.pt")


def test_cityscapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two tasks, 7 classes, files of its own names."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 2)):
        for number in range(count):
            arrays = {
                "image": rng.random((24, 32, 3)),
                "label_7": rng.integers(-1, 7, (24, 32)),
                "depth": rng.random((24, 32, 1)),
            }
            for name, array in arrays.items():
                (tmp_path / part / name).mkdir(parents=True, exist_ok=True)
                np.save(tmp_path / part / name / f"{number}.npy", array.astype(np.float32))
    flags = f"{SMALL} --epochs 1 --dataset cityscapes --arch AOEMTL --num_experts 1 1"
    call(flags, "--dataset_path", tmp_path, "--save_path", tmp_path / "run")
    call("--mode test", "--load_path", tmp_path / "run", "--save_path", tmp_path / "test")
    ours, theirs = (json.loads((tmp_path / f / "result.json").read_text()) for f in ("test", "run"))
    assert ours["test"] == theirs["test"] and ours["samples"] == 2
    assert {task: list(scores) for task, scores in ours["test"].items()} == {
        "segmentation": ["mIoU", "pixAcc"],
        "depth": ["abs_err", "rel_err"],
    }
    printed = capsys.readouterr().out
    assert "mIoU" in printed and "abs_err" in printed and "normal" not in printed
    assert all((tmp_path / "test" / name).is_file() for name in ("result.json", "predictions.png"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--mode test --load_path {run} --arch CGC", "--arch CGC: trained with AOEMTL"),
        ("--mode test --load_path {run}/train_log.jsonl", "train_log.jsonl"),
        ("--mode test --load_path {run}/none.pt", "no such file"),
        ("--mode test", "needs --load_path"),
        ("--dataset_path {run} --arch HPS", "no such folder"),
        ("--dataset_path {rooms} --arch AOEMTL --num_experts 0 0", "every task needs at least one expert"),
        ("--dataset_path {rooms} --arch AOEMTL --train_bs 1", "at least 2"),
        ("--dataset_path {rooms} --arch AOEMTL --train_bs 9", "less than one batch of 9"),
        ("--dataset_path {rooms} --save_every 0", "0 steps between checkpoints.*at least 1"),
        ("--dataset_path {rooms} --width 0", "width 0; expected at least 1"),
        ("--dataset_path {rooms} --img_size 3 20000 20000 --train_bs 4", "nothing was started"),
    ],
)
def test_faults(trained: Path, rooms: Path, tmp_path: Path, flags: str, message: str) -> None:
    line = flags.format(run=trained, rooms=rooms)
    extra = "" if "test" in flags else f"{SMALL} --save_path {tmp_path} "
    with pytest.raises(ValueError, match=message):
        call(extra + line)


def test_the_advice_of_a_refusal_for_memory_can_be_followed(
    rooms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Smaller batches in the same folder: what was refused has not taken it."""
    flags = f"{SMALL} --epochs 1 --arch HPS --dataset_path {rooms} --save_path {tmp_path}"
    told = "2 times .*nothing was started.*--train_bs"
    with monkeypatch.context() as small, pytest.raises(ValueError, match=told):
        small.setenv("LOCAL_WORLD_SIZE", "2")  # as launchers set it
        small.setattr("train.mtl.memory.available", lambda device: 2**10)
        call(f"{flags} --train_bs 4")
    call(flags)
    assert json.loads((tmp_path / "result.json").read_text())["config"]["train_bs"] == 2


def test_a_gpu_id_that_is_left_aside_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level("INFO"):
        for set_already, said in (("1,2", True), ("3", False)):
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", set_already)
            make_accelerator(StudyConfig(), "3")
            assert ("CUDA_VISIBLE_DEVICES is '1,2' already: --gpu_id 3 is left" in caplog.text) == said
            caplog.clear()


def test_fp16_needs_a_gpu(rooms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="fp16 needs a GPU.*--bf16"):
        call(f"{SMALL} --fp16", "--dataset_path", rooms, "--save_path", tmp_path)
