"""Made rooms: exact geometry, the same for a seed, MTAN's layout."""

from pathlib import Path

import numpy as np
import pytest

from data.dense.folder import NYU_CLASSES, DenseFolder
from data.dense.furniture import COLOURS
from data.dense.rooms import FAR, pixel_rays, render, write_rooms

SIZE = (24, 32)


@pytest.fixture(scope="module")
def views() -> list:
    return [render(seed, *SIZE) for seed in range(6)]


def test_depth_and_normals_agree(views: list) -> None:
    """Neighbouring pixels with the same normal and label on one plane: their difference lies in the plane."""
    rays = pixel_rays(*SIZE).reshape(*SIZE, 3)
    for view in views:
        points = rays * view.depth
        same = (view.normal[:, 1:] == view.normal[:, :-1]).all(-1) & (view.label[:, 1:] == view.label[:, :-1])
        same &= (view.depth[:, 1:, 0] > 0) & (view.depth[:, :-1, 0] > 0)
        steps = points[:, 1:] - points[:, :-1]
        away = np.abs((steps * view.normal[:, 1:]).sum(-1))[same]
        walls = (np.isin(view.label, (2, 4, 11))[:, 1:])[same]
        assert walls.sum() > 20
        assert np.mean(away[walls] < 1e-4) > 0.97  # the rest: two walls that look the same way


def test_normals_face_the_camera_and_masks_agree(views: list) -> None:
    rays = pixel_rays(*SIZE).reshape(*SIZE, 3)
    for view in views:
        measured = view.depth[..., 0] > 0
        assert (view.normal**2).sum(-1)[measured] == pytest.approx(1, abs=1e-5)
        assert not view.normal[~measured].any()
        assert ((view.normal * rays).sum(-1)[measured] < 0).all()
        assert 0.5 < measured.mean() <= 1 and view.depth.max() <= FAR
        assert view.image.min() >= 0 and view.image.max() <= 1 and view.image.std() > 0.05


def test_a_seed_is_a_room(views: list) -> None:
    again = render(0, *SIZE)
    for name in ("image", "label", "depth", "normal"):
        assert np.array_equal(getattr(again, name), getattr(views[0], name))
    assert not np.array_equal(views[0].depth, views[1].depth)


def test_rooms_hold_many_classes() -> None:
    found = set()
    for seed in range(30):
        found |= set(np.unique(render(seed, 12, 16).label).astype(int))
    assert found <= set(COLOURS) and len(found) >= 12
    assert len(NYU_CLASSES) + 1 == len(COLOURS)


def test_written_once(tmp_path: Path) -> None:
    folder = write_rooms(tmp_path / "rooms", 3, 2, *SIZE)
    file = folder / "train" / "image" / "0.npy"
    before = file.stat().st_mtime_ns
    write_rooms(folder, 3, 2, *SIZE)
    assert file.stat().st_mtime_ns == before
    assert len(DenseFolder(folder, "train")) == 3 and DenseFolder(folder, "val").file_size() == SIZE
    train, val = (np.load(folder / part / "image" / "0.npy") for part in ("train", "val"))
    assert not np.array_equal(train, val)
    with pytest.raises(ValueError, match="holds other rooms"):
        write_rooms(folder, 4, 2, *SIZE)
    with pytest.raises(ValueError, match="at least one of each"):
        write_rooms(tmp_path / "none", 0, 2, *SIZE)
