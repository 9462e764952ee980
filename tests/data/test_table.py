import csv
import json
import os
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from pictura.config import load
from pictura.data.source import BadSample, Source, SourceConfig
from pictura.data.table import TableConfig, whole_records
from tests.data.files import jpeg, shared, write

ROWS = [
    {"image": "a.jpg", "caption": "a, first", "kind": "cat", "other": ""},
    {"image": "sub/b.jpg", "caption": 'b "quoted"\nin two lines', "kind": "dog", "other": "b other"},
    {"image": "a.jpg", "caption": "a sécond", "kind": "cat", "other": "a other"},
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "a.jpg", jpeg(0))
    write(tmp_path / "sub" / "b.jpg", jpeg(1))
    return tmp_path


def table(root: Path, suffix: str, rows: list[dict[str, Any]] = ROWS) -> Path:
    path = root / f"table{suffix}"
    if suffix in (".csv", ".tsv"):
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="," if suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    elif suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=2)
    return path


def contents(source: Source) -> list[Any]:
    return [source[index] for index in range(len(source))]


def read(path: Path, content: str | bytes, **config: Any) -> Source:
    return TableConfig(path=write(path, content), **config).build()


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_the_four_kinds_of_tables(root: Path, suffix: str) -> None:
    source = load(SourceConfig, {"kind": "table", "path": str(table(root, suffix))}).build()
    assert source.provides == {"image", "captions"}
    assert contents(source) == [
        {"key": str(root / "a.jpg"), "image": jpeg(0), "captions": ["a, first", "a sécond"]},
        {"key": str(root / "sub/b.jpg"), "image": jpeg(1), "captions": ['b "quoted"\nin two lines']},
    ]
    assert list(source.all_captions()) == ["a, first", "a sécond", 'b "quoted"\nin two lines']
    assert list(source.bad) == []


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_columns_by_name(root: Path, suffix: str) -> None:
    config = TableConfig(
        path=table(root, suffix), image_column="image", caption_columns=["other", "caption"], label_column="kind"
    )
    source = config.build()
    assert source.class_names == ("cat", "dog")
    assert [(example["captions"], example["label"]) for example in contents(source)] == [
        (["a, first", "a other", "a sécond"], 0),
        (["b other", 'b "quoted"\nin two lines'], 1),
    ]


def test_whole_rows_are_told_by_columns_in_lower_case(root: Path) -> None:
    rows: list[dict[str, Any]] = [{" Image ": "a.jpg", "TRUE": "A, b"}, {" Image ": "b.jpg", "TRUE": ""}]
    for suffix in (".csv", ".tsv"):
        bad: list[BadSample] = []
        path = table(root, suffix, rows)
        write(path, path.read_bytes() + b"alone\r\n")
        assert list(whole_records(path, bad)) == [
            (f"{path}:2", {"image": "a.jpg", "true": "A, b"}),
            (f"{path}:3", {"image": "b.jpg", "true": ""}),
        ]
        assert [one.key for one in bad] == [f"{path}:4"]
        assert list(whole_records(write(path, ""), bad)) == [], "an empty file is for the caller to judge"
    late = [{"a": 1}] * 150 + [{"a": 2, "B": [3]}]
    assert [cells for _, cells in whole_records(table(root, ".jsonl", late), [])] == late, (
        "keys as they are, late or not"
    )


def test_columns_of_lists(root: Path) -> None:
    rows = [{"filepath": "a.jpg", "captions": ["one", "two"]}, {"filepath": "sub/b.jpg", "captions": ["three"]}]
    for suffix in (".jsonl", ".parquet"):
        assert [e["captions"] for e in contents(TableConfig(path=table(root, suffix, rows)).build())] == [
            ["one", "two"],
            ["three"],
        ]


def test_labels_alone(root: Path) -> None:
    source = TableConfig(
        path=table(root, ".csv"), label_column="kind", caption_columns=[], class_names=["dog", "cat"]
    ).build()
    assert source.provides == {"image", "label"}
    assert [example["label"] for example in contents(source)] == [1, 0]
    numbers = read(root / "n.jsonl", '{"path": "a.jpg", "y": 7}\n{"path": "sub/b.jpg", "y": 0}', label_column="y")
    assert [example["label"] for example in contents(numbers)] == [7, 0]
    assert numbers.class_names == () and numbers.least_classes == 8
    missing = read(root / "m.jsonl", '{"path": "a.jpg", "y": "x"}\n{"path": "sub/b.jpg", "y": null}', label_column="y")
    assert missing[0]["label"] == 0
    with pytest.raises(BadSample, match=r"sub/b\.jpg: no label"):
        missing[1]
    lists = read(root / "l.jsonl", '{"path": "a.jpg", "y": ["x"]}', label_column="y")
    assert lists.class_names == ("['x']",)


def test_root_and_absolute_names(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("tables")
    source = read(elsewhere / "t.csv", f"image,caption\na.jpg,a\n{root}/sub/b.jpg,b\n", root=root)
    assert [example["image"] for example in contents(source)] == [jpeg(0), jpeg(1)]


def test_names_that_lead_outside(root: Path) -> None:
    (root / "images").mkdir()
    (root / "images" / "link.jpg").symlink_to(root / "a.jpg")
    write(root / "images" / "own.jpg", jpeg(5))
    text = "image,caption\nown.jpg,x\n../../../../../../../../etc/passwd,x\nlink.jpg,x\nown.jpg\0,x\n"
    source = read(root / "t.csv", text, root=root / "images")
    assert source[0]["image"] == jpeg(5)
    for index in (1, 2):
        with pytest.raises(BadSample, match="leads outside"):
            source[index]
    with pytest.raises(BadSample, match="null"):
        source[3]


def test_bad_rows_are_named_by_line(root: Path) -> None:
    lines = [
        "image,caption",
        "a.jpg,good",
        ",no picture",
        "a.jpg,",
        "a.jpg,x,y",
        "",
        "a.jpg, ",
        f"a.jpg,{'x' * 200_000}",
        "sub/b.jpg,good",
    ]
    source = read(root / "t.csv", "\n".join(lines))
    assert [example["captions"] for example in contents(source)] == [["good"], ["good"]]
    assert [str(bad).removeprefix(str(root)) for bad in source.bad] == [
        "/t.csv:3: names no picture",
        "/t.csv:4: empty caption",
        "/t.csv:5: 3 cells where the header has 2; quote text that holds ','",
        "/t.csv:7: empty caption",
        "/t.csv:8: not a row: field larger than field limit (131072)",
    ]
    lines = [
        '{"image": "a.jpg", "caption": "good"}',
        "{",
        "[1]",
        '{"image": 3, "caption": "x"}',
        '{"caption": "x"}',
        "[" * 99999,
    ]
    lines += ['{"image": "a.jpg"}', '{"image": "sub/b.jpg", "caption": 5}']
    source = read(root / "t.jsonl", "\n".join(lines))
    assert len(source) == 1
    assert [int(bad.key.rpartition(":")[2]) for bad in source.bad] == [2, 3, 6, 4, 5, 7, 8]


def test_a_label_that_contradicts_an_earlier_row(root: Path) -> None:
    source = read(root / "t.csv", "image,caption,y\na.jpg,1,cat\na.jpg,2,dog\na.jpg,3,\n", label_column="y")
    assert source[0]["captions"] == ["1", "2", "3"]
    assert source.class_names == ("cat",)
    assert [str(bad) for bad in source.bad] == [
        f"{root}/t.csv:3: label 'dog', but 'cat' on an earlier row of the same picture"
    ]


def test_encodings(root: Path) -> None:
    text = "image,caption\r\na.jpg,a café by the sea\r\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert read(root / "t.csv", text.encode(encoding))[0]["captions"] == ["a café by the sea"]
    assert read(root / "t.csv", text.encode("latin-1"))[0]["captions"] == ["a caf� by the sea"]
    source = read(root / "t.csv", text.encode() + "a.jpg,日本の猫\n".encode("shift-jis"))
    assert source[0]["captions"] == ["a café by the sea"]
    assert "not UTF-8" in source.bad[0].reason
    assert read(root / "t.jsonl", b'\xef\xbb\xbf{"image": "a.jpg", "caption": "caf\xe9 by the sea"}')[0][
        "captions"
    ] == ["caf� by the sea"]
    odd = os.fsdecode(b"sub/\xe9.jpg")
    write(root / odd, jpeg(3))
    assert read(root / "t.csv", b"image,caption\nsub/\xe9.jpg,a\n")[0]["key"].endswith("sub/�.jpg")


def test_parquet_text_that_is_not_utf_8(root: Path) -> None:
    bad = pyarrow.Array.from_buffers(
        pyarrow.string(), 2, [None, pyarrow.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0"), pyarrow.py_buffer(b"\xff\xfeok")]
    )
    pyarrow.parquet.write_table(pyarrow.table({"image": ["a.jpg", "sub/b.jpg"], "caption": bad}), root / "t.parquet")
    source = TableConfig(path=root / "t.parquet").build()
    assert [example["captions"] for example in contents(source)] == [["ok"]]
    assert [str(bad) for bad in source.bad] == [f"{root}/t.parquet:1: text is not UTF-8"]


def test_mistakes(root: Path) -> None:
    path = table(root, ".csv")
    for config, said in [
        (TableConfig(path=root / "tabel.csv"), "tabel.csv: no such file; did you mean 'table.csv'"),
        (TableConfig(path=path, image_column="imag"), "image_column: .* has no column 'imag'; did you mean 'image'"),
        (TableConfig(path=path, caption_columns=["captoin"]), "caption_columns: .* did you mean 'caption'"),
        (TableConfig(path=path, label_column="zzz"), "label_column: .* no column 'zzz'; it has image, caption, kind"),
        (TableConfig(path=path, class_names=["cat"]), "no label_column"),
        (TableConfig(path=path, root=root / "none"), "none: no such folder"),
        (TableConfig(path=path, root=root / "sub"), "names pictures such as 'a.jpg': which is not in .*; set `root`"),
        (TableConfig(path=write(root / "x1.csv", "")), "x1.csv: is empty"),
        (TableConfig(path=write(root / "x.tsv", "a\tb\n")), "which column names the pictures.*one of a, b"),
        (TableConfig(path=write(root / "x2.csv", "image,caption\n")), "holds no usable row"),
        (TableConfig(path=write(root / "x3.csv", "image,caption\na.jpg,\n")), "for example .*x3.csv:2: empty caption"),
        (TableConfig(path=write(root / "x4.csv", "image,words\na.jpg,x\n")), "which columns hold captions"),
        (TableConfig(path=write(root / "x5.csv", "image,caption\nhttps://h/a.jpg,x\n")), "a web address"),
        (TableConfig(path=write(root / "x.jsonl", "x" * (16 * 2**20 + 1))), "x.jsonl:1: a line of more than"),
        (TableConfig(path=write(root / "x.parquet", "not parquet")), "cannot be read as Parquet"),
        (TableConfig(path=write(root / "x.xls", "")), r"ends in .csv, .tsv, .jsonl or .parquet"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=said):
            config.build()
    pyarrow.parquet.write_table(pyarrow.table({"image": [{"bytes": b"x"}], "caption": ["x"]}), root / "hf.parquet")
    with pytest.raises(ValueError, match=r"column 'image' holds struct.*, not file names"):
        TableConfig(path=root / "hf.parquet").build()


def test_some_missing_pictures_are_bad_samples_not_a_mistake(root: Path) -> None:
    source = read(root / "t.csv", "image,caption\n" + "".join(f"none{n}.jpg,x\n" for n in range(40)) + "a.jpg,x\n")
    assert len(source) == 41
    with pytest.raises(BadSample, match=r"none0\.jpg: no such file"):
        source[0]


def test_real_photographs() -> None:
    source = TableConfig(path=shared("photos") / "test.csv").build()
    assert len(source) == 200
    assert not source.bad
    assert all(len(example["captions"]) == 5 and example["image"][:2] == b"\xff\xd8" for example in contents(source))
