"""The converter of the official NYUv2 file, on a small file with its layout."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from data.dense.folder import NYU_CLASSES, DenseFolder
from data.dense.nyu_mat import CENTRE, FOCAL, Split, convert, map_names, normals_from_depth, seeded_split

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
        convert(mat, tmp_path / "out", Split([2], [0]), np.zeros(4, int), (HEIGHT, WIDTH))


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


def test_faults(mat: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        convert(tmp_path / "none.mat", tmp_path, Split([], []), None, (4, 4))
    with pytest.raises(ValueError, match="image 9 of 4"):
        convert(mat, tmp_path, Split([9], []), np.zeros(4, int), (4, 4))
    with pytest.raises(ValueError, match="mapping has 2 entries"):
        convert(mat, tmp_path, Split([0], []), np.zeros(2, int), (4, 4))
    with pytest.raises(ValueError, match="holds no names"):
        convert(mat, tmp_path, Split([0], []), None, (4, 4))
    (tmp_path / "text.mat").write_text("no")
    with pytest.raises(ValueError, match="not readable as a MATLAB 7.3 file"):
        convert(tmp_path / "text.mat", tmp_path, Split([], []), None, (4, 4))


def test_classes_from_names() -> None:
    names = ["bookshelf", "desk", "night stand", "cup", "Door", "floor mat"]
    expected = ["books", "table", "furniture", "objects", "wall", "floor"]
    assert [NYU_CLASSES[c] for c in map_names(names)[1:]] == expected
    assert map_names([])[0] == -1


def test_seeded_split() -> None:
    split = seeded_split(10, 6)
    assert sorted([*split.train, *split.val]) == list(range(10)) and len(split.train) == 6
