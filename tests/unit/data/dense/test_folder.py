"""Reading MTAN's layout: what a sample is, and every fault by its name."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data.dense.augment import augment
from data.dense.folder import LAYOUTS, DenseFolder, split_validation
from data.problems import InputError

SIZE = (6, 8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(11):
        arrays = {
            "image": rng.uniform(0, 1, (*SIZE, 3)),
            "label": rng.integers(-1, 13, SIZE).astype(float),
            "depth": rng.uniform(1, 5, (*SIZE, 1)),
            "normal": np.tile([0.0, 0.0, -1.0], (*SIZE, 1)),
        }
        for kind, array in arrays.items():
            folder = tmp_path / "train" / kind
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"{number}.npy", array)
    return tmp_path


def change(root: Path, kind: str, number: int, array: np.ndarray) -> None:
    np.save(root / "train" / kind / f"{number}.npy", array)


def test_samples_in_numerical_order(root: Path) -> None:
    dataset = DenseFolder(root, "train")
    assert dataset.names[:3] == ["0", "1", "2"] and dataset.names[-1] == "10" and len(dataset) == 11
    image, targets = dataset[10]
    assert image.shape == (3, *SIZE)
    assert {task: tuple(t.shape) for task, t in targets.items()} == {
        "segmentation": SIZE,
        "depth": (1, *SIZE),
        "normal": (3, *SIZE),
    }
    saved = np.load(root / "train" / "image" / "10.npy")
    torch.testing.assert_close(image[0], torch.from_numpy(saved[..., 0]).float())
    assert all(t.dtype == torch.float32 for t in (image, *targets.values()))


def test_other_size(root: Path) -> None:
    image, targets = DenseFolder(root, "train", size=(12, 16))[0]
    assert image.shape == (3, 12, 16) and targets["depth"].shape == (1, 12, 16)
    original = DenseFolder(root, "train")[0][1]["segmentation"]
    assert torch.equal(targets["segmentation"][::2, ::2], original)


def test_what_is_not_finite_is_not_measured(root: Path) -> None:
    depth = np.full((*SIZE, 1), 2.0)
    depth[0, 0], depth[1, 1] = np.nan, np.inf
    normal = np.tile([0.0, 0.0, -1.0], (*SIZE, 1))
    normal[0, 0, 0] = np.nan
    change(root, "depth", 3, depth)
    change(root, "normal", 3, normal)
    targets = DenseFolder(root, "train")[3][1]
    assert targets["depth"].sum() == 2 * (6 * 8 - 2)
    assert not targets["normal"][:, 0, 0].any() and targets["normal"].sum() == -(6 * 8 - 1)


@pytest.mark.parametrize(
    ("kind", "array", "message"),
    [
        ("depth", np.zeros((5, 8, 1)), r"depth/2.npy: shape \(5, 8, 1\); expected \(6, 8, 1\)"),
        ("normal", np.zeros((6, 8)), r"normal/2.npy: shape"),
        ("image", np.zeros((6, 8, 4)), r"image/2.npy: shape"),
    ],
)
def test_sizes_that_differ(root: Path, kind: str, array: np.ndarray, message: str) -> None:
    change(root, kind, 2, array)
    with pytest.raises(InputError, match=message):
        DenseFolder(root, "train")


def test_depth_without_channel_axis(root: Path) -> None:
    change(root, "depth", 2, np.full(SIZE, 3.0))
    assert DenseFolder(root, "train")[2][1]["depth"].shape == (1, *SIZE)


def test_missing_files_and_folders(root: Path) -> None:
    (root / "train" / "normal" / "4.npy").unlink()
    with pytest.raises(InputError, match=r"normal: 10 files for 11 images; missing \['4'\]"):
        DenseFolder(root, "train")
    with pytest.raises(InputError, match="no such folder; expected val/ to hold image, label, depth, normal"):
        DenseFolder(root, "val")
    for path in (root / "train" / "image").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="no .npy files"):
        DenseFolder(root, "train")


def test_unreadable_files(root: Path) -> None:
    (root / "train" / "label" / "1.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match="label/1.npy: not readable"):
        DenseFolder(root, "train")


WHOLE = r"expected whole numbers from -1 \(ignored\) to 12; write it anew"


@pytest.mark.parametrize(
    ("kind", "array", "message"),
    [
        ("label", np.full(SIZE, 13.0), rf"label/2.npy: a label of 13; {WHOLE}"),
        ("label", np.where(np.eye(*SIZE), np.nan, 3.0), rf"label/2.npy: a label of nan; {WHOLE}"),
        ("label", np.where(np.eye(*SIZE), 2.7, 3.0), rf"label/2.npy: a label of 2.7; {WHOLE}"),
        ("label", np.full(SIZE, -np.inf), rf"label/2.npy: a label of -inf; {WHOLE}"),
        ("image", np.full((*SIZE, 3), np.nan), "image/2.npy: the image holds numbers that are not finite"),
        ("image", np.full((*SIZE, 3), 255.0), "image/2.npy: values from 255 to 255; expected 0 to 1"),
        ("image", np.full((*SIZE, 3), -1.0), "image/2.npy: values from -1 to -1; expected 0 to 1"),
    ],
)
def test_contents_that_cannot_be(root: Path, kind: str, array: np.ndarray, message: str) -> None:
    change(root, kind, 2, array)
    with pytest.raises(ValueError, match=message):
        DenseFolder(root, "train", size=(12, 16))[2]


def test_images_in_bytes_and_a_little_beyond_the_range(root: Path) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    change(root, "image", 2, image)
    change(root, "image", 3, np.full((*SIZE, 3), 1.05))
    dataset = DenseFolder(root, "train")
    assert torch.equal(dataset[2][0], torch.from_numpy(image).permute(2, 0, 1).float() / 255)
    assert (dataset[3][0] == torch.tensor(1.05)).all()


def test_cityscapes(tmp_path: Path) -> None:
    for kind, shape in (("image", (4, 4, 3)), ("label_7", (4, 4)), ("depth", (4, 4, 1))):
        (tmp_path / "val" / kind).mkdir(parents=True)
        np.save(tmp_path / "val" / kind / "0.npy", np.ones(shape))
    dataset = DenseFolder(tmp_path, "val", LAYOUTS["cityscapes"])
    assert list(dataset[0][1]) == ["segmentation", "depth"]


def test_augmentation_depends_on_seed_epoch_and_index_only(root: Path) -> None:
    dataset = DenseFolder(root, "train", seed=1)
    again = DenseFolder(root, "train", seed=1)
    assert torch.equal(dataset[3][0], again[3][0])
    dataset.epoch = again.epoch = 5
    torch.rand(3)
    assert torch.equal(dataset[3][0], again[3][0])
    looks = {tuple(DenseFolder(root, "train", seed=s)[3][1]["depth"].flatten().tolist()) for s in range(12)}
    assert len(looks) > 3


def test_zoom_and_flip_change_depth_and_normals() -> None:
    image = torch.rand(3, 12, 12)
    normal = torch.tensor([0.6, 0.0, -0.8])[:, None, None].expand(3, 12, 12)
    for seed in range(20):
        targets = {
            "depth": torch.full((1, 12, 12), 3.0),
            "normal": normal,
            "segmentation": torch.ones(12, 12),
        }
        moved, changed = augment(image, targets, torch.Generator().manual_seed(seed))
        zoom = 3.0 / changed["depth"]
        assert moved.shape == image.shape and len(zoom.unique()) == 1
        assert min(abs(zoom.mean() - s) for s in (1.0, 1.2, 1.5)) < 1e-5
        assert changed["normal"][0].unique().item() in (pytest.approx(0.6), pytest.approx(-0.6))
        assert (changed["normal"][1:] == normal[1:]).all() and (changed["segmentation"] == 1).all()


def test_validation_share() -> None:
    train, held = split_validation(40, 3)
    assert len(held) == 4 and sorted(train + held) == list(range(40))
    assert (train, held) == split_validation(40, 3) != split_validation(40, 4)
    assert [len(part) for part in split_validation(2, 0)] == [1, 1]
    with pytest.raises(ValueError, match="at least 2"):
        split_validation(1, 0)
