"""`sidecar`: pictures with a text file of the same name beside each: `cat.jpg` and `cat.txt`, one caption a line."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pictura.data.decode import MAX_CAPTION, caption_lines
from pictura.data.folders import pictures_under, read_picture
from pictura.data.source import BadSample, Example, Source, SourceConfig, Strings, existing, read_file, under


@dataclass(frozen=True, kw_only=True)
class SidecarConfig(SourceConfig):
    """Every picture under `path`, at any depth, that has a .txt beside it. `outside_links` as in `folder`."""

    kind: ClassVar[str] = "sidecar"
    path: Path
    outside_links: bool = False

    def build(self) -> "Sidecar":
        return Sidecar(self)


class Sidecar(Source):
    """Pictures with the captions in the text files beside them; a picture without one is in `bad`."""

    provides = frozenset({"image", "captions"})

    def __init__(self, config: SidecarConfig) -> None:
        path = existing(config.path, "folder")
        self._root = os.path.realpath(path)
        self._links = config.outside_links
        pictures = list(pictures_under(self._root, "", outside_links=True))
        if not pictures:
            raise ValueError(f"{path}: holds no picture")
        names, self.bad = [], []
        for name in pictures:
            text = _text_of(name)
            if os.path.lexists(os.path.join(self._root, text)):
                names.append(name)
            else:
                self.bad.append(BadSample(os.path.join(self._root, name), f"no {os.path.basename(text)} beside it"))
        if not names:
            raise ValueError(
                f"{path}: none of its {len(pictures):,} pictures has a .txt beside it ({_text_of(pictures[0])}, …); "
                "a folder per class is `kind: folder`, captions in a table are `kind: table`"
            )
        self._names = Strings(names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Example:
        captions = self.captions(index)
        key, image = read_picture(self._root, self._names[index], outside_links=self._links)
        return {"key": key, "image": image, "captions": captions}

    def captions(self, index: int) -> list[str]:
        name = _text_of(self._names[index])
        path = os.path.join(self._root, name) if self._links else under(self._root, name)
        key = os.path.join(self._root, name)
        return caption_lines(read_file(path, key, limit=64 * MAX_CAPTION), key)


def _text_of(picture: str) -> str:
    return picture.rpartition(".")[0] + ".txt"
