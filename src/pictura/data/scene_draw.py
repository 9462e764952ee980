"""Draws scenes: anti-aliased shapes from signed distances, a few numpy operations per thing, in its bounding box only.

A shape's distance to its outline is tabulated once, at first use, over [-1.3, 1.3]² in its own frame (u right, v down,
radius 1); drawing turns pixels into that frame and looks the distance up. So any shape costs the same, and adding one
is one line.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pictura.data.scene_world import Scene, Thing

Floats = NDArray[np.floating[Any]]
Distance = Callable[[Floats, Floats], Floats]  # u, v → signed distance, negative inside
_REACH, _CELLS = 1.3, 208
_SCALE = _CELLS / (2 * _REACH)  # 80 cells per radius: a fifth of a pixel even where the radius is 16 px


def _polygon(*points: tuple[float, float]) -> Distance:
    """Signed distance to a closed polygon: nearest edge, negative inside (even-odd crossings)."""

    def distance(u: Floats, v: Floats) -> Floats:
        nearest = np.full_like(u, np.inf)
        inside = np.zeros(u.shape, bool)
        for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
            ex, ey, pu, pv = bx - ax, by - ay, u - ax, v - ay
            along = np.clip((pu * ex + pv * ey) / (ex * ex + ey * ey), 0, 1)
            nearest = np.minimum(nearest, np.hypot(pu - along * ex, pv - along * ey))
            if ay != by:
                inside ^= ((ay > v) != (by > v)) & (u < ex * (v - ay) / (by - ay) + ax)
        return np.where(inside, -nearest, nearest)

    return distance


def _disc(x: float, y: float, radius: float) -> Distance:
    return lambda u, v: np.hypot(u - x, v - y) - radius


def _round(corners: int, *radii: float) -> list[tuple[float, float]]:
    """Points around the centre from the top on, at each of `radii` in turn."""
    turns = [(2 * math.pi * i / corners, radii[i % len(radii)]) for i in range(corners)]
    return [(radius * math.sin(angle), -radius * math.cos(angle)) for angle, radius in turns]


def _heart() -> list[tuple[float, float]]:
    t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return list(zip((np.sin(t) ** 3).tolist(), (-(y + 2.5) / 15.5).tolist(), strict=True))


_DISTANCE: dict[str, Distance] = {
    "circle": _disc(0, 0, 0.92),
    "square": _polygon((-0.78, -0.78), (0.78, -0.78), (0.78, 0.78), (-0.78, 0.78)),
    "triangle": _polygon((0, -0.98), (0.98, 0.76), (-0.98, 0.76)),
    "star": _polygon(*_round(10, 1.08, 0.46)),
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.72) - 0.23,
    "cross": _polygon(
        (-0.3, -0.95), (0.3, -0.95), (0.3, -0.3), (0.95, -0.3), (0.95, 0.3), (0.3, 0.3),
        (0.3, 0.95), (-0.3, 0.95), (-0.3, 0.3), (-0.95, 0.3), (-0.95, -0.3), (-0.3, -0.3),
    ),
    "heart": _polygon(*_heart()),
    "diamond": _polygon((0, -1.05), (0.64, 0), (0, 1.05), (-0.64, 0)),
    "crescent": lambda u, v: np.maximum(_disc(0, 0, 0.98)(u, v), -_disc(0.46, -0.1, 0.76)(u, v)),
    "arrow": _polygon((-1, -0.3), (0.1, -0.3), (0.1, -0.82), (1.05, 0), (0.1, 0.82), (0.1, 0.3), (-1, 0.3)),
    "hourglass": _polygon((-0.8, -0.95), (0.8, -0.95), (0.14, 0), (0.8, 0.95), (-0.8, 0.95), (-0.14, 0)),
    "bolt": _polygon((0.3, -1.05), (-0.68, 0.2), (-0.1, 0.2), (-0.3, 1.05), (0.68, -0.22), (0.1, -0.22)),
    "hexagon": _polygon(*_round(6, 0.98)),
    "drop": lambda u, v: np.minimum(
        _disc(0, 0.34, 0.62)(u, v), _polygon((0, -1.08), (0.55, 0.06), (-0.55, 0.06))(u, v)
    ),
    "house": _polygon((0, -1), (0.9, -0.15), (0.66, -0.15), (0.66, 0.85), (-0.66, 0.85), (-0.66, -0.15), (-0.9, -0.15)),
    "stroke": _polygon((-1, -0.12), (1, -0.12), (1, 0.12), (-1, 0.12)),
    "crumb": lambda u, v: np.minimum(_disc(-0.3, -0.1, 0.3)(u, v), _disc(0.25, 0.1, 0.4)(u, v)),
    "hook": _polygon((-0.9, -0.5), (0.7, -0.5), (0.7, 0.6), (0.45, 0.6), (0.45, -0.25), (-0.9, -0.25)),
}  # fmt: skip


@cache
def _table(shape: str) -> Floats:
    axis = ((np.arange(_CELLS) + 0.5) / _CELLS * 2 - 1) * _REACH
    u, v = np.meshgrid(axis, axis)
    return _DISTANCE[shape](u, v).astype(np.float32)


@cache
def _pixels(size: int) -> Floats:
    """Centres of pixels along one side, as shares of it."""
    return ((np.arange(size) + 0.5) / size).astype(np.float32)


class _Stamp:
    """A thing in the pixels of its bounding box: `where` (rows, columns), and [y x] each of its frame `u`, `v`,
    its `distance` (px, negative inside) and its `cover` (0 … 1); `radius` in px."""

    __slots__ = ("cover", "distance", "radius", "u", "v", "where")

    def __init__(self, thing: Thing, size: int) -> None:
        reach, axis = 1.12 * thing.radius + 1 / size, _pixels(size)
        rows, columns = (
            slice(max(int((at - reach) * size), 0), int((at + reach) * size) + 1) for at in (thing.y, thing.x)
        )
        dx, dy = axis[columns] - thing.x, axis[rows, None] - thing.y
        cos, sin = math.cos(thing.angle) / thing.radius, math.sin(thing.angle) / thing.radius
        self.where = (rows, columns)
        self.u, self.v = dx * cos + dy * sin, dy * cos - dx * sin
        cell = ((self.v + _REACH) * _SCALE).astype(np.intp)
        cell *= _CELLS
        cell += ((self.u + _REACH) * _SCALE).astype(np.intp)
        self.distance = _table(thing.shape).take(cell, mode="clip")
        self.radius = thing.radius * size
        self.distance *= self.radius
        self.cover = (0.5 - self.distance).clip(0, 1)


def draw(scene: Scene, image_size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """`scene` → uint8 RGB [y x c]; `rng` serves the background and the grain, which carry no meaning."""
    canvas = _background(scene.background, image_size, rng)  # [c y x]: numpy is slow over a last axis of three
    for thing in (*scene.clutter, *scene.things):
        stamp = _Stamp(thing, image_size)
        area = canvas[:, *stamp.where]
        area += (_paint(thing, stamp, scene.style, rng) - area) * stamp.cover
    canvas *= 255
    canvas.clip(0, 255, out=canvas)
    picture = np.empty((image_size, image_size, 3), np.uint8)
    for channel in range(3):
        picture[..., channel] = canvas[channel]
    return picture


def _background(kind: str, size: int, rng: np.random.Generator) -> Floats:
    """Float [c y x] in 0 … 1: pale and muted, lighter than gray things and darker than white ones."""
    canvas = np.empty((3, size, size), np.float32)
    canvas[:] = (0.68 + 0.08 * rng.random() + 0.09 * rng.random(3))[:, None, None]
    if kind == "speckled":
        canvas += 0.12 * rng.random((size, size), np.float32) - 0.06
    elif kind != "plain":
        angle, axis = 2 * math.pi * rng.random(), _pixels(size) - 0.5
        slope = math.cos(angle) * axis + math.sin(angle) * axis[:, None]
        canvas += 0.14 * slope if kind == "shaded" else 0.03 * np.sin((20 + 10 * rng.random()) * slope)
    return canvas


def _paint(thing: Thing, stamp: _Stamp, style: str, rng: np.random.Generator) -> Floats:
    """A thing's colours, [c y x] or [c 1 1]: its own, an accent where its texture says so, then the style."""
    paint: Floats
    paint = colour = np.array(thing.rgb, np.float32)[:, None, None]
    if thing.texture != "plain":
        red, green, blue = thing.rgb
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.55
        paint = colour + 0.5 * ((1.0 if dark else 0.0) - colour) * _accent(thing, stamp)
    if style == "shaded":
        paint = paint * (1 - 0.16 * (stamp.u + stamp.v))
    elif style == "noisy":
        paint = paint + (0.24 * rng.random(stamp.cover.shape, np.float32) - 0.12)
    elif style == "outlined":
        paint = paint * (1 - 0.65 * (stamp.distance + 0.09 * stamp.radius).clip(0, 1))
    elif style == "sketched":  # only the contour in full colour
        stamp.cover *= (stamp.distance + 0.2 * stamp.radius).clip(0.35, 1)
    return paint


def _accent(thing: Thing, stamp: _Stamp) -> Floats:
    """Share of accent per pixel [y x], under 45 % in all, so that the named colour stays the main one."""
    u, v = stamp.u, stamp.v
    if thing.texture == "striped":
        wave = np.sin(9.5 * v) - 0.35
    elif thing.texture == "checked":
        wave = 5 * np.sin(5.5 * u) * np.sin(5.5 * v) - 0.4
    else:
        wave = np.cos(9 * u) + np.cos(9 * v) - 0.8
    rim = (-0.5 - stamp.distance).clip(0, 1)  # stays plain, since it tells the shape
    accent: Floats = (4 * wave).clip(0, 1) * rim
    return accent


def masks(scene: Scene, image_size: int) -> NDArray[np.bool_]:
    """`scene` → [k y x], the visible pixels of each thing (covered at least half by it and not by a later one)."""
    seen = np.zeros((len(scene.things), image_size, image_size), bool)
    for number, thing in enumerate(scene.things):
        stamp = _Stamp(thing, image_size)
        cover = stamp.cover >= 0.5
        for below in seen[:number]:
            below[stamp.where] &= ~cover
        seen[number][stamp.where] = cover
    return seen


def boxes(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Masks [k y x] → tight boxes [k 4] as x0 y0 x1 y1 in px, x1 and y1 exclusive; zeros where nothing is visible."""
    found = np.zeros((len(masks), 4), np.float32)
    for number, mask in enumerate(masks):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows):
            found[number] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return found
