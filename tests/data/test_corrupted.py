import io
import pickle
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pictura.config import load
from pictura.data.corrupted import Corrupted, CorruptedConfig
from pictura.data.corruptions import corrupt
from pictura.data.randomness import random_generator
from pictura.data.scenes import ScenesConfig
from pictura.data.source import BadSample, Example, Source, SourceConfig
from tests.data.test_coco_objects import federated

SCENES = ScenesConfig(objects=(1, 1), gives=("image", "label", "captions"), image_size=48, count=6)


class Files(Source):
    """Encoded pictures: a photograph on its side, a grey one, and one that is none."""

    provides = frozenset({"image", "captions"})

    def __init__(self) -> None:
        self.files: Sequence[bytes] = (encoded("RGB", 6), encoded("L", 1), b"<html>")

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Example:
        return Example(key=f"file {index}", image=self.files[index], captions=[f"caption {index}"])


def encoded(mode: str, orientation: int) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).convert(mode)
    image.save(file, "PNG", exif=exif)
    return file.getvalue()


def test_pictures_are_corrupted_and_all_else_is_as_it_was() -> None:
    plain, source = SCENES.build(), CorruptedConfig(of=SCENES, corruption="fog", severity=4, seed=5).build()
    assert (len(source), source.provides, source.class_names) == (6, plain.provides, plain.class_names)
    for i in range(6):
        expected = corrupt(np.asarray(plain[i]["image"]), "fog", 4, random_generator(5, 0, i, "fog"))
        assert np.array_equal(source[i]["image"], expected)
        assert {**source[i], "image": 0} == {**plain[i], "image": 0}
    assert list(source.all_captions()) == list(plain.all_captions()) and source.captions(2) == plain.captions(2)


def test_pixels_are_a_function_of_seed_and_index() -> None:
    config = CorruptedConfig(of=SCENES, corruption="gaussian_noise", severity=1)
    source, again = config.build(), pickle.loads(pickle.dumps(config.build()))
    backwards = [again[i]["image"] for i in reversed(range(6))][::-1]
    assert all(np.array_equal(source[i]["image"], backwards[i]) for i in range(6))
    other = replace(config, seed=1).build()
    assert not np.array_equal(source[0]["image"], other[0]["image"])
    flat = [np.asarray(source[i]["image"], int) - np.asarray(SCENES.build()[i]["image"], int) for i in (0, 1)]
    assert not np.array_equal(*flat), "each has its own noise"


def test_files_come_out_upright_and_in_colour() -> None:
    source = Corrupted(Files(), "pixelate", 5)
    assert np.asarray(source[0]["image"]).shape == (30, 20, 3), "turned as its EXIF says"
    assert np.asarray(source[1]["image"]).shape == (20, 30, 3)
    with pytest.raises(BadSample, match=r"file 2: .*HTML"):
        source[2]
    assert source.captions(2) == ["caption 2"], "not read for it"


def test_boxes_stay(tmp_path) -> None:  # type: ignore[no-untyped-def]
    plain = federated(tmp_path)
    source = Corrupted(plain, "contrast")
    assert source.federated and source.objects is not None and source.image_ids == plain.image_ids
    assert np.array_equal(source.objects(0)["boxes"], plain.objects(0)["boxes"])


def test_a_recipe_names_it_by_kind_and_mistakes_are_named() -> None:
    words = {"kind": "corrupted", "of": {"kind": "scenes", "count": 2}, "corruption": "snow", "severity": 2, "seed": 3}
    assert load(SourceConfig, words) == CorruptedConfig(of=ScenesConfig(count=2), corruption="snow", severity=2, seed=3)
    with pytest.raises(ValueError, match="corruption: there is no 'snoww'; did you mean 'snow'"):
        load(SourceConfig, words | {"corruption": "snoww"})
    with pytest.raises(ValueError, match="severity: 6 must be"):
        load(SourceConfig, words | {"severity": 6})
    with pytest.raises(ValueError, match="has no pictures"):
        CorruptedConfig(of=ScenesConfig(gives=("captions",)), corruption="snow").build()
