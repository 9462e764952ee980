import math
import xml.etree.ElementTree as ElementTree

import torch
from hypothesis import given
from hypothesis import strategies as st

from pictura.evaluation.earth import RADIUS, Journey, Map, great_circle_km

QUARTER = math.pi / 2 * RADIUS


def km(a: tuple[float, float], b: tuple[float, float]) -> float:
    return float(great_circle_km(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)))


def test_closed_forms() -> None:
    for a, b, expected in (
        ((10.0, 20.0), (10.0, 20.0), 0.0),
        ((0.0, 0.0), (0.0, 180.0), 2 * QUARTER),  # antipodes
        ((37.0, -122.0), (-37.0, 58.0), 2 * QUARTER),
        ((90.0, 0.0), (-90.0, 77.0), 2 * QUARTER),  # the poles, whose longitude says nothing
        ((90.0, 0.0), (90.0, 123.0), 0.0),
        ((90.0, 5.0), (0.0, -160.0), QUARTER),
        ((0.0, 180.0), (0.0, -180.0), 0.0),  # the date line has two names
        ((0.0, 179.5), (0.0, -179.5), QUARTER / 90),
        ((0.0, 0.0), (0.0, 1.0), QUARTER / 90),
        ((0.0, 0.0), (1e-5, 0.0), QUARTER / 90 * 1e-5),  # a metre
    ):
        assert math.isclose(km(a, b), expected, rel_tol=1e-9, abs_tol=1e-6), (a, b)
    assert abs(km((48.8566, 2.3522), (51.5074, -0.1278)) - 343.6) < 0.5  # Paris, London


points = st.tuples(st.floats(-90, 90), st.floats(-180, 180))


@given(points, points)
def test_against_the_angle_between_two_vectors(a: tuple[float, float], b: tuple[float, float]) -> None:
    def vector(point: tuple[float, float]) -> tuple[float, float, float]:
        lat, lon = map(math.radians, point)
        return math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)

    (x, y, z), (u, v, w) = vector(a), vector(b)
    cross = math.hypot(y * w - z * v, z * u - x * w, x * v - y * u)
    expected = RADIUS * math.atan2(cross, x * u + y * v + z * w)
    assert abs(km(a, b) - expected) < 1e-3  # a metre; antipodes have the fewest digits
    assert km(a, b) == km(b, a)


def test_it_broadcasts() -> None:
    a, b = torch.zeros(3, 1, 2), torch.tensor([[0.0, 0], [0, 90]])
    assert great_circle_km(a, b).shape == (3, 2)


def test_a_line_across_the_date_line_leaves_on_one_side_and_comes_in_on_the_other() -> None:
    plain = Journey((0, 10), (0, 20), 1112, "plain <b>")
    east, west = Journey((10, 170), (20, -170), 2400, "east"), Journey((20, -170), (10, 170), 2400, "west")
    drawing = Map("a map", [plain, east, west], note="n").html()
    groups = list(ElementTree.fromstring(drawing).iter("g"))
    lines = [[line.get("points") for line in group.iter("polyline")] for group in groups]
    assert lines[0] == ["380.0,180.0 400.0,180.0"]
    assert lines[1] == ["700.0,160.0 720.0,150.0", "0.0,150.0 20.0,140.0"]
    assert lines[2] == ["20.0,140.0 0.0,150.0", "720.0,150.0 700.0,160.0"]
    assert [group.get("class") for group in groups] == ["c4"] * 3
    assert "<b>" not in drawing


def test_of_many_lines_some_are_drawn() -> None:
    drawing = Map("a map", [Journey((0, 0), (0, 1), 111, "x")] * 1000).html()
    assert 200 <= drawing.count("<circle") <= 300
    assert Map("a map", []).html()
