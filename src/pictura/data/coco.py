"""`coco`: captions in the JSON format of COCO (cocodataset.org, "Data format", section 5), pictures in a folder."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pictura.data.decode import clean_caption
from pictura.data.folders import read_picture
from pictura.data.source import BadSample, Example, Source, SourceConfig, Strings, existing


@dataclass(frozen=True, kw_only=True)
class CocoConfig(SourceConfig):
    """`path`: captions_train2017.json or the like. `images`: the folder of the pictures; if not given, looked for
    beside the file under the names that COCO uses (train2017/, images/train2017/, …)."""

    kind: ClassVar[str] = "coco"
    path: Path
    images: Path | None = None

    def build(self) -> "Coco":
        return Coco(self)


class Coco(Source):
    """Pictures with their captions, in the order of the file's `images`. Captions that are empty or name no picture
    are in `bad`."""

    provides = frozenset({"image", "captions"})

    def __init__(self, config: CocoConfig) -> None:
        path = existing(config.path, "file")
        content = read(path)
        bad: list[BadSample] = []
        captions: dict[Any, list[str]] = {}
        names: dict[Any, str] = {}
        for number, image in enumerate(content["images"]):
            if not isinstance(image, dict) or not isinstance(image.get("file_name"), str) or "id" not in image:
                bad.append(BadSample(f"{path}: images[{number}]", "has no id or no file_name"))
            elif image["id"] in names:
                bad.append(BadSample(f"{path}: images[{number}]", f"id {image['id']} is there already"))
            else:
                names[image["id"]], captions[image["id"]] = image["file_name"], []
        for number, note in enumerate(content["annotations"]):
            where = f"{path}: annotations[{number}]"
            if not isinstance(note, dict) or note.get("image_id") not in captions:
                bad.append(BadSample(where, "names no picture of the file"))
                continue
            try:
                text = note.get("caption")
                captions[note["image_id"]].append(clean_caption(text if isinstance(text, str) else "", where))
            except BadSample as empty:
                bad.append(empty)
        bad += [BadSample(names[image], "no caption") for image, texts in captions.items() if not texts]
        kept = {image: texts for image, texts in captions.items() if texts}
        if not kept:
            raise ValueError(
                f"{path}: holds no captioned picture; COCO's captions are in captions_*.json, not instances_*.json"
            )
        self.bad = bad
        self._names = Strings(names[image] for image in kept)
        self._captions = Strings(text for texts in kept.values() for text in texts)
        self._ends = np.cumsum([0, *(len(texts) for texts in kept.values())])
        self._root = os.path.realpath(images_folder(path, config.images, self._names[:: max(1, len(self) // 16)]))

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Example:
        key, image = read_picture(self._root, self._names[index])
        return {"key": key, "image": image, "captions": self.captions(index)}

    def captions(self, index: int) -> list[str]:
        index = range(len(self))[index]
        return self._captions[int(self._ends[index]) : int(self._ends[index + 1])]


def read(path: Path, shrink: Callable[[dict[str, Any]], Any] | None = None) -> Mapping[str, list[Any]]:
    """The JSON in `path`, sure to hold the lists `images` and `annotations`. `shrink` is shown every object as it is
    read, and gives what to keep in its place."""
    try:
        content = json.loads(path.read_bytes(), object_hook=shrink)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as JSON: {error}") from error
    if not (
        isinstance(content, dict) and all(isinstance(content.get(part), list) for part in ("images", "annotations"))
    ):
        raise ValueError(f"{path}: COCO's format is one JSON object with the lists `images` and `annotations`")
    return content


def images_folder(path: Path, given: Path | None, names: list[str], more: Sequence[str] = ()) -> Path:
    """The folder that holds at least one of some pictures of the file `path`; `more` are further ones to look in."""
    split = path.stem.rpartition("_")[2]
    beside = (split, f"images/{split}", "images", ".", f"../{split}", f"../images/{split}", "../images", *more)
    folders = [existing(given, "folder")] if given is not None else [path.parent / folder for folder in beside]
    for folder in folders:
        if any((folder / name).is_file() for name in names):
            return folder
    looked = ", ".join(os.path.normpath(folder) for folder in folders)
    raise ValueError(f"{path}: no picture such as {names[0]!r} in {looked}; set `images` to the pictures' folder")
