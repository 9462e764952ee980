from pathlib import Path

import pytest

from pictura.config import kinds, load, to_dict
from pictura.data.image_text import ImageTextConfig
from pictura.data.source import SourceConfig
from tests.data.files import jpeg, shared, tar, write


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_right_source_for_a_path(tmp_path: Path) -> None:
    for name in ("a.csv", "b.jsonl", "c.parquet", "d.TSV", "e.json", "tars/0.tar", "one/table.csv", "one/images/a.jpg"):
        write(tmp_path / name, "")
    for name in ("pairs/sub/b.jpg", "pairs/a.png", "classes/cat/a.jpg"):
        write(tmp_path / name, jpeg())
    write(tmp_path / "pairs" / "a.txt", "words")
    for path, kind in [
        ("a.csv", "table"),
        ("b.jsonl", "table"),
        ("c.parquet", "table"),
        ("d.TSV", "table"),
        ("e.json", "coco"),
        ("tars", "shards"),
        ("tars/*.tar", "shards"),
        ("tars/{0..5}.tar", "shards"),
        ("one", "table"),
        ("pairs", "sidecar"),
        ("classes", "folder"),
    ]:
        config = ImageTextConfig(path=str(tmp_path / path)).config()
        assert to_dict(config)["kind"] == kind, path
        assert to_dict(config)["path"].startswith(str(tmp_path / path).partition("{")[0])
    for url in ("https://host/{0..3}.tar", "s3://bucket/a.tar"):
        assert to_dict(ImageTextConfig(path=url).config())["kind"] == "stream"


def test_it_is_a_source(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", [("1.jpg", jpeg()), ("1.txt", "words")])
    source = load(SourceConfig, {"kind": "image_text", "path": f"{tmp_path}/*.tar"}).build()
    assert source[0]["captions"] == ["words"]


def test_mistakes(tmp_path: Path) -> None:
    write(tmp_path / "notes.md", "")
    for name in ("a.csv", "b.csv"):
        write(tmp_path / "two" / name, "")
    (tmp_path / "empty").mkdir()
    for path, said in [
        ("notes.md", "neither tars, nor a table"),
        ("note.md", "no such file; did you mean 'notes.md'"),
        ("two", "holds several tables; name one of a.csv, b.csv"),
        ("empty", "holds no picture, table or tar"),
        ("none.tar", "no such tar"),
    ]:
        with pytest.raises(ValueError, match=said):
            ImageTextConfig(path=str(tmp_path / path)).build()


def test_every_kind_round_trips() -> None:
    assert {"folder", "sidecar", "table", "coco", "shards", "stream", "image_text"} <= set(kinds(SourceConfig))
    for given in (
        {"kind": "folder", "path": "x", "class_names": ["a"]},
        {"kind": "folder", "path": "x", "class_names": "names.txt"},
        {"kind": "sidecar", "path": "x"},
        {"kind": "table", "path": "x.csv", "caption_columns": ["a", "b"], "root": "r"},
        {"kind": "coco", "path": "x.json"},
        {"kind": "shards", "path": ["a.tar", "b.tar"], "class_names": "names.json"},
        {"kind": "stream", "path": "https://h/a.tar", "examples": 5},
        {"kind": "image_text", "path": "x"},
    ):
        config = load(SourceConfig, given)
        assert load(SourceConfig, to_dict(config)) == config
        assert given.items() <= to_dict(config).items()


def test_real_folders() -> None:
    assert len(ImageTextConfig(path=str(shared("coco-mini") / "captions_val2017.json")).build()) == 79
    assert len(ImageTextConfig(path=str(shared("photos") / "train.csv")).build()) == 800
    assert len(ImageTextConfig(path=str(shared("cifar10"))).build()) == 12_000
