"""Furnished rooms, seeded, rendered by casting one ray a pixel: exact label, depth and normal for each image.

A room is a closed box with furniture made of smaller boxes, turned about the vertical. Classes are the 13 of
NYUv2; some clutter carries no label (-1). As with a depth camera there is no measurement beyond 8 m and at
grazing angles: depth 0 and normal (0, 0, 0) there.

World: metres, z up. Camera: x right, y down, z forward; depth is the distance along z, normals are in camera
axes and face the camera. Written in MTAN's layout, see folder.py.

Legend: P pixels, 3 space.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.dense.furniture import Box, furnish
from data.files import only_run_in, read_json
from data.run_record import differing_keys, read_identity, write_record

log = logging.getLogger(__name__)

FAR = 8.0  # metres
GRAZING = 0.08  # cosine below which a depth camera sees nothing
FIELD_OF_VIEW = np.radians(68.0)  # horizontal
VERSION = 1  # of what a seed means
RECORD = "rooms.json"
PATIENCE = 3600.0  # seconds to wait for another command that makes the same rooms

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """Where the picture is taken from."""

    place: Array  # (3,)
    axes: Array  # rows: right, down, forward (3, 3)


@dataclass(frozen=True)
class View:
    """One rendered picture."""

    image: NDArray[np.float32]  # (H, W, 3), 0 to 1
    label: NDArray[np.float32]  # (H, W)
    depth: NDArray[np.float32]  # (H, W, 1)
    normal: NDArray[np.float32]  # (H, W, 3)


def render(seed: int, height: int, width: int) -> View:
    """The room and the picture of it that belong to a seed."""
    rng = np.random.default_rng([VERSION, seed])
    room, boxes = furnish(rng)
    camera = place_camera(rng, room, boxes)
    rays = pixel_rays(height, width) @ camera.axes  # (P, 3), z component along the camera 1
    distance, normal, label, colour = cast(camera.place, rays, room, boxes)
    points = camera.place + distance[:, None] * rays
    image = shade(rng, colour, normal, points, room)
    facing = -(normal * rays).sum(1) / np.linalg.norm(rays, axis=1)
    seen = (distance <= FAR) & (facing >= GRAZING)
    shape = (height, width)
    return View(
        image.reshape(*shape, 3).astype(np.float32),
        label.reshape(shape).astype(np.float32),
        np.where(seen, distance, 0).reshape(*shape, 1).astype(np.float32),
        (np.where(seen[:, None], normal, 0) @ camera.axes.T).reshape(*shape, 3).astype(np.float32),
    )


def pixel_rays(height: int, width: int) -> Array:
    """Rays through the pixels' centres in camera axes, z = 1. (P, 3)"""
    focal = width / (2 * np.tan(FIELD_OF_VIEW / 2))
    y, x = np.mgrid[:height, :width]
    rays = np.stack([(x + 0.5 - width / 2) / focal, (y + 0.5 - height / 2) / focal, np.ones(x.shape)], -1)
    return rays.reshape(-1, 3)


def place_camera(rng: np.random.Generator, room: Box, boxes: Sequence[Box]) -> Camera:
    """A standing person's camera near one side, looking across the room; in no piece of furniture."""
    half = room.half
    while True:
        angle = rng.uniform(0, 2 * np.pi)
        x, y = 0.8 * half[0] * np.cos(angle), 0.8 * half[1] * np.sin(angle)
        place = np.array([x, y, rng.uniform(1.3, 1.8)])
        local = [np.abs(box.to_local(place[None])[0]) for box in boxes]
        if all((near > box.half + 0.25).any() for near, box in zip(local, boxes, strict=True)):
            break
    target = np.array([*rng.uniform(-0.3, 0.3, 2) * half[:2], rng.uniform(0.7, 1.4)])
    forward = (target - place) / np.linalg.norm(target - place)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    return Camera(place, np.stack([right, np.cross(forward, right), forward]))


def cast(place: Array, rays: Array, room: Box, boxes: Sequence[Box]) -> tuple[Array, Array, Array, Array]:
    """What each ray meets first: distance in units of the ray, normal, label, colour."""
    distance, normal = leave(place, rays, room)
    side = np.select([normal[:, 2] > 0.5, normal[:, 2] < -0.5], [4, 2], 11)  # floor, ceiling, wall
    label = side.astype(np.float64)
    colour = np.stack([room.colours[int(s)] for s in (2, 4, 11)])[np.searchsorted([2, 4, 11], side)]
    for box in boxes:
        hit, axis, towards = enter(place, rays, box)
        nearer = np.flatnonzero(hit < distance)
        distance[nearer] = hit[nearer]
        normal[nearer] = face(box, axis[nearer], towards[nearer])
        label[nearer] = box.label
        colour[nearer] = box.colours[box.label]
    return distance, normal, label, colour


def slabs(place: Array, rays: Array, box: Box) -> tuple[Array, Array, Array]:
    """Distances (P, 3) to where a ray enters and leaves the pairs of planes, and its local direction."""
    start = box.to_local(place[None])[0]
    local = box.turn(rays)
    safe = np.where(np.abs(local) < 1e-12, 1e-12, local)
    first, second = (-box.half - start) / safe, (box.half - start) / safe
    return np.minimum(first, second), np.maximum(first, second), local


def enter(place: Array, rays: Array, box: Box) -> tuple[Array, NDArray[np.int64], Array]:
    """Distance to a box from outside (infinite where it is missed), the axis across the side that is met,
    and the local direction back to the camera.
    """
    near, far, local = slabs(place, rays, box)
    distance = near.max(1)
    missed = (distance > far.min(1)) | (distance <= 0)
    return np.where(missed, np.inf, distance), near.argmax(1), -local


def leave(place: Array, rays: Array, box: Box) -> tuple[Array, Array]:
    """Distance to the walls from inside, and their inward normal."""
    _, far, local = slabs(place, rays, box)
    return far.min(1), face(box, far.argmin(1), -local)


def face(box: Box, axis: NDArray[np.int64], towards: Array) -> Array:
    """World normal of the plane across `axis` on the side that `towards` points to. (P, 3)"""
    rows = np.arange(len(axis))
    local = np.zeros((len(axis), 3))
    local[rows, axis] = np.sign(towards[rows, axis])
    return box.turn_back(local)


def shade(rng: np.random.Generator, colour: Array, normal: Array, points: Array, room: Box) -> Array:
    """A lamp below the ceiling, ambient light, a fine pattern fixed in space, noise of the camera."""
    lamp = np.array([*rng.uniform(-0.5, 0.5, 2) * room.half[:2], 2 * room.half[2] - 0.3])
    way = lamp - points
    length = np.linalg.norm(way, axis=1)
    lambert = np.clip((normal * way).sum(1) / length, 0, 1)
    light = 0.35 + 0.9 * lambert / (1 + 0.12 * length**2)
    waves = rng.uniform(4, 14, (3, 3))
    pattern = np.sin(points @ waves.T + rng.uniform(0, 6, 3)).prod(1)
    image = colour * (light * (1 + 0.12 * pattern))[:, None] * rng.uniform(0.85, 1.1, 3)
    return np.clip(image + rng.normal(0, 0.015, image.shape), 0, 1)


def write_rooms(folder: Path, train: int, val: int, height: int, width: int, seed: int = 0) -> Path:
    """Write rooms in MTAN's layout; a folder that holds the same ones already is left as it is, and an
    interrupted try of the same ones is made anew. Of commands that ask at the same time one makes them.

    Raises:
        ValueError: a number below 1, an image too small for the encoders, or a folder that holds other data.
    """
    if min(train, val) < 1 or min(height, width) < 16:
        raise ValueError(
            f"{train} training and {val} validation rooms of {height} x {width} pixels; expected at least "
            "one of each and 16 x 16"
        )
    identity = {"version": VERSION, "train": train, "val": val, "size": [height, width], "seed": seed}
    if are_there(folder, identity):
        return folder
    with only_run_in(folder, PATIENCE):
        if not are_there(folder, identity):  # another command may have made them in the meantime
            make(folder, identity)
    return folder


def make(folder: Path, identity: dict[str, Any]) -> None:
    """Render the rooms of an identity, whatever an interrupted try has left of them."""
    log.info("making %d rooms in %s (once)", identity["train"] + identity["val"], folder)
    write_record(folder / RECORD, identity, finished=False)  # first: from here on the folder is ours
    for part, first in (("train", 0), ("val", 10_000_000)):
        for number in range(identity[part]):
            view = render(first + identity["seed"] * 100_000 + number, *identity["size"])
            for name in ("image", "label", "depth", "normal"):
                place = folder / part / name
                place.mkdir(parents=True, exist_ok=True)
                np.save(place / f"{number}.npy", getattr(view, name))
    write_record(folder / RECORD, identity, finished=True)


def are_there(folder: Path, identity: dict[str, Any]) -> bool:
    """Whether a folder holds these rooms to the end. Raises ValueError where it holds anything else."""
    taken = [part for part in ("train", "val") if (folder / part).exists()]  # before the record is looked for
    found = read_identity(folder / RECORD)
    if found is None and taken:
        raise ValueError(
            f"{folder} holds {' and '.join(taken)} without {RECORD}: data of another kind, or rooms that an "
            "earlier version did not finish; choose another folder, or delete it"
        )
    if found is not None and (differences := differing_keys(found, identity)):
        raise ValueError(
            f"{folder} holds other rooms ({'; '.join(differences)}); choose another folder, or delete it"
        )
    # An earlier version wrote its record last, without a mark.
    return found is not None and bool(read_json(folder / RECORD).get("finished", True))
