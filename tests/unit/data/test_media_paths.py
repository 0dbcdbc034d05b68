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
    file = touch(tmp_path / "root" / "f.jpg")
    assert MediaPaths(tmp_path / "x").resolve(str(file)) == file
    assert MediaPaths(tmp_path / "x", tmp_path / "root").resolve(str(file)) == file


def hostile(tmp_path: Path) -> dict[str, str]:
    """What it is -> a path that leads out of tmp_path/root to a file that exists."""
    secret = touch(tmp_path / "secret.jpg")
    root = touch(tmp_path / "root" / "inside.jpg").parent
    (root / "link.jpg").symlink_to(secret)
    (root / "linked").symlink_to(tmp_path)
    (root / "fine.jpg").symlink_to(root / "inside.jpg")
    return {
        "absolute": str(secret),
        "upwards": "../secret.jpg",
        "upwards through a folder": "linked/../secret.jpg",
        "a link": "link.jpg",
        "a link to a folder": "linked/secret.jpg",
        "the folder above": "..",
        "absolute with ..": f"{root}/../secret.jpg",
    }


def test_nothing_outside_the_media_root_is_reached(tmp_path: Path) -> None:
    ways = hostile(tmp_path)
    paths = MediaPaths(tmp_path, tmp_path / "root")
    for way, text in ways.items():
        with pytest.raises(ValueError, match="outside of the media root"):
            print(way, paths.resolve(text))
    assert paths.resolve("fine.jpg") == tmp_path / "root" / "fine.jpg"
    assert paths.resolve("a/../inside.jpg") == tmp_path / "root" / "a/../inside.jpg"


def test_a_prefix_does_not_lead_out_either(tmp_path: Path) -> None:
    touch(tmp_path / "secret.jpg")
    with pytest.raises(ValueError, match="outside of the media root"):
        MediaPaths(tmp_path, tmp_path / "root", "/data").resolve("/data/../secret.jpg")


@pytest.mark.parametrize("text", ["a\0b.jpg", "\ud800.jpg", "x" * 256, "x/" * 2000])
def test_what_cannot_be_a_path_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="cannot be a path"):
        MediaPaths(tmp_path).resolve(text)


def test_placeholders_are_found_below_the_media_root(tmp_path: Path) -> None:
    file = touch(tmp_path / "frames/c0/f0.jpg")
    paths = MediaPaths(Path("/elsewhere"), tmp_path)
    assert paths.resolve(PLACEHOLDER) == file
    absent = PLACEHOLDER.replace("c0", "c1")  # the dropped part is known by now, so the absent file is named
    assert paths.resolve(absent) == tmp_path / "frames/c1/f0.jpg"


def test_a_placeholder_that_fits_nowhere_stays_as_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="outside of the media root"):
        MediaPaths(Path("/elsewhere"), tmp_path).resolve(PLACEHOLDER)
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
    with pytest.raises(ValueError, match="outside of the media root"):
        paths.resolve("/path/to/other/f.jpg")


def test_a_prefix_is_a_whole_part_of_the_path(tmp_path: Path) -> None:
    paths = MediaPaths(Path("/elsewhere"), tmp_path, "/path/to/data")
    with pytest.raises(ValueError, match="outside of the media root"):
        paths.resolve(PLACEHOLDER)


def test_a_prefix_needs_a_media_root(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="media_prefix '/path' is given without media_root"):
        MediaPaths(tmp_path, None, "/path")
