"""What stands in a made room: boxes with a class and a colour, put together to furniture.

World: metres, z up, the room's floor at z = 0 and its middle at x = y = 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

BED, BOOKS, CEILING, CHAIR, FLOOR, FURNITURE, OBJECTS, PICTURE, SOFA, TABLE, TV, WALL, WINDOW = range(13)
UNLABELLED = -1
# Mean colour of each class; the room's share is drawn around it, so that colour alone does not tell.
COLOURS = {
    BED: (0.75, 0.65, 0.70),
    BOOKS: (0.60, 0.30, 0.25),
    CEILING: (0.90, 0.90, 0.88),
    CHAIR: (0.45, 0.30, 0.20),
    FLOOR: (0.55, 0.42, 0.30),
    FURNITURE: (0.55, 0.45, 0.35),
    OBJECTS: (0.50, 0.55, 0.45),
    PICTURE: (0.45, 0.50, 0.60),
    SOFA: (0.40, 0.45, 0.55),
    TABLE: (0.60, 0.45, 0.28),
    TV: (0.10, 0.10, 0.12),
    WALL: (0.78, 0.76, 0.70),
    WINDOW: (0.75, 0.85, 0.95),
    UNLABELLED: (0.50, 0.50, 0.50),
}
SPREAD = 0.12

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Box:
    """A box turned about the vertical."""

    centre: Array  # (3,)
    half: Array  # half of its sizes (3,)
    yaw: float
    label: int
    colours: dict[int, Array]  # the box's own; the room has three

    def turn(self, vectors: Array) -> Array:
        """World directions in the box's axes. (P, 3)"""
        return self._rotate(vectors, -self.yaw)

    def turn_back(self, vectors: Array) -> Array:
        """Directions in the box's axes in the world's. (P, 3)"""
        return self._rotate(vectors, self.yaw)

    def to_local(self, points: Array) -> Array:
        """World points in the box's axes, its centre at 0. (P, 3)"""
        return self.turn(points - self.centre)

    @staticmethod
    def _rotate(vectors: Array, angle: float) -> Array:
        c, s = np.cos(angle), np.sin(angle)
        x, y = vectors[..., 0], vectors[..., 1]
        return np.stack([c * x - s * y, s * x + c * y, vectors[..., 2]], -1)


Part = tuple[Sequence[float], Sequence[float] | Array, int]  # centre, sizes, label; in the piece's own axes


def bed(rng: np.random.Generator) -> Iterator[Part]:
    length, width = rng.uniform(1.8, 2.2), rng.uniform(1.0, 1.8)
    yield (0, 0, 0.25), (length, width, 0.5), BED
    yield (-length / 2, 0, 0.5), (0.08, width, 1.0), BED
    yield (-length / 2 + 0.3, 0, 0.56), (0.4, 0.6 * width, 0.12), BED


def sofa(rng: np.random.Generator) -> Iterator[Part]:
    width = rng.uniform(1.4, 2.2)
    yield (0, 0, 0.22), (0.85, width, 0.44), SOFA
    yield (-0.36, 0, 0.45), (0.2, width, 0.9), SOFA
    for side in (-1, 1):
        yield (0, side * width / 2, 0.32), (0.85, 0.18, 0.64), SOFA


def table(rng: np.random.Generator) -> Iterator[Part]:
    length, width, height = rng.uniform(0.9, 1.7), rng.uniform(0.6, 1.0), rng.uniform(0.45, 0.78)
    yield (0, 0, height), (length, width, 0.05), TABLE
    for x in (-0.45, 0.45):
        for y in (-0.42, 0.42):
            yield (x * length, y * width, height / 2), (0.06, 0.06, height), TABLE
    for _ in range(rng.integers(0, 3)):
        size = rng.uniform(0.12, 0.35, 3)
        place = rng.uniform(-0.3, 0.3, 2) * (length, width)
        label = int(rng.choice([OBJECTS, BOOKS, UNLABELLED]))
        yield (*place, height + 0.025 + size[2] / 2), size, label


def chair(rng: np.random.Generator) -> Iterator[Part]:
    yield (0, 0, 0.45), (0.45, 0.45, 0.06), CHAIR
    yield (-0.2, 0, 0.75), (0.06, 0.45, 0.6), CHAIR
    for x in (-0.19, 0.19):
        for y in (-0.19, 0.19):
            yield (x, y, 0.22), (0.05, 0.05, 0.44), CHAIR


def cupboard(rng: np.random.Generator) -> Iterator[Part]:
    width, height = rng.uniform(0.6, 1.6), rng.uniform(0.7, 2.0)
    yield (0, 0, height / 2), (0.45, width, height), FURNITURE
    if height < 1.2 and rng.random() < 0.5:
        yield (0, 0, height + 0.3), (0.06, 0.8 * width, 0.55), TV


def shelf(rng: np.random.Generator) -> Iterator[Part]:
    width, boards = rng.uniform(0.7, 1.3), rng.integers(3, 6)
    yield (-0.14, 0, 0.2 * boards), (0.03, width, 0.4 * boards), FURNITURE
    for number in range(boards + 1):
        yield (0, 0, 0.4 * number + 0.02), (0.3, width, 0.04), FURNITURE
    for number in range(boards):
        share = rng.uniform(0.3, 0.9)
        yield (0, 0, 0.4 * number + 0.17), (0.22, share * width, 0.26), BOOKS


def clutter(rng: np.random.Generator) -> Iterator[Part]:
    size = rng.uniform(0.2, 0.6, 3)
    yield (0, 0, size[2] / 2), size, int(rng.choice([OBJECTS, UNLABELLED]))


def panel(label: int, low: float, rng: np.random.Generator) -> Iterator[Part]:
    """Something flat on a wall: window, picture, television."""
    width, height = rng.uniform(0.6, 1.6), rng.uniform(0.5, 1.1)
    yield (0, 0, rng.uniform(low, low + 0.3) + height / 2), (0.04, width, height), label


Piece = Callable[[np.random.Generator], Iterator[Part]]
AT_WALL: tuple[Piece, ...] = (bed, sofa, cupboard, shelf, cupboard)
FREE: tuple[Piece, ...] = (table, chair, chair, clutter)
ON_WALL: tuple[Piece, ...] = tuple(
    partial(panel, label, low) for label, low in ((WINDOW, 0.9), (PICTURE, 1.2), (TV, 1.0))
)


def furnish(rng: np.random.Generator) -> tuple[Box, list[Box]]:
    """A room and what stands in it."""
    half = np.array([rng.uniform(2.0, 3.2), rng.uniform(2.0, 3.2), rng.uniform(1.2, 1.45)])
    colours = {label: paint(rng, label) for label in (CEILING, FLOOR, WALL)}
    room = Box(np.array([0, 0, half[2]]), half, 0.0, WALL, colours)
    boxes: list[Box] = []
    for piece in rng.choice(len(AT_WALL), rng.integers(3, 7)):
        boxes += put(rng, AT_WALL[piece], *wall_place(rng, half, 0.5), 0.0)
    for piece in rng.choice(len(ON_WALL), rng.integers(3, 7)):
        boxes += put(rng, ON_WALL[piece], *wall_place(rng, half, 0.02), 0.0)
    for piece in rng.choice(len(FREE), rng.integers(1, 5)):
        place = rng.uniform(-0.55, 0.55, 2) * half[:2]
        boxes += put(rng, FREE[piece], place, rng.uniform(0, 2 * np.pi), 0.0)
    return room, boxes


def wall_place(rng: np.random.Generator, half: Array, depth: float) -> tuple[Array, float]:
    """A place at one of the four walls, and the angle that turns a piece's x axis into the room."""
    side = rng.integers(4)
    along = rng.uniform(-0.65, 0.65)
    if side % 2 == 0:
        sign = 1 if side == 0 else -1
        return np.array([-sign * (half[0] - depth), along * half[1]]), 0.0 if sign > 0 else np.pi
    sign = 1 if side == 1 else -1
    return np.array([along * half[0], -sign * (half[1] - depth)]), sign * np.pi / 2


def put(rng: np.random.Generator, piece: Piece, place: Array, yaw: float, floor: float) -> list[Box]:
    """The boxes of a piece at a place."""
    boxes: list[Box] = []
    paints: dict[int, Array] = {}
    for centre, sizes, label in piece(rng):
        paints.setdefault(label, paint(rng, label))
        moved = Box._rotate(np.asarray(centre, float), yaw) + [*place, floor]
        boxes.append(Box(moved, np.asarray(sizes, float) / 2, yaw, label, {label: paints[label]}))
    return boxes


def paint(rng: np.random.Generator, label: int) -> Array:
    """A colour of the class."""
    return np.clip(np.array(COLOURS[label]) + rng.normal(0, SPREAD, 3), 0.03, 1.0)
