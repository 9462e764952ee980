import base64
import io
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pictura.evaluation.panels import (
    Code,
    Confusion,
    Curves,
    Gallery,
    Line,
    Numbers,
    Panel,
    Picture,
    Table,
    data_uri,
    percent,
    shown,
)

HOSTILE = "</li><script>alert('x')</script>\"' onerror=alert(1) <img src=http://evil/> &amp; \u202e\ud800\x00"


class Elements(HTMLParser):
    """What a browser would see: opened tags, attributes, and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def every_panel(text: str) -> list[Panel]:
    picture = Picture(Image.new("RGB", (8, 8)), (Line(text, text, True),), True)
    return [
        Numbers(text, {text: 0.5, f"{text}/top1": 0.25}),
        Curves(text, {text: [(1.0, 0.5)], f"zeroshot/{text}": [(1.0, 0.5)]}),
        Confusion(text, [[1, 2], [3, 4]], [text, "other"]),
        Gallery(text, [(text, [picture, Picture(None, (Line(text),))])]),
        Table(text, (text,), [(text,)]),
        Code(text, text),
    ]


@pytest.mark.parametrize("index", range(6))
def test_hostile_text_stays_text(index: int) -> None:
    html = every_panel(HOSTILE)[index].html()
    ours = [Elements(panel.html()) for panel in every_panel("harm_less")]
    seen = Elements(html)
    assert set(seen.tags) <= {tag for elements in ours for tag in elements.tags}
    assert {name for name, _ in seen.attributes} <= {name for elements in ours for name, _ in elements.attributes}
    assert all(str(value).startswith("data:image/") for name, value in seen.attributes if name == "src")
    assert "alert" in html
    html.encode()


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(exclude_characters="/_"), min_size=1, max_size=60))
def test_any_text_changes_no_element(text: str) -> None:
    for panel, plain in zip(every_panel(text), every_panel("x"), strict=True):
        assert Elements(panel.html()).tags == Elements(plain.html()).tags


def test_metrics_are_written_as_people_do() -> None:
    assert shown("zeroshot/shape/top1", 0.98712) == "98.7 %"
    assert percent(0.98712) == "98.7 %" and percent(-0.5) == "-50.0 %"
    assert shown("retrieval/image_to_text/R@10", 1.0) == "100.0 %"
    assert shown("retrieval/image_to_text/median_rank", 3.0) == "3"
    assert shown("clip/loss", 0.123456) == "0.1235"
    assert shown("clip/loss", float("nan")) == "not finite"
    assert shown("samples", 1234567.5) == "1,234,568"


def test_one_card_for_each_parent() -> None:
    html = Numbers("", {"zeroshot/shape/top1": 0.5, "zeroshot/shape/top5": 0.9, "seconds": 12.0}).html()
    assert html.count('class="card"') == 2
    assert "<h3>zeroshot/<wbr>shape</h3><p><b>50.0 %</b> top1</p><dl><dt>top5</dt><dd>90.0 %</dd></dl>" in html


def test_shares_of_one_parent_share_a_chart() -> None:
    points = [(1.0, 0.1), (2.0, 0.2)]
    html = Curves("", {"r/R@1": points, "r/R@5": points, "r/median_rank": points, "lr": points, "empty": []}).html()
    assert html.count('class="chart"') == 4
    assert html.count("<polyline") == 4


def test_confused_pairs_are_listed_most_often_first() -> None:
    html = Confusion("", [[8, 2, 0], [5, 5, 0], [0, 0, 9]], ["a", "b", "c"]).html()
    table = html[html.index("<tbody>") :]
    assert Elements(table).text == "ba550 %" + "ab220 %"
    assert "Nothing was confused" in Confusion("", [[1, 0], [0, 1]], ["a", "b"]).html()


def test_of_many_classes_the_most_confused_are_drawn() -> None:
    k = 100
    counts = [[5 * (t == p) for p in range(k)] for t in range(k)]
    for i in range(60, 80):
        counts[i][i - 30] = 1
    html = Confusion("", counts, [f"class {i}" for i in range(k)]).html()
    assert "the 40 of 100 classes" in html
    assert html.count('class="miss"') == 20
    assert html.count('class="hit"') == 40
    assert "class 60 taken for class 30: 1 of 6" in html
    assert "class 95 taken" not in html


def test_pictures_are_in_the_page_with_their_frame() -> None:
    pictures = [Picture(Image.new("RGB", (160, 90), "red"), (Line("a dog", "97 %", True),), False)]
    html = Gallery("", [("", pictures)]).html()
    assert '<figure class="picture bad">' in html
    assert "<li class=true><bdi>a dog</bdi><i>97 %</i></li>" in html


@pytest.mark.parametrize(("size", "form"), [((64, 64), "PNG"), ((160, 100), "JPEG")])
def test_a_data_uri_holds_the_picture(size: tuple[int, int], form: str) -> None:
    image = Image.new("RGB", size, (200, 30, 40))
    head, body = data_uri(image).split(",")
    assert head == f"data:image/{form.lower()};base64"
    again = Image.open(io.BytesIO(base64.b64decode(body)))
    assert (again.size, again.format) == (size, form)
    pixel = again.convert("RGB").getpixel((5, 5))
    assert isinstance(pixel, tuple)
    assert max(abs(a - b) for a, b in zip(pixel, (200, 30, 40), strict=True)) < 8
