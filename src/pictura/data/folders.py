"""`folder`: one folder per class, pictures inside, at any depth: the layout of ImageNet and of most people's own
collections."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from pictura.data.source import (
    PICTURE_SUFFIXES,
    Classes,
    Example,
    Source,
    SourceConfig,
    Strings,
    did_you_mean,
    existing,
    read_file,
    shown,
    under,
)


@dataclass(frozen=True, kw_only=True)
class FolderConfig(SourceConfig):
    """`path/class/…/picture.jpg`; the classes are the folders' names, sorted.

    class_names: another order, or words for folders named by codes: a list, or a file as `Classes.of` reads it. Give
    the training set's names to a test set that lacks some classes.
    outside_links: follow links that lead outside `path`. Off, because an unpacked stranger's archive may hold any
    link.
    """

    kind: ClassVar[str] = "folder"
    path: Path
    class_names: list[str] | Path | None = None
    outside_links: bool = False

    def build(self) -> "Folder":
        return Folder(self)


class Folder(Source):
    """Pictures with the label of the folder that they lie in. What lies there may be files of another sort."""

    provides = frozenset({"image", "label"})
    what: ClassVar[str] = "picture"
    suffixes: ClassVar[frozenset[str]] = PICTURE_SUFFIXES
    unsorted: ClassVar[str] = "; try `kind: sidecar`, or `kind: pictures` without labels"

    def __init__(self, config: FolderConfig) -> None:
        path = existing(config.path, "folder")
        self._root = os.path.realpath(path)
        self._links = config.outside_links
        folders = sorted(e.name for e in os.scandir(path) if e.is_dir() and not e.name.startswith("."))
        classes = Classes.of(config.class_names or folders, folders)
        names: list[str] = []
        labels: list[int] = []
        for folder in folders:
            if folder not in classes.index:
                raise ValueError(
                    f"class_names: no name for the folder {folder!r} in {path}{did_you_mean(folder, classes.index)}"
                )
            found = list(self._under(folder))
            names += found
            labels += [classes.index[folder]] * len(found)
        if not names:
            loose = f"it holds {self.what}s without class folders{self.unsorted}"
            hint = loose if next(self._under(""), None) else f"it holds no {self.what}"
            raise ValueError(f"{path}: a folder with one folder of {self.what}s per class is needed, but {hint}")
        self.class_names = classes.names
        self._names = Strings(names)
        self._labels = np.array(labels, dtype=np.int64)

    def _under(self, folder: str) -> Iterator[str]:
        return pictures_under(self._root, folder, outside_links=self._links, suffixes=self.suffixes)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Example:
        key, image = read_picture(self._root, self._names[index], outside_links=self._links)
        return {"key": key, "image": image, "label": int(self._labels[index])}


def pictures_under(
    root: str, folder: str, *, outside_links: bool, suffixes: frozenset[str] = PICTURE_SUFFIXES
) -> Iterator[str]:
    """The pictures in root/folder by name, relative to `root`, in sorted order, hidden ones left out. `folder` itself
    may be a link; folders linked further down are not followed, so nothing goes round in circles."""
    top = os.path.join(root, folder)
    if not outside_links and os.path.commonpath([root, os.path.realpath(top)]) != root:
        raise ValueError(f"{top}: is a link that leads outside {root}; set outside_links: true if you trust it")
    for parent, folders, files in os.walk(top, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        for name in sorted(files):
            if name.rpartition(".")[2].lower() in suffixes and not name.startswith("."):
                yield os.path.relpath(os.path.join(parent, name), root)


def _refuse(error: OSError) -> None:
    raise ValueError(f"{error.filename}: cannot be listed: {error.strerror}") from error


def read_picture(root: str, name: str, *, outside_links: bool = False) -> tuple[str, bytes]:
    """The key of the picture that a listing of `root` (a real path) calls `name`, and its bytes."""
    key = shown(os.path.join(root, name))
    return key, read_file(os.path.join(root, name) if outside_links else under(root, name), key)
