import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from pictura.evaluation.rise import Rise


@pytest.mark.parametrize(
    "points",
    [
        [(1, 0.2, 0.1), (2, 0.4, 0.05), (16, 0.9, 0.3)],
        [(1, 0.0, 0.0)],
        [(3, 1.0, 0.0), (5, 1.0, 0.0)],
        [(1, 0.1, 5.0), (1000, 0.1001, 0.0)],
    ],
)
def test_the_chart_stays_in_its_frame(points: list[tuple[int, float, float]]) -> None:
    drawing = Rise("few <shots>", {"ridge": points}).html()
    assert ET.fromstring(drawing).tag == "div"
    for pair in re.findall(r' points="([^"]*)"', drawing):
        for x, y in (point.split(",") for point in pair.split()):
            assert 46 <= float(x) <= 412
            assert 8 <= float(y) <= 168
    assert re.findall(r'text-anchor="middle">(\d+)<', drawing) == [str(n) for n, _, _ in points]


def test_every_doubling_is_as_wide_in_the_chart() -> None:
    drawing = Rise("t", {"ridge": [(n, 0.1 * i, 0.01) for i, n in enumerate((1, 2, 4, 8, 16), 1)]}).html()
    places = [float(x) for x in re.findall(r'cx="([\d.]+)"', drawing)]
    widths = [b - a for a, b in pairwise(places)]
    assert widths == pytest.approx([widths[0]] * 4, abs=0.11)
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', drawing)]
    assert heights == sorted(heights, reverse=True)


def test_lines_of_different_shots_share_one_axis_and_a_level_crosses_it() -> None:
    lines = {"ridge": [(1, 0.2, 0.1), (4, 0.6, 0.0)], "a <b>": [(2, 0.5, 0.0), (16, 0.9, 0.05)]}
    drawing = Rise("t", lines, ("zero & one", 0.95)).html()
    ET.fromstring(drawing)
    assert re.findall(r'text-anchor="middle">(\d+)<', drawing) == ["1", "2", "4", "16"]
    assert re.findall(r'<g class="(c\d)">', drawing) == ["c5", "c0", "c1"]
    across = re.search(r'stroke-dasharray="5 4" points="46,([\d.]+) 412,([\d.]+)"', drawing)
    assert across is not None and across[1] == across[2]
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', drawing)]
    assert float(across[1]) < min(heights), "the highest share of all"
    legend = re.findall(r'<span class="(c\d)">([^<]*)<b>([^<]*)</b>', drawing)
    assert legend == [
        ("c0", "ridge ", "60.0 %"),
        ("c1", "a &lt;b&gt; ", "90.0 %"),
        ("c5", "zero &amp; one ", "95.0 %"),
    ]


def test_a_line_alone_needs_no_name() -> None:
    drawing = Rise("t", {"ridge": [(1, 0.25, 0.0), (2, 0.5, 0.0)]}).html()
    assert re.findall(r'<span class="(c\d)">([^<]*)<b>([^<]*)</b>', drawing) == [("c0", " ", "50.0 %")]
    assert "dasharray" not in drawing
