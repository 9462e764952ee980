"""Where a picture was taken: at the place whose name lies nearest to it, or where the pictures nearest to it were.

The measure is that of Im2GPS (Hays and Efros 2008; thresholds of Weyand et al., PlaNet, 2016): the share of pictures
told within 1 km (a street), 25 (a city), 200 (a region), 750 (a country) and 2500 (a continent) of the truth. CLIP was
asked by its nearest picture (Radford et al. 2021, appendix E.4, one million of them); by name it is zero-shot.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from pictura.data.batches import Batch
from pictura.data.places import Places, read_places
from pictura.data.source import Source, SourceConfig
from pictura.evaluation.base import TIE, Evaluator, EvaluatorConfig, check_reads_texts, exact_products, thumbnail
from pictura.evaluation.earth import Journey, Map, great_circle_km
from pictura.evaluation.embed import Embedder
from pictura.evaluation.knn import BLOCK, nearest
from pictura.evaluation.panels import Gallery, Line, Panel, Picture, Table, percent
from pictura.evaluation.prompts import templates_of
from pictura.evaluation.zeroshot import classifier

WITHIN = (1, 25, 200, 750, 2500)  # km
SHOWN = 12  # best and worst pictures in the report
TEMPERATURE = 0.1  # of a neighbour's vote, as in kind `knn`


@dataclass(frozen=True, kw_only=True)
class GeolocationConfig(EvaluatorConfig):
    """Pictures with their place, kind `geotagged`, told by names of `places`, by pictures of a `gallery`, or by both.

    places: a table with the columns name, latitude, longitude. templates: as for kind `zeroshot`, of a place's name.
    gallery: other geotagged pictures, of which the `k` nearest vote: told is the place of the one around which most of
    their votes lie, each spread over `spread_km` (Vo et al., Revisiting IM2GPS, 2017). With k = 1 it is the nearest's.
    """

    kind: ClassVar[str] = "geolocation"

    data: SourceConfig
    places: Path | None = None
    templates: str | tuple[str, ...] = "a photo taken in {}."
    gallery: SourceConfig | None = None
    k: int = 1
    spread_km: float = 25.0

    def __post_init__(self) -> None:
        templates_of(self.templates)
        if self.places is None and self.gallery is None:
            raise ValueError("places: none given, and no gallery; give a table of places, geotagged pictures, or both")
        if not 1 <= self.k <= 1000:
            raise ValueError(f"k: {self.k} neighbours cannot vote; from 1 to 1000, and 1 or 20 are common")
        if not 0 < self.spread_km < math.inf:
            raise ValueError(f"spread_km: {self.spread_km} must be above zero; try 25")

    def build(self) -> "Geolocation":
        """The evaluator, its data opened."""
        places = None if self.places is None else read_places(self.places)
        gallery = None if self.gallery is None else self.gallery.build()
        data, sentences = self.data.build(), self.templates
        return Geolocation(data, places, gallery, sentences, self.k, self.spread_km, self.name)


class Told(NamedTuple):
    """What came of one way of telling, of n pictures. place: [n], which of the names or pictures it was; km: [n]."""

    picture: Tensor  # [n], their places in the data
    true: Tensor  # [n 2] latitude, longitude
    place: Tensor
    km: Tensor


class Geolocation(Evaluator):
    """Yields of each way, `text` and `gallery`: median_km, and accuracy@1km to accuracy@2500km."""

    def __init__(
        self,
        source: Source,
        places: Places | None = None,
        gallery: Source | None = None,
        templates: str | Sequence[str] = "a photo taken in {}.",
        k: int = 1,
        spread_km: float = 25.0,
        name: str = "",
    ) -> None:
        self.title = f"geolocation/{name}" if name else "geolocation"
        for what, data in (("the data", source), ("the gallery", gallery)):
            if data is not None and (missing := {"image", "latitude", "longitude"} - data.provides):
                raise ValueError(f"{self.title}: {what} has no {' and no '.join(sorted(missing))}; try kind: geotagged")
        self.source, self.places, self.gallery = source, places, gallery
        self.templates, self.k, self.spread_km = templates_of(templates), k, spread_km
        self.told: dict[str, Told] = {}
        self.where: dict[str, Tensor] = {}  # of each way, [n 2] of what can be told
        self.of_gallery = torch.empty(0, dtype=torch.long)  # where its usable pictures lie in it

    def check(self, model: Any) -> None:
        if self.places is not None:
            check_reads_texts(model)

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        self.told, self.where = {}, {}
        ways: dict[str, tuple[Tensor, int]] = {}  # vectors [n e], and how many of them vote
        if self.places is not None:
            ways["text"] = classifier(embedder, self.places.names, self.templates).T, 1
            self.where["text"] = torch.from_numpy(self.places.where)
        if self.gallery is not None:
            parts = [(rows, batch["index"], taken_at(batch)) for rows, batch in embedder.walk(self.gallery)]
            if not parts:
                raise ValueError(f"{self.title}: the gallery has no usable picture")
            x, self.of_gallery, self.where["gallery"] = (torch.cat(column) for column in zip(*parts, strict=True))
            ways["gallery"] = x, self.k
        kept: dict[str, list[Told]] = {way: [] for way in ways}
        for rows, batch in embedder.walk(self.source):
            true = taken_at(batch)
            for way, (x, k) in ways.items():
                place, km = tell(rows, true, x, self.where[way], k, self.spread_km)
                kept[way].append(Told(batch["index"], true, place, km))
        for way, some in kept.items():
            if not some:
                raise ValueError(f"{self.title}: the data has no usable picture")
            self.told[way] = Told(*(torch.cat(column) for column in zip(*some, strict=True)))
            for metric, value in summary(self.told[way].km).items():
                yield f"{self.title}/{way}/{metric}", value

    def panels(self) -> list[Panel]:
        if not self.told:
            return []
        rows = []
        for way, told in self.told.items():
            median, *shares = summary(told.km).values()
            rows.append((way, f"{median:,.0f}", *map(percent, shares)))
        n = len(next(iter(self.told.values())).km)
        note = f"{n:,} pictures, by {' and by '.join(self.how(way) for way in self.told)}; of equals, the farthest."
        columns = ("told by", "median km", *(f"within {km} km" for km in WITHIN))
        panels: list[Panel] = [Table(f"{self.title}: how near", columns, rows, note=note)]
        for way, told in self.told.items():
            journeys = [self.journey(way, i) for i in range(len(told.km))]
            note = "From where a picture was taken, the dot, to where it was told to be; green up to 750 km."
            panels.append(Map(f"{self.title}: by {way}", journeys, note=note))
            order = told.km.argsort(stable=True).tolist()
            best, worst = order[:SHOWN], order[::-1][: min(SHOWN, len(order) - SHOWN)] if len(order) > SHOWN else []
            shown = [(heading, [self.picture(way, i) for i in some])
                     for heading, some in (("Nearest", best), ("Farthest", worst)) if some]  # fmt: skip
            panels.append(Gallery(f"{self.title}: best and worst by {way}", shown, note="The answer, and the truth."))
        return panels

    def how(self, way: str) -> str:
        """In words, for the report."""
        if way == "text":
            several = len(self.templates) > 1
            asked = f"{len(self.templates)} sentences each" if several else f"asked as “{self.templates[0]}”"
            return f"the names of {len(self.where[way]):,} places, {asked}"
        votes = "the nearest" if self.k == 1 else f"a vote of the nearest {self.k}"
        return f"{votes} of {len(self.where[way]):,} other pictures"

    def journey(self, way: str, i: int) -> Journey:
        """One picture's line on the map."""
        told = self.told[way]
        (lat, lon), (to_lat, to_lon) = told.true[i].tolist(), self.where[way][told.place[i]].tolist()
        km = float(told.km[i])
        return Journey((lat, lon), (to_lat, to_lon), km, f"{written((lat, lon))} → {self.named(way, i)}, {km:,.0f} km")

    def named(self, way: str, i: int) -> str:
        """What was told: a place's name, or where the nearest picture was taken."""
        place = int(self.told[way].place[i])
        if way == "text" and self.places is not None:
            return self.places.names[place]
        lat, lon = self.where[way][place].tolist()
        return written((lat, lon))

    def picture(self, way: str, i: int) -> Picture:
        journey = self.journey(way, i)
        lines = (Line(self.named(way, i), f"{journey.km:,.0f} km"), Line(written(journey.true), mark=True))
        return thumbnail(self.source, int(self.told[way].picture[i]), lines, journey.km <= WITHIN[1])


def taken_at(batch: Batch) -> Tensor:
    """[b 2] float64, latitude and longitude in degrees."""
    return torch.tensor([batch["latitude"], batch["longitude"]], dtype=torch.float64).T


def written(point: tuple[float, float]) -> str:
    """48.8566, 2.3522 -> 48.86° N, 2.35° E."""
    lat, lon = point
    return f"{abs(lat):.2f}° {'N' if lat >= 0 else 'S'}, {abs(lon):.2f}° {'E' if lon >= 0 else 'W'}"


def summary(km: Tensor) -> dict[str, float]:
    """km: [n] -> the median, and the share within each of `WITHIN`."""
    shares = {f"accuracy@{most}km": float((km <= most).double().mean()) for most in WITHIN}
    return {"median_km": float(km.quantile(0.5)), **shares}


@exact_products()
def tell(
    rows: Tensor, true: Tensor, x: Tensor, where: Tensor, k: int = 1, spread_km: float = 25.0
) -> tuple[Tensor, Tensor]:
    """rows: [b e], taken at true: [b 2]; x: [n e] at where: [n 2] -> which of x each is told to be at, [b], and how far
    that is from the truth, [b] km.

    The k nearest vote with exp(cosine / 0.1); told is the one of them with the most votes around it, each vote weighing
    exp(-km² / 2 spread²). Of equals the farthest from the truth is told: a collapsed or diverged model must not look
    good. Where the k-th ties with the next, only those above the tie vote.
    """
    k = min(k, len(x))
    cosine, near = nearest(rows, x, k + 1)
    place, km = torch.empty(len(rows), dtype=torch.long), torch.empty(len(rows), dtype=torch.float64)
    for i in range(len(rows)):
        last, sure = cosine[i, k - 1], bool(cosine[i].isfinite().all())
        tied = bool((~(cosine[i, k:] < last - TIE)).any())
        voters = near[i, :k][cosine[i, :k] > last + TIE] if tied else near[i, :k]
        if sure and len(voters):
            weight = ((cosine[i, : len(voters)] - cosine[i, 0]).double() / TEMPERATURE).exp()
            apart = great_circle_km(where[voters][:, None], where[voters][None])
            votes = (-(apart / spread_km).square() / 2).exp() @ weight
            equal = voters[votes >= votes.max() * (1 - TIE)]
        else:
            level = torch.cat([part @ rows[i] for part in x.split(BLOCK)])
            equal = (~(level < (last if sure else torch.nan) - TIE)).nonzero()[:, 0]  # less than NaN is nothing
        away = great_circle_km(true[i], where[equal])
        place[i], km[i] = equal[away.argmax()], away.max()
    return place, km
