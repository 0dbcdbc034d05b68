from __future__ import annotations

from pathlib import Path

import pytest

from data.media_paths import MediaPaths

PLACEHOLDER = "/path/to/dataset_QA/frames/c0/f0.jpg"


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_relative_paths_start_at_the_folder_or_the_media_root(tmp_path: Path) -> None:
    assert MediaPaths(tmp_path).resolve("m/f.jpg") == tmp_path / "m/f.jpg"
    assert MediaPaths(tmp_path, tmp_path / "root").resolve("m/f.jpg") == tmp_path / "root/m/f.jpg"


def test_absolute_paths_that_exist_are_used(tmp_path: Path) -> None:
    file = touch(tmp_path / "f.jpg")
    assert MediaPaths(tmp_path / "x").resolve(str(file)) == file
    assert MediaPaths(tmp_path / "x", tmp_path / "root").resolve(str(file)) == file


def test_placeholders_are_found_below_the_media_root(tmp_path: Path) -> None:
    file = touch(tmp_path / "frames/c0/f0.jpg")
    paths = MediaPaths(Path("/elsewhere"), tmp_path)
    assert paths.resolve(PLACEHOLDER) == file
    absent = PLACEHOLDER.replace("c0", "c1")  # the dropped part is known by now, so the absent file is named
    assert paths.resolve(absent) == tmp_path / "frames/c1/f0.jpg"


def test_a_placeholder_that_fits_nowhere_stays_as_written(tmp_path: Path) -> None:
    assert MediaPaths(Path("/elsewhere"), tmp_path).resolve(PLACEHOLDER) == Path(PLACEHOLDER)
    assert MediaPaths(Path("/elsewhere")).resolve(PLACEHOLDER) == Path(PLACEHOLDER)


def test_a_placeholder_that_fits_twice_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path / "frames/c0/f0.jpg")
    touch(tmp_path / "c0/f0.jpg")
    with pytest.raises(
        ValueError, match=r"f0.jpg could be .*frames/c0/f0.jpg and .*/c0/f0.jpg; set media_prefix"
    ):
        MediaPaths(Path("/elsewhere"), tmp_path).resolve(PLACEHOLDER)


def test_a_prefix_settles_it(tmp_path: Path) -> None:
    paths = MediaPaths(Path("/elsewhere"), tmp_path, "/path/to/dataset_QA/")
    assert paths.resolve(PLACEHOLDER) == tmp_path / "frames/c0/f0.jpg"
    assert paths.resolve("/path/to/other/f.jpg") == Path("/path/to/other/f.jpg")


def test_a_prefix_is_a_whole_part_of_the_path(tmp_path: Path) -> None:
    paths = MediaPaths(Path("/elsewhere"), tmp_path, "/path/to/data")
    assert paths.resolve(PLACEHOLDER) == Path(PLACEHOLDER)


def test_a_prefix_needs_a_media_root(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="media_prefix '/path' is given without media_root"):
        MediaPaths(tmp_path, None, "/path")
