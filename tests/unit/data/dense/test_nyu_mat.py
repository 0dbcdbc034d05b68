"""The converter of the official NYUv2 file, on a small file with its layout."""

import fcntl
import multiprocessing
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from data.dense import nyu_mat
from data.dense.folder import NYU_CLASSES, DenseFolder
from data.dense.nyu_mat import CENTRE, FOCAL, Split, convert, map_names, normals_from_depth, seeded_split
from data.problems import InputError

HEIGHT, WIDTH = 24, 32


@pytest.fixture
def mat(tmp_path: Path) -> Path:
    path = tmp_path / "labeled.mat"
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["images"] = rng.integers(0, 256, (4, 3, WIDTH, HEIGHT), dtype=np.uint8)
        file["depths"] = np.full((4, WIDTH, HEIGHT), 2.0, np.float32)
        file["labels"] = rng.integers(0, 4, (4, WIDTH, HEIGHT)).astype(np.uint16)
    return path


def test_layout(mat: Path, tmp_path: Path) -> None:
    mapping = np.array([-1, 4, 11, 0])
    convert(mat, tmp_path / "out", Split([0, 2, 3], [1]), mapping, (HEIGHT, WIDTH))
    dataset = DenseFolder(tmp_path / "out", "train")
    image, targets = dataset[1]
    with h5py.File(mat) as file:
        assert np.allclose(image.numpy(), np.asarray(file["images"][2]).transpose(0, 2, 1) / 255, atol=1e-6)
        assert np.array_equal(targets["segmentation"].numpy(), mapping[np.asarray(file["labels"][2]).T])
    assert (targets["depth"] == 2).all()
    assert np.allclose(targets["normal"][:, 5, 5], [0, 0, -1])
    assert not targets["normal"][:, 0].any()
    assert len(DenseFolder(tmp_path / "out", "val")) == 1


def test_normals_that_are_given_are_taken(mat: Path, tmp_path: Path) -> None:
    given = np.random.default_rng(1).normal(size=(4, 3, WIDTH, HEIGHT)).astype(np.float32)
    with h5py.File(mat, "a") as file:
        file["normals"] = given
    convert(mat, tmp_path / "out", Split([2], [0]), np.zeros(4, int), (HEIGHT, WIDTH))
    for part, place in (("train", 2), ("val", 0)):
        _, targets = DenseFolder(tmp_path / "out", part)[0]
        assert np.array_equal(targets["normal"].numpy(), given[place].transpose(0, 2, 1))
    with h5py.File(mat, "a") as file:
        del file["normals"]
        file["normals"] = given[..., :-1]
    with pytest.raises(ValueError, match=r"normals of shape \(4, 3, 32, 23\); expected \(4, 3, 32, 24\)"):
        convert(mat, tmp_path / "again", Split([2], [0]), np.zeros(4, int), (HEIGHT, WIDTH))


def test_normals_of_a_tilted_plane_and_of_a_jump() -> None:
    normal = np.array([0.3, -0.4, -np.sqrt(0.75)])
    scale = WIDTH / 640
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    rays = np.stack(
        [
            (x - CENTRE[0] * scale) / (FOCAL[0] * scale),
            (y - CENTRE[1] * scale) / (FOCAL[1] * scale),
            np.ones(x.shape),
        ],
        -1,
    )
    depth = -2.0 / (rays @ normal)
    found = normals_from_depth(depth)
    known = (found != 0).any(-1)
    assert known.mean() > 0.3
    assert np.allclose(found[known], normal, atol=1e-6)
    depth[:, WIDTH // 2 :] += 3
    assert not normals_from_depth(depth)[:, WIDTH // 2 - 1 : WIDTH // 2 + 1].any()


ONE_EACH = Split([0], [1])


def test_faults(mat: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        convert(tmp_path / "none.mat", tmp_path, ONE_EACH, None, (4, 4))
    with pytest.raises(ValueError, match="image 9 of 4"):
        convert(mat, tmp_path, Split([9], [1]), np.zeros(4, int), (4, 4))
    with pytest.raises(ValueError, match="mapping has 2 entries"):
        convert(mat, tmp_path, ONE_EACH, np.zeros(2, int), (4, 4))
    with pytest.raises(ValueError, match="holds no names"):
        convert(mat, tmp_path, ONE_EACH, None, (4, 4))
    with pytest.raises(ValueError, match="val: none of the 4 images in .*; give a split with --splits"):
        convert(mat, tmp_path, seeded_split(4, 795), np.zeros(4, int), (4, 4))
    (tmp_path / "text.mat").write_text("no")
    with pytest.raises(ValueError, match="not readable as a MATLAB 7.3 file"):
        convert(tmp_path / "text.mat", tmp_path, ONE_EACH, None, (4, 4))
    assert {path.name for path in tmp_path.iterdir()} == {"labeled.mat", "text.mat"}


@pytest.mark.parametrize("wrong", [13, -2, 2.7, np.nan])
def test_a_mapping_to_other_classes_is_refused(mat: Path, tmp_path: Path, wrong: float) -> None:
    with pytest.raises(ValueError, match=rf"label number 2 has class {wrong:g}; expected .* 0 \(bed\) to 12"):
        convert(mat, tmp_path / "out", ONE_EACH, np.array([-1, 0, wrong, 12]), (4, 4))


def test_two_splits_never_mix(mat: Path, tmp_path: Path) -> None:
    convert(mat, tmp_path / "out", Split([0, 1, 2], [3]), np.zeros(4, int), (4, 4))
    with pytest.raises(ValueError, match="out holds train and val already, whose images would mix"):
        convert(mat, tmp_path / "out", Split([3], [0]), np.zeros(4, int), (4, 4))
    assert len(DenseFolder(tmp_path / "out", "train")) == 3


def test_an_interrupted_conversion_leaves_no_part(
    mat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As killed: without the clean-up that an error gets."""
    whole = nyu_mat.write_sample

    def stop(file: h5py.File, place: int, *rest: Any) -> None:
        if place == 3:
            os._exit(9)
        whole(file, place, *rest)

    monkeypatch.setattr(nyu_mat, "write_sample", stop)
    arguments = (mat, tmp_path / "out", Split([0], [1, 3]), np.zeros(4, int), (4, 4))
    killed = multiprocessing.get_context("fork").Process(target=convert, args=arguments)
    killed.start()
    killed.join(30)
    assert killed.exitcode == 9
    with pytest.raises(InputError, match="no such folder"):
        DenseFolder(tmp_path / "out", "val")
    [left] = (tmp_path / "out").glob(".unfinished_*")
    assert any(left.rglob("*.npy"))
    monkeypatch.undo()
    convert(*arguments)
    assert len(DenseFolder(tmp_path / "out", "val")) == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"train", "val"}, "what was left is gone"


def test_a_living_conversion_keeps_its_folder(mat: Path, tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()

    def hold() -> None:
        with nyu_mat.unfinished(tmp_path / "out") as folder:
            (folder / "train").mkdir()
            theirs.send(folder)
            theirs.recv()

    living = fork.Process(target=hold)
    living.start()
    try:
        assert ours.poll(30)
        folder = ours.recv()
        convert(mat, tmp_path / "out", ONE_EACH, np.zeros(4, int), (4, 4))
        assert (folder / "train").is_dir(), "in use"
    finally:
        living.kill()
        living.join(30)
    assert folder.is_dir(), "SIGKILL leaves it"
    with nyu_mat.unfinished(tmp_path / "out"):
        assert not folder.exists()


def test_where_nothing_can_be_locked_the_folder_is_named(
    mat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(ValueError, match=r"out: no folder can be made and locked there .*not supported"):
        convert(mat, tmp_path / "out", ONE_EACH, np.zeros(4, int), (4, 4))
    assert list((tmp_path / "out").iterdir()) == []


def test_classes_from_names() -> None:
    names = ["bookshelf", "desk", "night stand", "cup", "Door", "floor mat"]
    expected = ["books", "table", "furniture", "objects", "wall", "floor"]
    assert [NYU_CLASSES[c] for c in map_names(names)[1:]] == expected
    assert map_names([])[0] == -1


def test_seeded_split() -> None:
    split = seeded_split(10, 6)
    assert sorted([*split.train, *split.val]) == list(range(10)) and len(split.train) == 6
