"""`pictures`: all pictures under a folder, at any depth, and nothing said about them: what SimCLR learns from."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pictura.data.folders import pictures_under, read_picture
from pictura.data.source import Example, Source, SourceConfig, Strings, existing


@dataclass(frozen=True, kw_only=True)
class PicturesConfig(SourceConfig):
    """outside_links: follow links that lead outside `path`; off, since an unpacked archive may hold any link."""

    kind: ClassVar[str] = "pictures"
    path: Path
    outside_links: bool = False

    def build(self) -> "AllPictures":
        return AllPictures(self)


class AllPictures(Source):
    """In the order of their names."""

    provides = frozenset({"image"})

    def __init__(self, config: PicturesConfig) -> None:
        path = existing(config.path, "folder")
        self._root, self._links = os.path.realpath(path), config.outside_links
        self._names = Strings(pictures_under(self._root, "", outside_links=self._links))
        if not len(self):
            raise ValueError(f"{path}: holds no picture")

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Example:
        key, image = read_picture(self._root, self._names[index], outside_links=self._links)
        return {"key": key, "image": image}
