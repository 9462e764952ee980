import json
from pathlib import Path
from typing import Any

import pytest

from pictura.config import load
from pictura.data.decode import decode
from pictura.data.karpathy import KarpathyConfig
from pictura.data.source import BadSample, SourceConfig
from tests.data.files import jpeg, shared, write


def entry(number: int, split: str = "train", folder: str | None = "val2014", captions: int = 2) -> dict[str, Any]:
    """One picture as dataset_coco.json has it; without `folder`, as dataset_flickr30k.json."""
    texts = [f"caption {k} of {number}." for k in range(captions)]
    sentences = [
        {"tokens": text[:-1].split(), "raw": text, "imgid": number, "sentid": 9 * number + k}
        for k, text in enumerate(texts)
    ]
    one = {"sentids": [s["sentid"] for s in sentences], "imgid": number, "sentences": sentences, "split": split}
    if folder is None:
        return one | {"filename": f"{number}.jpg"}
    return one | {"filepath": folder, "filename": f"COCO_{folder}_{number:012d}.jpg", "cocoid": number}


def dataset(path: Path, entries: list[Any], name: str = "coco") -> Path:
    return write(path, json.dumps({"images": entries, "dataset": name}))


COCO = [entry(3, "test"), entry(5, "restval"), entry(4, "val"), entry(8, folder="train2014", captions=5)]


@pytest.mark.parametrize("place", ["", "images/"])
def test_the_training_pictures_of_coco(tmp_path: Path, place: str) -> None:
    path = dataset(tmp_path / "dataset_coco.json", COCO)
    write(tmp_path / f"{place}val2014/COCO_val2014_000000000005.jpg", jpeg(5))
    last = write(tmp_path / f"{place}train2014/COCO_train2014_000000000008.jpg", jpeg(8))
    source = load(SourceConfig, {"kind": "karpathy", "path": str(path)}).build()
    assert source.provides == {"image", "captions"}
    assert len(source) == 2
    assert (source[0]["image"], source[0]["captions"]) == (jpeg(5), ["caption 0 of 5.", "caption 1 of 5."])
    assert source[1] == {"key": str(last), "image": jpeg(8), "captions": [f"caption {k} of 8." for k in range(5)]}
    assert source.captions(-1) == source[1]["captions"]
    assert len(list(source.all_captions())) == 7
    assert not source.bad


def test_the_release_of_2017_has_the_same_pictures_by_other_names(tmp_path: Path) -> None:
    path = dataset(tmp_path / "dataset_coco.json", COCO)
    write(tmp_path / "else" / "train2017" / "000000000005.jpg", jpeg(5))
    write(tmp_path / "other" / "000000000008.jpg", jpeg(8))
    source = KarpathyConfig(path=path, images=[tmp_path / "else", tmp_path / "other"]).build()
    assert [source[0]["image"], source[1]["image"]] == [jpeg(5), jpeg(8)]


def test_flickr_has_no_folders_and_no_restval(tmp_path: Path) -> None:
    entries = [entry(1, folder=None), entry(2, "test", folder=None), entry(3, "val", folder=None)]
    path = dataset(tmp_path / "dataset_flickr30k.json", entries, "flickr30k")
    for number in (1, 2, 3):
        write(tmp_path / "flickr30k-images" / f"{number}.jpg", jpeg(number))
    assert [KarpathyConfig(path=path).build()[0]["image"]] == [jpeg(1)]
    chosen = load(SourceConfig, {"kind": "karpathy", "path": str(path), "splits": ["test", "val"]}).build()
    assert [chosen[0]["image"], chosen[1]["image"]] == [jpeg(2), jpeg(3)]
    with pytest.raises(ValueError, match="no usable picture in the splits restval; its splits are test, train, val"):
        KarpathyConfig(path=path, splits=("restval",)).build()


def test_a_split_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none is chosen; there are train, restval, val, test"):
        KarpathyConfig(path=tmp_path, splits=())
    with pytest.raises(ValueError, match="splits"):
        load(SourceConfig, {"kind": "karpathy", "path": "x.json", "splits": ["trian"]})


def test_bad_entries_are_named(tmp_path: Path) -> None:
    good = entry(8, folder=None)
    entries = [
        good,
        good,
        good | {"filename": "2.jpg", "split": "dev"},
        good | {"filename": "2.jpg", "split": [[["train"]]]},
        good | {"filename": 2},
        good | {"filename": ""},
        good | {"filename": "2.jpg", "filepath": 7},
        good | {"filename": "/etc/passwd"},
        good | {"filename": "2.jpg", "filepath": "/etc"},
        good | {"filename": "2.jpg", "sentences": []},
        good | {"filename": "2.jpg", "sentences": "a dog"},
        good | {"filename": "2.jpg", "sentences": [{"raw": 5, "tokens": []}, {"tokens": []}, None]},
        good | {"filename": "2.jpg", "sentences": [{"raw": " "}]},
        "x",
        None,
        {},
    ]
    path = dataset(tmp_path / "d.json", entries)
    write(tmp_path / "8.jpg", jpeg())
    source = KarpathyConfig(path=path).build()
    assert len(source) == 1
    found = {str(bad).removeprefix(f"{path}: ") for bad in source.bad}
    assert found == {
        "images[1]: 8.jpg is there already",
        "images[2]: split 'dev' is none of train, restval, val, test",
        "images[3]: split a list is none of train, restval, val, test",
        "images[4]: names no picture",
        "images[5]: names no picture",
        "images[6]: names no picture",
        "images[7]: /etc/passwd leads outside the pictures' folder",
        "images[8]: /etc/2.jpg leads outside the pictures' folder",
        *(f"images[{number}]: no caption" for number in (9, 10, 11)),
        "images[12]: empty caption",
        "images[13]: not a JSON object",
        "images[14]: not a JSON object",
        "images[15]: split None is none of train, restval, val, test",
    }


def test_a_strangers_names_do_not_leave_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "secret.jpg", jpeg())
    write(tmp_path / "in" / "1.jpg", jpeg(1))
    first, outside, missing = entry(1, folder=None), entry(2, folder=None), entry(3, folder=None)
    outside |= {"filepath": "..", "filename": "secret.jpg"}
    path = dataset(tmp_path / "d.json", [first, outside, missing])
    source = KarpathyConfig(path=path, images=tmp_path / "in").build()
    assert source[0]["image"] == jpeg(1)
    with pytest.raises(BadSample, match="leads outside"):
        source[1]
    with pytest.raises(BadSample, match=r"3\.jpg: no such file"):
        source[2]


def test_mistakes(tmp_path: Path) -> None:
    for content, said in [
        ("{", "cannot be read as JSON"),
        ('{"raw": "a dog"}', "should be a dataset_"),
        ('{"images": []}', "no usable picture in the splits train, restval; for example it is empty"),
        ('{"images": [3]}', r"for example .*images\[0\]: not a JSON object"),
    ]:
        with pytest.raises(ValueError, match=said):
            KarpathyConfig(path=write(tmp_path / "d.json", content)).build()
    with pytest.raises(ValueError, match=r"no picture such as 'val2014/COCO_val2014_000000000005\.jpg' in"):
        KarpathyConfig(path=dataset(tmp_path / "d.json", COCO)).build()


def test_real_pictures_of_coco(tmp_path: Path) -> None:
    folder = shared("coco-mini")
    numbers = sorted(int(path.stem) for path in (folder / "train2017").iterdir())[:5]
    path = dataset(tmp_path / "dataset_coco.json", [entry(number, folder="train2014") for number in numbers])
    source = KarpathyConfig(path=path, images=folder).build()
    assert len(source) == 5
    assert all(min(decode(source[index]["image"]).size) > 100 for index in range(5))
