import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pictura.config import load
from pictura.data.decode import decode
from pictura.data.source import BadSample, SourceConfig


def drawn(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 6, 3), level, np.uint8)).save(path)


def test_all_pictures_at_any_depth_in_order(tmp_path: Path) -> None:
    for level, name in enumerate(("b.png", "a/deep/x.png", "a/c.png", ".hidden/no.png")):
        drawn(tmp_path / name, level)
    (tmp_path / "notes.txt").write_text("no picture")
    source = load(SourceConfig, {"kind": "pictures", "path": str(tmp_path)}).build()
    assert source.provides == {"image"} and not source.class_names
    assert [os.path.relpath(source[i]["key"], tmp_path) for i in range(len(source))] == [
        "b.png",
        "a/c.png",
        "a/deep/x.png",
    ]
    assert [int(np.asarray(decode(source[i]["image"]))[0, 0, 0]) for i in range(3)] == [0, 2, 1]


def test_a_picture_that_is_gone_is_a_bad_sample(tmp_path: Path) -> None:
    drawn(tmp_path / "a.png", 1)
    source = load(SourceConfig, {"kind": "pictures", "path": str(tmp_path)}).build()
    (tmp_path / "a.png").unlink()
    with pytest.raises(BadSample, match=r"a\.png"):
        source[0]


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no picture"):
        load(SourceConfig, {"kind": "pictures", "path": str(tmp_path)}).build()
    with pytest.raises(ValueError, match="no such"):
        load(SourceConfig, {"kind": "pictures", "path": str(tmp_path / "nowhere")}).build()


def test_links_that_lead_outside_are_not_followed(tmp_path: Path) -> None:
    drawn(tmp_path / "elsewhere" / "secret.png", 1)
    drawn(tmp_path / "mine" / "a.png", 1)
    (tmp_path / "mine" / "link.png").symlink_to(tmp_path / "elsewhere" / "secret.png")
    source = load(SourceConfig, {"kind": "pictures", "path": str(tmp_path / "mine")}).build()
    with pytest.raises(BadSample):
        source[1]
    trusted = load(SourceConfig, {"kind": "pictures", "path": str(tmp_path / "mine"), "outside_links": True}).build()
    assert trusted[1]["image"]
