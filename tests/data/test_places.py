import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from pictura.config import load
from pictura.data.places import GeotaggedConfig, read_places
from pictura.data.source import BadSample, SourceConfig
from tests.data.files import jpeg, write

ROWS: list[dict[str, Any]] = [
    {"image": "a.jpg", "lat": 48.8566, "lon": 2.3522},
    {"image": "sub/b.jpg", "lat": -33.8688, "lon": 151.2093},
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "a.jpg", jpeg(0))
    write(tmp_path / "sub" / "b.jpg", jpeg(1))
    return tmp_path


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="," if path.suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_the_four_kinds_of_tables(root: Path, suffix: str) -> None:
    path = table(root / f"t{suffix}", ROWS)
    source = load(SourceConfig, {"kind": "geotagged", "path": str(path)}).build()
    assert source.provides == {"image", "latitude", "longitude"}
    assert [source[0], source[1]] == [
        {"key": str(root / "a.jpg"), "image": jpeg(0), "latitude": 48.8566, "longitude": 2.3522},
        {"key": str(root / "sub/b.jpg"), "image": jpeg(1), "latitude": -33.8688, "longitude": 151.2093},
    ]


def test_columns_by_name_and_another_root(root: Path) -> None:
    path = write(root / "tables" / "t.csv", "photo,N,E\na.jpg,1,2\n")
    config = GeotaggedConfig(path=path, root=root, image_column="photo", latitude_column="N", longitude_column="E")
    example: Any = config.build()[0]
    assert (example["latitude"], example["longitude"]) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a.jpg,nan,2", "no latitude|latitude: 'nan' is no number of degrees from -90 to 90"),
        ("a.jpg,inf,2", "latitude: 'inf' is no number"),
        ("a.jpg,90.5,2", "latitude: '90.5' is no number of degrees from -90 to 90"),
        ("a.jpg,1,-180.01", "longitude: '-180.01' is no number of degrees from -180 to 180"),
        ("a.jpg,,2", "no latitude"),
        ("a.jpg,48° N,2", "latitude: '48° N' is no number"),
        (",1,2", "names no picture"),
        ("a.jpg,1", "2 cells where the header has 3"),
    ],
)
def test_a_bad_row_is_named_by_its_line(root: Path, row: str, said: str) -> None:
    path = write(root / "t.csv", f"image,latitude,longitude\na.jpg,90,-180\n{row}\n")
    source = GeotaggedConfig(path=path).build()
    assert len(source) == 1
    (bad,) = source.bad
    assert bad.key == f"{path}:3"
    assert any(bad.reason.startswith(some) for some in said.split("|"))


def test_not_a_number_in_parquet(root: Path) -> None:
    rows = [*ROWS, {"image": "a.jpg", "lat": float("nan"), "lon": 1.0}, {"image": "a.jpg", "lat": None, "lon": 1.0}]
    source = GeotaggedConfig(path=table(root / "t.parquet", rows)).build()
    assert len(source) == 2
    assert [str(bad) for bad in source.bad] == [f"{root}/t.parquet:{line}: no latitude" for line in (3, 4)]


def test_a_picture_that_is_gone_is_one_bad_sample(root: Path) -> None:
    source = GeotaggedConfig(path=table(root / "t.csv", ROWS)).build()
    (root / "a.jpg").unlink()
    with pytest.raises(BadSample, match=r"a\.jpg: no such file"):
        source[0]
    assert source[1]["image"] == jpeg(1)


@pytest.mark.parametrize(
    ("content", "config", "said"),
    [
        ("image,lat\na.jpg,1\n", {}, "which column holds the longitude[?] Call it longitude or lon or lng or long"),
        ("photo,lat,lon\na.jpg,1,2\n", {}, "which column names the pictures"),
        ("image,lat,lon\na.jpg,1,2\n", {"latitude_column": "lot"}, "latitude_column: .* no column 'lot'; did you mean"),
        ("image,lat,lon\na.jpg,91,2\n", {}, "holds no usable row, for example .*:2: latitude: '91'"),
        ("image,lat,lon\nz.jpg,1,2\n", {}, "names pictures such as 'z.jpg', which is not in .*; set `root`"),
        ("", {}, "is empty"),
    ],
)
def test_mistakes(root: Path, content: str, config: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        GeotaggedConfig(path=write(root / "t.csv", content), **config).build()  # type: ignore[arg-type]


def test_places(tmp_path: Path) -> None:
    places = read_places(
        write(tmp_path / "p.csv", 'name,latitude,longitude\n"Paris, France",48.86,2.35\nSuva,-18.1,178.4\n')
    )
    assert places.names == ("Paris, France", "Suva")
    np.testing.assert_array_equal(places.where, [[48.86, 2.35], [-18.1, 178.4]])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name,lat,lon\nA,1,2\nB,1,181\n", r"p\.csv:3: longitude: '181' is no number of degrees"),
        ("name,lat,lon\nA,1,2\nA,3,4\n", r"p\.csv:3: 'A' is on an earlier row too; give each place its own words"),
        ("name,lat,lon\nA,1,2\n ,3,4\n", r"p\.csv:3: names no place"),
        ("name,lat,lon\nA,1,2\nB,3\n", r"p\.csv:3: 2 cells where the header has 3"),
        ("where,lat,lon\nA,1,2\n", "which column names the places[?] Call it `name`; there are where, lat, lon"),
        ("name,lat,lon\nA,1,2\n", "holds 1 places; at least two"),
    ],
)
def test_places_that_are_none(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_places(write(tmp_path / "p.csv", content))
