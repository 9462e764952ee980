"""Distances on the Earth, and where pictures were taken drawn on an empty map: meridians, parallels, no coasts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pictura.evaluation.panels import Panel, escape

RADIUS = 6371.0088  # km, the mean of the Earth's three half axes (IUGG; Moritz, Geodetic Reference System 1980)
DRAWN = 300  # lines on a map: of more none can be told from another
WIDTH, HEIGHT = 720, 360  # units of the drawing: two for each degree
NEAR = 750.0  # km: a line that is drawn as right ends in the country

Point = tuple[float, float]  # latitude, longitude


def great_circle_km(a: Tensor, b: Tensor) -> Tensor:
    """a, b: [… 2], latitude and longitude in degrees, broadcast -> [… ] float64, km along the great circle.

    The haversine formula (Sinnott, Virtues of the Haversine, 1984), whose digits hold for near points; on a sphere,
    which is up to 0.6 % off the Earth's own shape.
    """
    (lat_a, lon_a), (lat_b, lon_b) = a.double().deg2rad().unbind(-1), b.double().deg2rad().unbind(-1)
    across = ((lon_b - lon_a) / 2).sin().square() * lat_a.cos() * lat_b.cos()
    h = (((lat_b - lat_a) / 2).sin().square() + across).clamp(0, 1)
    return 2 * RADIUS * torch.atan2(h.sqrt(), (1 - h).sqrt())


@dataclass(frozen=True)
class Journey:
    """From where a picture was taken to where it was told to be, `km` away."""

    true: Point
    told: Point
    km: float
    text: str


@dataclass(frozen=True)
class Map(Panel):
    """Longitude by latitude, with a line for each journey; those across the date line leave on one side."""

    journeys: Sequence[Journey]

    def html(self) -> str:
        step = max(1, -(-len(self.journeys) // DRAWN))
        drawn = "".join(map(_drawn, self.journeys[::step]))
        return (
            f'<figure class="chart"><svg viewBox="-34 -6 {WIDTH + 48} {HEIGHT + 28}" role="img" '
            f'aria-label="{escape(self.title)}">{_grid()}{drawn}</svg></figure>'
        )


def _x(longitude: float) -> float:
    return round((longitude + 180) * WIDTH / 360, 1)


def _y(latitude: float) -> float:
    return round((90 - latitude) * HEIGHT / 180, 1)


def _grid() -> str:
    parts = []
    for lon in range(-180, 181, 60):
        word = f"{abs(lon)}°{'' if lon % 180 == 0 else 'W' if lon < 0 else 'E'}"
        parts.append(f'<line class="grid" x1="{_x(lon)}" x2="{_x(lon)}" y1="0" y2="{HEIGHT}"/>')
        parts.append(f'<text class="tick" x="{_x(lon)}" y="{HEIGHT + 16}" text-anchor="middle">{word}</text>')
    for lat in range(-90, 91, 30):
        word = f"{abs(lat)}°{'' if lat == 0 else 'S' if lat < 0 else 'N'}"
        parts.append(f'<line class="grid" x1="0" x2="{WIDTH}" y1="{_y(lat)}" y2="{_y(lat)}"/>')
        parts.append(f'<text class="tick" x="-6" y="{_y(lat) + 3.5}" text-anchor="end">{word}</text>')
    return "".join(parts)


def _drawn(journey: Journey) -> str:
    """The shorter way round, and a dot where the picture was taken."""
    (lat, lon), (to_lat, to_lon) = journey.true, journey.told
    around = 360 if to_lon - lon < -180 else -360 if to_lon - lon > 180 else 0
    lines = [_line(lat, lon, to_lat, to_lon)]
    if around:
        edge = 180.0 if around > 0 else -180.0
        share = (edge - lon) / (to_lon + around - lon or 1.0)
        at = lat + share * (to_lat - lat)
        lines = [_line(lat, lon, at, edge), _line(at, -edge, to_lat, to_lon)]
    dot = (
        f'<circle class="dot alone" cx="{_x(lon)}" cy="{_y(lat)}" r="3"><title>{escape(journey.text)}</title></circle>'
    )
    return f'<g class="c{2 if journey.km <= NEAR else 4}">{"".join(lines)}{dot}</g>'


def _line(lat: float, lon: float, to_lat: float, to_lon: float) -> str:
    return f'<polyline class="line" points="{_x(lon)},{_y(lat)} {_x(to_lon)},{_y(to_lat)}"/>'
