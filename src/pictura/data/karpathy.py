"""`karpathy`: the splits of COCO, Flickr30k and Flickr8k (dataset_coco.json and its like) that nearly all papers on
image-text retrieval use. Karpathy and Fei-Fei, arXiv:1412.2306."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from pictura.data.decode import clean_captions
from pictura.data.official import COCO_FOLDERS, brief, entries, find_picture, picture_folders, read_list
from pictura.data.source import BadSample, Example, Source, SourceConfig, Strings, existing, read_file, shown

Split = Literal["train", "restval", "val", "test"]
_BESIDE = (".", "images", "..", "../images", "../Images/mscoco")
_FOLDERS = (*COCO_FOLDERS, "flickr30k-images", "flickr30k_images", "Flicker8k_Dataset", "Flickr8k_Dataset")


@dataclass(frozen=True, kw_only=True)
class KarpathyConfig(SourceConfig):
    """`path`: dataset_coco.json or the like. `images`: the folder of the pictures, or of their folders (train2014,
    val2014, or train2017, val2017; flickr30k-images); several may be given; if none, looked for beside the file.

    splits: `restval` is what COCO's own validation pictures have left over, trained on by nearly everybody. Choose
    models on `val`. What many papers and released codes call "val" of COCO or Flickr30k retrieval is in truth `test`:
    a model chosen on it has seen its own examination, and its numbers there mean little.
    """

    kind: ClassVar[str] = "karpathy"
    path: Path
    images: Path | list[Path] | None = None
    splits: tuple[Split, ...] = ("train", "restval")

    def __post_init__(self) -> None:
        if not self.splits:
            raise ValueError(f"splits: none is chosen; there are {', '.join(get_args(Split))}")

    def build(self) -> "Karpathy":
        return Karpathy(self)


class Karpathy(Source):
    """The pictures of the chosen splits with their (mostly five) captions, in the order of the file."""

    provides = frozenset({"image", "captions"})

    def __init__(self, config: KarpathyConfig) -> None:
        path = existing(config.path, "file")
        content = read_list(path, "images", "a dataset_*.json of Karpathy & Fei-Fei", _only_the_sentence)
        bad: list[BadSample] = []
        groups: dict[str, list[str]] = {}
        splits: set[str] = set()
        for where, entry in entries(path, "images", content, bad):
            try:
                split, name = _split(entry, where), _name(entry, where)
                splits.add(split)
                if split in config.splits:
                    if name in groups:
                        raise BadSample(where, f"{name} is there already")
                    groups[name] = _captions(entry, where)
            except BadSample as sample:
                bad.append(sample)
        if not groups:
            there = (
                f"its splits are {', '.join(sorted(splits))}" if splits else f"for example {[*bad, 'it is empty'][0]}"
            )
            raise ValueError(f"{path}: no usable picture in the splits {', '.join(config.splits)}; {there}")
        self.bad = bad
        self._names = Strings(groups)
        self._captions = Strings(caption for captions in groups.values() for caption in captions)
        self._ends = np.cumsum([0, *map(len, groups.values())])
        self._folders = picture_folders(path, config.images, _BESIDE, _FOLDERS, [_spellings(name) for name in groups])

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Example:
        name = self._names[index]
        path = find_picture(self._folders, _spellings(name), name)
        return {"key": shown(path), "image": read_file(path, shown(path)), "captions": self.captions(index)}

    def captions(self, index: int) -> list[str]:
        index = range(len(self))[index]
        return self._captions[int(self._ends[index]) : int(self._ends[index + 1])]


def _only_the_sentence(part: dict[str, Any]) -> Any:
    """Of a sentence with its tokens and numbers, the sentence."""
    return part["raw"] if "raw" in part and "sentences" not in part else part


def _split(entry: dict[str, Any], where: str) -> str:
    split = entry.get("split")
    if split not in get_args(Split):
        raise BadSample(where, f"split {brief(split)} is none of {', '.join(get_args(Split))}")
    return str(split)


def _name(entry: dict[str, Any], where: str) -> str:
    folder, name = entry.get("filepath", ""), entry.get("filename")
    if not isinstance(folder, str) or not isinstance(name, str) or not name:
        raise BadSample(where, "names no picture")
    name = os.path.join(folder, name)
    if os.path.isabs(name):
        raise BadSample(where, f"{name} leads outside the pictures' folder")
    return name


def _captions(entry: dict[str, Any], where: str) -> list[str]:
    sentences = entry.get("sentences")
    texts = [text for text in sentences if isinstance(text, str)] if isinstance(sentences, list) else []
    return clean_captions(texts, where)


def _spellings(name: str) -> list[str]:
    """val2014/COCO_val2014_000000391895.jpg, without the folder, and as COCO's release of 2017 calls it."""
    alone = os.path.basename(name)
    return list(dict.fromkeys([name, alone, alone.rpartition("_")[2] if alone.startswith("COCO_") else alone]))
