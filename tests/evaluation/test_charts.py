import math
import re
import xml.etree.ElementTree as ET

from hypothesis import given, settings
from hypothesis import strategies as st

from pictura.evaluation.charts import POINTS, chart, condense, count, heat_map, runs, ticks, widened

numbers = st.floats(allow_nan=True, allow_infinity=True)


@settings(deadline=None)
@given(st.lists(numbers, min_size=1, max_size=300))
def test_any_numbers_make_a_drawing_within_its_frame(values: list[float]) -> None:
    drawing = chart("loss", {"loss": ([(float(i), v) for i, v in enumerate(values)], "x")})
    assert ET.fromstring(drawing).tag == "figure"
    for pair in re.findall(r' points="([^"]*)"', drawing):
        for x, y in (point.split(",") for point in pair.split()):
            assert 0 <= float(x) <= 420
            assert 0 <= float(y) <= 190


@settings(deadline=None)
@given(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12))
def test_ticks_enclose_the_range_in_a_few_even_steps(a: float, b: float) -> None:
    low, high = widened(min(a, b), max(a, b))
    places = [place for place, _ in ticks(low, high)]
    slack = 1e-6 * (high - low)
    assert 3 <= len(places) <= 7
    assert places[0] <= low + slack
    assert places[-1] >= high - slack


def test_ticks_say_numbers_that_differ() -> None:
    assert [text for _, text in ticks(0, 1)] == ["0.0", "0.5", "1.0"]
    for low, high in ((640.01, 640.05), (0.0, 5e-4), (1e9, 3e9), (-3.0, 2.0)):
        texts = [text for _, text in ticks(low, high)]
        assert len(set(texts)) == len(texts), texts


def test_a_long_series_is_averaged_with_its_range() -> None:
    points = [(float(i), float(i % 10)) for i in range(POINTS * 10)]
    stretches = condense(points)
    assert len(stretches) == POINTS
    assert all(stretch is not None and stretch[1:] == (4.5, 0.0, 9.0) for stretch in stretches)
    assert stretches[-1] is not None and stretches[-1][0] == points[-1][0]


def test_what_is_not_finite_is_a_gap() -> None:
    pieces = runs(condense([(0, 1.0), (1, 2.0), (2, math.nan), (3, math.inf), (4, 3.0)]))
    assert [[s[0] for s in piece] for piece in pieces] == [[0, 1], [4]]
    assert "no finite value" in chart("loss", {"loss": ([(0, math.nan)], "not finite")})


def test_a_number_of_steps_is_short() -> None:
    assert [count(n) for n in (0, 50, 1500, 2e6)] == ["0", "50", "1.5k", "2M"]


def test_every_count_is_a_square_in_its_place() -> None:
    root = ET.fromstring(heat_map([[3, 1], [0, 4]], [4, 5], ["cat", "dog"]))
    titles = [element.text for element in root.iter() if element.tag == "title"]
    assert titles == ["cat taken for cat: 3 of 4", "cat taken for dog: 1 of 4", "dog taken for dog: 4 of 5"]
    classes = [element.get("class") for element in root.iter("rect")]
    assert classes == ["frame", "hit", "miss", "hit"]
    assert [element.text for element in root.iter("text")] == ["3", "1", "4", "cat", "cat", "dog", "dog"]
