"""`image_text`: a path, and the right source for it."""

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pictura.data.coco import CocoConfig
from pictura.data.folders import FolderConfig, pictures_under
from pictura.data.shards import ShardsConfig
from pictura.data.sidecar import SidecarConfig
from pictura.data.source import Source, SourceConfig, existing
from pictura.data.stream import StreamConfig
from pictura.data.table import TableConfig

_TABLES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".parquet", ".pq")


@dataclass(frozen=True, kw_only=True)
class ImageTextConfig(SourceConfig):
    """`path`: tars (pattern, folder of tars, https://…), a table, COCO captions, a folder with one table in it, a
    folder of pictures with .txt beside them, or a folder per class. For anything but the usual names inside, choose
    that `kind` and set them."""

    kind: ClassVar[str] = "image_text"
    path: str

    def config(self) -> SourceConfig:
        """The configuration that this one stands for."""
        if "://" in self.path:
            return StreamConfig(path=self.path)
        if self.path.endswith((".tar", ".tar.gz", ".tgz")):
            return ShardsConfig(path=self.path)
        path = Path(self.path).expanduser()
        if path.is_dir():
            return _in_folder(path)
        path = existing(path, "file")
        if path.suffix.lower() in _TABLES:
            return TableConfig(path=path)
        if path.suffix.lower() == ".json":
            return CocoConfig(path=path)
        raise ValueError(f"{path}: neither tars, nor a table ({', '.join(_TABLES)}), nor COCO's .json, nor a folder")

    def build(self) -> Source:
        return self.config().build()


def _in_folder(path: Path) -> SourceConfig:
    names = sorted(os.listdir(path))
    if any(name.endswith(".tar") for name in names):
        return ShardsConfig(path=str(path))
    tables = [name for name in names if Path(name).suffix.lower() in _TABLES]
    if len(tables) == 1:
        return TableConfig(path=path / tables[0])
    if tables:
        raise ValueError(f"{path}: holds several tables; name one of {', '.join(tables[:8])}")
    pictures = list(itertools.islice(pictures_under(os.path.realpath(path), "", outside_links=True), 1000))
    if not pictures:
        raise ValueError(f"{path}: holds no picture, table or tar")
    worded = any((path / picture).with_suffix(".txt").exists() for picture in pictures)
    return SidecarConfig(path=path) if worded else FolderConfig(path=path)
