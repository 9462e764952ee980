import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pictura.config import load
from pictura.data.places import Places
from pictura.data.source import Example, Source
from pictura.evaluation.base import EvaluatorConfig
from pictura.evaluation.earth import Map, great_circle_km
from pictura.evaluation.embed import Embedder
from pictura.evaluation.geolocation import Geolocation, summary, tell
from pictura.evaluation.panels import Gallery, Table
from pictura.evaluation.report import write_report
from pictura.evaluation.zeroshot import classifier
from tests.data.files import jpeg, write
from tests.evaluation.conftest import Made

NAMES = ("dog", "cat", "old house", "small tree")
PLACES = Places(NAMES, np.array([[48.9, 2.4], [-33.9, 151.2], [64.1, -21.9], [0.0, 179.9]]))


class Taken(Made):
    """Flat pictures, taken all over the Earth."""

    def __init__(self, n: int, broken: Sequence[int] = (), seed: int = 0) -> None:
        super().__init__(n, broken=broken)
        self.provides = frozenset({"image", "latitude", "longitude"})
        self.where = np.random.default_rng(seed).uniform((-90, -180), (90, 180), (n, 2))

    def __getitem__(self, index: int) -> Example:
        latitude, longitude = self.where[index].tolist()
        return cast(Example, super().__getitem__(index) | {"latitude": latitude, "longitude": longitude})


def unit(*angles: float) -> Tensor:
    return torch.tensor([[math.cos(angle), math.sin(angle)] for angle in angles])


def degrees(*points: tuple[float, float]) -> Tensor:
    return torch.tensor(points, dtype=torch.float64)


def test_numbers_are_those_of_a_plain_loop(embedder: Embedder, tmp_path: Path) -> None:
    source, gallery = Taken(20, broken=[4]), Taken(15, broken=[0, 9], seed=1)
    gallery_images = [i for i in range(15) if i not in (0, 9)]
    evaluator = Geolocation(source, PLACES, gallery, "taken in {}", name="made")
    assert evaluator.panels() == []
    values = dict(evaluator.run(embedder))
    classes = classifier(embedder, NAMES, ("taken in {}",))
    x = embedder.images([gallery[i]["image"] for i in gallery_images])
    away: dict[str, list[float]] = {"text": [], "gallery": []}
    for i in range(20):
        if i != 4:
            row = embedder.images([source[i]["image"]])[0]
            told = {
                "text": PLACES.where[int((row @ classes).argmax())],
                "gallery": gallery.where[gallery_images[int((x @ row).argmax())]],
            }
            for way, point in told.items():
                away[way].append(float(great_circle_km(torch.from_numpy(source.where[i]), torch.from_numpy(point))))
    for way, km in away.items():
        assert values[f"geolocation/made/{way}/median_km"] == pytest.approx(float(np.median(km)))
        for most in (1, 25, 200, 750, 2500):
            share = sum(one <= most for one in km) / 19
            assert values[f"geolocation/made/{way}/accuracy@{most}km"] == pytest.approx(share)
    assert len(values) == 12
    table, *rest = evaluator.panels()
    assert isinstance(table, Table) and len(table.rows) == 2
    assert [type(panel) for panel in rest] == [Map, Gallery] * 2
    write_report(tmp_path / "r.html", title="t", metrics=values, panels=evaluator.panels())
    for _, pictures in cast(Gallery, rest[1]).rows:
        assert all(picture.image is not None and len(picture.lines) == 2 for picture in pictures)


def test_a_picture_of_the_gallery_itself_is_told_exactly(embedder: Embedder) -> None:
    source = Taken(12)
    values = dict(Geolocation(source, gallery=source).run(embedder))
    assert values["geolocation/gallery/median_km"] == pytest.approx(0, abs=1e-3)
    assert values["geolocation/gallery/accuracy@1km"] == 1.0


def test_summary() -> None:
    found = summary(torch.tensor([0.5, 1.0, 25.1, 700.0, 2501.0, 20000.0], dtype=torch.float64))
    assert found == {
        "median_km": pytest.approx((25.1 + 700) / 2),
        "accuracy@1km": pytest.approx(2 / 6),
        "accuracy@25km": pytest.approx(2 / 6),
        "accuracy@200km": pytest.approx(3 / 6),
        "accuracy@750km": pytest.approx(4 / 6),
        "accuracy@2500km": pytest.approx(4 / 6),
    }


@pytest.mark.parametrize("k", [1, 3, 7, 50])
def test_votes_are_those_of_a_naive_loop(k: int) -> None:
    torch.manual_seed(0)
    rows, x = F.normalize(torch.randn(6, 5), dim=1), F.normalize(torch.randn(30, 5), dim=1)
    true = torch.rand(6, 2, dtype=torch.float64) * 10
    where = torch.rand(30, 2, dtype=torch.float64) * 10
    place, km = tell(rows, true, x, where, k, 300.0)
    for i in range(6):
        cosines = (x @ rows[i]).tolist()
        voters = sorted(range(30), key=lambda j: -cosines[j])[:k]
        votes = {
            a: sum(
                math.exp(cosines[b] / 0.1) * math.exp(-((float(great_circle_km(where[a], where[b])) / 300) ** 2) / 2)
                for b in voters
            )
            for a in voters
        }
        best = max(votes, key=lambda a: votes[a])
        assert int(place[i]) == best
        assert float(km[i]) == pytest.approx(float(great_circle_km(true[i], where[best])))


def test_two_that_agree_outvote_the_nearest() -> None:
    x, where = unit(0.01, 0.05, 0.06, 2.0), degrees((0, 0), (50, 50), (50, 50.1), (9, 9))
    for k, expected in ((1, 0), (3, 1)):
        place, _ = tell(unit(0.0), degrees((1, 1)), x, where, k)
        assert place.tolist() == [expected]


def test_of_equals_the_farthest_counts() -> None:
    x, where = unit(0.5, 0.5, 0.5, 2.0), degrees((0, 0), (0, 90), (0, 10), (0, 180))
    for k in (1, 2):
        place, km = tell(unit(0.4), degrees((0, 0)), x, where, k)
        assert place.tolist() == [1] and km[0] == pytest.approx(10007.557, abs=1e-2)
    place, _ = tell(unit(0.4), degrees((0, 0)), torch.cat([unit(0.41), x]), torch.cat([where[:1], where]), 2)
    assert place.tolist() == [0]  # of the two that vote the second ties with others, and is left out


@pytest.mark.parametrize("k", [1, 2, 9])
def test_what_is_not_a_number_is_far_off(k: int) -> None:
    x, where = unit(0.0, 1.0, 2.0), degrees((0, 0), (0, 90), (0, 180))
    place, km = tell(torch.full((1, 2), torch.nan), degrees((0, 0)), x, where, k)
    assert place.tolist() == [2] and km[0] == pytest.approx(20015.115, abs=1e-2)
    x[1] = torch.nan
    assert tell(unit(0.0), degrees((0, 0)), x, where, k)[0].tolist() == [2]


def test_a_collapsed_model_is_never_right(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedder.model, "encode_image", lambda image: torch.ones(len(image), 24))
    monkeypatch.setattr(embedder.model, "encode_text", lambda text: torch.ones(len(text), 24))
    source = Taken(8)
    values = dict(Geolocation(source, PLACES, source, k=3).run(embedder))
    assert {value for name, value in values.items() if "accuracy" in name} == {0.0}


def test_a_gallery_needs_no_texts(embedder: Embedder) -> None:
    class Blind:
        class config:
            kind = "resnet"

    Geolocation(Taken(2), gallery=Taken(2)).check(Blind())
    with pytest.raises(ValueError, match="reads no texts"):
        Geolocation(Taken(2), PLACES).check(Blind())


def test_a_recipe_names_it_by_kind(embedder: Embedder, tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.jpg", jpeg(i))
    table = write(tmp_path / "t.csv", "image,lat,lon\n0.jpg,1,2\n1.jpg,3,4\n2.jpg,5,6\n")
    places = write(tmp_path / "p.csv", "name,lat,lon\ndog,1,2\ncat,3,4\n")
    data = {"kind": "geotagged", "path": str(table)}
    config = load(
        EvaluatorConfig, {"kind": "geolocation", "data": data, "places": str(places), "gallery": data, "k": 2}
    )
    values = dict(config.build().run(embedder))
    assert values["geolocation/gallery/accuracy@2500km"] == values["geolocation/text/accuracy@2500km"] == 1.0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "places: none given, and no gallery"),
        ({"places": "x.csv", "k": 0}, "k: 0 neighbours cannot vote"),
        ({"places": "x.csv", "spread_km": 0.0}, r"spread_km: 0.0 must be above zero; try 25"),
        ({"places": "x.csv", "templates": "in"}, "templates: 'in' is no set"),
    ],
)
def test_mistakes(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load(EvaluatorConfig, {"kind": "geolocation", "data": {"kind": "geotagged", "path": "t.csv"}, **fields})


def test_data_without_places() -> None:
    plain: Source = Made(2)
    with pytest.raises(ValueError, match="geolocation: the data has no latitude and no longitude; try kind: geotagged"):
        Geolocation(plain, PLACES)
    with pytest.raises(ValueError, match="the gallery has no latitude"):
        Geolocation(Taken(2), PLACES, plain)


def test_a_gallery_of_nothing(embedder: Embedder) -> None:
    with pytest.raises(ValueError, match="not one of 2 examples can be read"):
        dict(Geolocation(Taken(2), gallery=Taken(2, broken=[0, 1])).run(embedder))
