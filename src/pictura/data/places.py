"""`geotagged`: a table that says of each picture where on the Earth it was taken; and tables of places by name.

Degrees as GPS has them (WGS 84): latitude -90 to 90, north above zero; longitude -180 to 180, east above zero.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt

from pictura.data.folders import read_picture
from pictura.data.source import BadSample, Example, Source, SourceConfig, Strings, existing, is_empty, shown, under
from pictura.data.table import given_column, image_column, records, usual_column

LATITUDE_COLUMNS = ("latitude", "lat")
LONGITUDE_COLUMNS = ("longitude", "lon", "lng", "long")
NAME_COLUMNS = ("name", "place", "city", "title")


@dataclass(frozen=True, kw_only=True)
class GeotaggedConfig(SourceConfig):
    """Pictures named in a CSV, TSV, JSON Lines or Parquet table, relative to `root` (the table's own folder if not
    given), each with its latitude and longitude in degrees.

    image_column, latitude_column, longitude_column: found by their usual names (image, filepath, …; latitude, lat;
    longitude, lon, lng) if not given.
    """

    kind: ClassVar[str] = "geotagged"
    path: Path
    root: Path | None = None
    image_column: str | None = None
    latitude_column: str | None = None
    longitude_column: str | None = None

    def build(self) -> "Geotagged":
        return Geotagged(self)


class Geotagged(Source):
    """Pictures with `latitude` and `longitude`. Rows that cannot be used (no picture, no such place) are in `bad`."""

    provides = frozenset({"image", "latitude", "longitude"})

    def __init__(self, config: GeotaggedConfig) -> None:
        path = existing(config.path, "file")
        self._root = os.path.realpath(path.parent if config.root is None else existing(config.root, "folder"))
        chosen: list[str] = []

        def choose(types: Mapping[str, str]) -> list[str]:
            chosen.append(image_column(path, types, config.image_column))
            chosen.extend(_columns_of(path, types, config.latitude_column, config.longitude_column))
            return chosen

        bad: list[BadSample] = []
        names: list[str] = []
        where: list[tuple[float, float]] = []
        for row, cells in records(path, choose, bad):
            image, latitude, longitude = (cells[name] for name in chosen)
            if not isinstance(image, str) or not image.strip():
                bad.append(BadSample(row, "names no picture"))
                continue
            try:
                where.append((_degrees(latitude, "latitude", 90), _degrees(longitude, "longitude", 180)))
            except ValueError as error:
                bad.append(BadSample(row, str(error)))
                continue
            names.append(image.strip())
        if not names:
            raise ValueError(f"{path}: holds no usable row{f', for example {bad[0]}' if bad else ''}")
        self.bad, self._names = bad, Strings(names)
        self.where: npt.NDArray[np.float64] = np.array(where)  # [n 2] latitude, longitude
        self._check_pictures(path)

    def _check_pictures(self, table: Path) -> None:
        """As kind `table` does: that none of some names leads to a file is a wrong `root`."""
        names = self._names[:: max(1, len(self) // 32)]
        if not any(_there(self._root, name) for name in names):
            hint = f"which is not in {self._root}; set `root` to the pictures' folder"
            raise ValueError(f"{table}: names pictures such as {shown(names[0])!r}, {hint}")

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Example:
        key, image = read_picture(self._root, self._names[index])
        latitude, longitude = self.where[index].tolist()
        return cast(Example, {"key": key, "image": image, "latitude": latitude, "longitude": longitude})


def _there(root: str, name: str) -> bool:
    try:
        return os.path.exists(under(root, name))
    except BadSample:
        return False


@dataclass(frozen=True)
class Places:
    """Places by name; where: [n 2] float64, latitude and longitude in degrees."""

    names: tuple[str, ...]
    where: npt.NDArray[np.float64]


def read_places(path: Path) -> Places:
    """A table with the columns name, latitude and longitude, as kind `geotagged` reads them -> all its places.

    ValueError for a row that is no place on Earth, and where two have the same name: "Paris" is no answer where there
    are two, "Paris, Texas" is.
    """
    path = existing(path, "file")
    chosen: list[str] = []

    def choose(types: Mapping[str, str]) -> list[str]:
        name = usual_column(list(types), NAME_COLUMNS)
        if name is None:
            listed = ", ".join(list(types)[:20])
            raise ValueError(f"{path}: which column names the places? Call it `name`; there are {listed}")
        chosen.extend([name, *_columns_of(path, types, None, None)])
        return chosen

    bad: list[BadSample] = []
    found: dict[str, tuple[float, float]] = {}
    for row, cells in records(path, choose, bad):
        given, latitude, longitude = (cells[column] for column in chosen)
        name = "" if is_empty(given) else str(given).strip()
        if not name:
            raise ValueError(f"{row}: names no place")
        if name in found:
            raise ValueError(f"{row}: {name!r} is on an earlier row too; give each place its own words")
        try:
            found[name] = _degrees(latitude, "latitude", 90), _degrees(longitude, "longitude", 180)
        except ValueError as error:
            raise ValueError(f"{row}: {error}") from None
    if bad:
        raise ValueError(str(bad[0]))
    if len(found) < 2:
        raise ValueError(f"{path}: holds {len(found)} places; at least two are needed to choose among")
    return Places(tuple(found), np.array(list(found.values())))


def _columns_of(path: Path, types: Mapping[str, str], latitude: str | None, longitude: str | None) -> tuple[str, str]:
    """The columns of latitude and longitude: as given, else by their usual names."""
    names = list(types)

    def column(what: str, given: str | None, usual: tuple[str, ...]) -> str:
        found = usual_column(names, usual) if given is None else given_column(path, names, f"{what}_column", given)
        if found is None:
            listed = ", ".join(names[:20])
            raise ValueError(f"{path}: which column holds the {what}? Call it {' or '.join(usual)}; there are {listed}")
        return found

    return column("latitude", latitude, LATITUDE_COLUMNS), column("longitude", longitude, LONGITUDE_COLUMNS)


def _degrees(cell: Any, what: str, most: float) -> float:
    """ValueError for what is no angle from -most to most."""
    if is_empty(cell):
        raise ValueError(f"no {what}")
    try:
        value = float(cell)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not -most <= value <= most or isinstance(cell, bool):  # NaN is not
        raise ValueError(f"{what}: {str(cell)[:40]!r} is no number of degrees from {-most} to {most}")
    return value
