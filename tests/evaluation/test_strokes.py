import math
import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import numpy as np
import pytest
import torch

from pictura.evaluation import strokes
from pictura.evaluation.strokes import Strokes, distances, hexadecimal

SVG = "{http://www.w3.org/2000/svg}"


def along(curve: list[float], pieces: int) -> list[tuple[float, float]]:
    """x0 y0 x1 y1 x2 y2 of a quadratic Bézier curve -> places on it, by its definition."""
    x0, y0, x1, y1, x2, y2 = curve
    ts = [k / pieces for k in range(pieces + 1)]
    return [
        ((1 - t) ** 2 * x0 + 2 * t * (1 - t) * x1 + t**2 * x2, (1 - t) ** 2 * y0 + 2 * t * (1 - t) * y1 + t**2 * y2)
        for t in ts
    ]


def to_piece(x: float, y: float, start: tuple[float, float], end: tuple[float, float]) -> float:
    """How far a place is from a straight piece."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    t = ((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy or 1.0)
    t = min(max(t, 0.0), 1.0)
    return math.hypot(start[0] + t * dx - x, start[1] + t * dy - y)


def rgb(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def test_pixels_and_svg_are_one_drawing() -> None:
    """The SVG's numbers, painted by a loop over pixels and strokes, give the pixels."""
    drawn, size = Strokes.random(9, seed=1), 24
    root = ET.fromstring(drawn.svg("a <red> & \x00 star"))
    rect, paths, title = root.find(f"{SVG}rect"), root.findall(f".//{SVG}path"), root.find(f"{SVG}title")
    assert rect is not None and title is not None
    assert title.text == "a <red> &  star" and len(paths) == 9
    naive = np.empty((size, size, 3))
    curves = [along([float(n) / 1000 for n in re.findall(r"-?[\d.]+", path.attrib["d"])], 64) for path in paths]
    for row in range(size):
        for column in range(size):
            x, y = (column + 0.5) / size, (row + 0.5) / size
            pixel = rgb(rect.attrib["fill"])
            for path, places in zip(paths, curves, strict=True):
                far = min(to_piece(x, y, start, end) for start, end in pairwise(places))
                cover = min(max((float(path.attrib["stroke-width"]) / 2000 - far) * size + 0.5, 0.0), 1.0)
                alpha = cover * float(path.attrib["stroke-opacity"])
                pixel = [
                    (1 - alpha) * c + alpha * new for c, new in zip(pixel, rgb(path.attrib["stroke"]), strict=True)
                ]
            naive[row, column] = pixel
    painted = drawn.paint(size).movedim(0, 2).numpy()
    np.testing.assert_allclose(painted, naive, atol=4e-3)  # colours of an SVG are in 255 steps
    np.testing.assert_array_equal(drawn.image(size), (painted * 255).round().astype(np.uint8))
    assert np.ptp(painted) > 0.5


SHAPES = {
    "any": lambda: torch.rand(40, 3, 2),
    "a dot": lambda: torch.rand(40, 1, 2).expand(40, 3, 2),
    "straight": lambda: torch.rand(40, 1, 2) + torch.tensor([0.0, 0.5, 1.0])[:, None] * torch.rand(40, 1, 2),
    "a hairpin": lambda: (lambda p: torch.stack([p[:, 0], p[:, 1], p[:, 0] + 0.01], 1))(torch.rand(40, 2, 2)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_distances_are_those_of_a_curve_in_many_pieces(shape: str) -> None:
    torch.manual_seed(0)
    points, at = SHAPES[shape](), torch.rand(40, 2) * 1.4 - 0.2
    t = torch.linspace(0, 1, 20001)[:, None, None]
    curve = (1 - t) ** 2 * points[:, 0] + 2 * t * (1 - t) * points[:, 1] + t**2 * points[:, 2]
    naive = (curve - at).norm(dim=-1).amin(0)
    xs, ys = ([points[:, end, axis] for end in range(3)] for axis in (0, 1))
    torch.testing.assert_close(distances(xs, ys, at[:, 0], at[:, 1]), naive, atol=2e-4, rtol=0)


def test_gradients_are_those_of_finite_differences() -> None:
    """In float64, of all that a stroke has; the search for the nearest point has no gradient, and needs none."""
    torch.manual_seed(0)
    given = [v.double().requires_grad_() for v in Strokes.random(3, seed=4).tensors().values()]
    names = list(Strokes.random(1, seed=0).tensors())
    weight = torch.rand(3, 10, 10, dtype=torch.float64)
    places = (torch.arange(10, dtype=torch.float64) + 0.5) / 10

    def painted(*values: torch.Tensor) -> torch.Tensor:
        return (Strokes(**dict(zip(names, values, strict=True))).band(places, places) * weight).sum()

    assert torch.autograd.gradcheck(painted, given, eps=1e-7, atol=1e-4)


def test_bands_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for at_once in (2**20, 5 * 20 * 7):
        monkeypatch.setattr(strokes, "AT_ONCE", at_once)
        drawn = Strokes.random(7, seed=2)
        tensors = drawn.tensors()
        for value in tensors.values():
            value.requires_grad_()
        picture = drawn.paint(20)
        picture.square().sum().backward()
        found.append((picture.detach(), {name: value.grad for name, value in tensors.items()}))
    torch.testing.assert_close(found[0], found[1])


def test_the_last_stroke_is_on_top() -> None:
    one = {"points": torch.full((2, 3, 2), 0.5), "widths": torch.full((2,), 0.25), "ground": torch.ones(3)}
    drawn = Strokes(**one, colours=torch.tensor([[1.0, 0, 0], [0, 0, 1]]), opacities=torch.full((2,), 0.99))
    picture = drawn.image(33)
    assert picture[16, 16].tolist() == [3, 0, 252]
    assert picture[0, 0].tolist() == [255] * 3


def test_what_has_left_its_range_comes_back() -> None:
    drawn = Strokes(**{name: value * 100 - 8 for name, value in Strokes.random(20, 0).tensors().items()})
    drawn.clamp_()
    assert hexadecimal(drawn.ground) == "#ffffff"
    assert drawn.points.min() == pytest.approx(-0.1) and drawn.points.max() == pytest.approx(1.1)
    assert drawn.widths.min() == pytest.approx(0.01) and drawn.widths.max() <= 0.25
    assert drawn.opacities.max() <= 0.99 and drawn.colours.min() == 0


@pytest.mark.parametrize("size", [0, -1, 10_000])
def test_a_side_that_no_picture_has(size: int) -> None:
    with pytest.raises(ValueError, match=f"size: {size} must be from 1 to 8192 pixels"):
        Strokes.random(1, 0).image(size)
