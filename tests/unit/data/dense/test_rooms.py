"""Made rooms: exact geometry, the same for a seed, MTAN's layout."""

import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.dense import rooms
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
    with pytest.raises(ValueError, match=r"holds other rooms \(train: was 3, is 4\)"):
        write_rooms(folder, 4, 2, *SIZE)
    with pytest.raises(ValueError, match="at least one of each"):
        write_rooms(tmp_path / "none", 0, 2, *SIZE)


def test_other_data_stay_as_they_are(tmp_path: Path) -> None:
    mine = tmp_path / "train" / "image" / "0.npy"
    mine.parent.mkdir(parents=True)
    np.save(mine, np.ones((2, 2, 3)))
    before = mine.read_bytes()
    with pytest.raises(ValueError, match="holds train without rooms.json"):
        write_rooms(tmp_path, 3, 2, *SIZE)
    assert mine.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["train"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.npy")}


def test_only_the_same_rooms_go_on_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(seed: int, height: int, width: int) -> rooms.View:
        if seed == 2:
            raise KeyboardInterrupt
        return render(seed, height, width)

    monkeypatch.setattr(rooms, "render", stop)
    with pytest.raises(KeyboardInterrupt):
        write_rooms(tmp_path / "rooms", 4, 1, *SIZE)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"holds other rooms \(train: was 4, is 2\); .*delete it"):
        write_rooms(tmp_path / "rooms", 2, 1, *SIZE)
    write_rooms(tmp_path / "rooms", 4, 1, *SIZE)
    assert contents(tmp_path / "rooms") == contents(write_rooms(tmp_path / "again", 4, 1, *SIZE))


def test_rooms_of_an_earlier_version_are_taken(tmp_path: Path) -> None:
    """It wrote the record last, without a mark."""
    record = write_rooms(tmp_path / "rooms", 1, 1, *SIZE) / "rooms.json"
    record.write_text(json.dumps({"identity": json.loads(record.read_text())["identity"]}))
    before = record.read_bytes()
    write_rooms(tmp_path / "rooms", 1, 1, *SIZE)
    assert record.read_bytes() == before


def make_slowly(folder: Path, begun: Any) -> None:
    def slow(seed: int, height: int, width: int) -> rooms.View:
        begun.set()
        time.sleep(0.2)
        return render(seed, height, width)

    rooms.render = slow
    write_rooms(folder, 2, 1, *SIZE)


def test_of_two_commands_one_makes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    other = context.Process(target=make_slowly, args=(tmp_path / "rooms", begun))
    other.start()
    assert begun.wait(30)
    monkeypatch.setattr(rooms, "render", None)
    write_rooms(tmp_path / "rooms", 2, 1, *SIZE)
    other.join(30)
    assert other.exitcode == 0 and len(contents(tmp_path / "rooms")) == 12
