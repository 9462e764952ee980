"""`imagenet`: ImageNet and its children, as published, with the names by which CLIP asks for their classes.

ILSVRC 2012, Russakovsky et al. 2015; V2, Recht et al. 2019; -R, Hendrycks et al. 2021, arXiv:2006.16241; -A, Hendrycks
et al. 2021, arXiv:1907.07174; Sketch, Wang et al. 2019. The names: Radford et al. 2021, section 3.1.4.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from pictura.data.folders import pictures_under, read_picture
from pictura.data.official import brief
from pictura.data.source import BadSample, Example, Source, SourceConfig, Strings, did_you_mean, existing, shown

CLASSES = resources.files("pictura") / "data" / "imagenet.txt"
TITLES = {
    "imagenet": "ImageNet",
    "v2": "ImageNet-V2",
    "r": "ImageNet-R",
    "a": "ImageNet-A",
    "sketch": "ImageNet-Sketch",
}
# CLIP's list calls two classes "missile" and two "sunglasses". WordNet has another word for the first of each.
_TOLD_APART = {"n04008634": "projectile", "n04355933": "sunglass"}


@dataclass(frozen=True, kw_only=True)
class ImageNetConfig(SourceConfig):
    """`path`: the folder that holds the class folders of ImageNet's training or validation pictures, or of another set.

    set: `imagenet` and `sketch` have folders n01440764, …, `v2` 0 to 999; `r` and `a` have 200 of the 1,000 classes,
        and are asked for among these. Classes without pictures are still among the answers.
    truth: LOC_val_solution.csv of Kaggle's copy, where validation pictures lie in one folder without class folders.
    outside_links: follow links that lead outside `path`.
    """

    kind: ClassVar[str] = "imagenet"
    path: Path
    set: Literal["imagenet", "v2", "r", "a", "sketch"] = "imagenet"
    truth: Path | None = None
    outside_links: bool = False

    def __post_init__(self) -> None:
        if self.truth is not None and self.set != "imagenet":
            raise ValueError(f"truth: {TITLES[self.set]} is published in class folders, and needs no {self.truth}")

    def build(self) -> "ImageNet":
        return ImageNet(self)


class ImageNet(Source):
    """Pictures with labels in ImageNet's order, class after class, or with `truth` in the order of the files."""

    provides = frozenset({"image", "label"})

    def __init__(self, config: ImageNetConfig) -> None:
        path = existing(config.path, "folder")
        self._root, self._links = os.path.realpath(path), config.outside_links
        wnids, self.class_names = classes(config.set)
        index = {str(i) if config.set == "v2" else wnid: i for i, wnid in enumerate(wnids)}
        bad: list[BadSample] = []
        labelled = self._foldered(path, index, config.set)
        if config.truth is not None:
            labelled = self._listed(path, index, existing(config.truth, "file"), bad)
        names, labels = list[str](), list[int]()
        for name, label in labelled:
            names.append(name)
            labels.append(label)
        if not names:
            raise ValueError(f"{path}: no picture of {TITLES[config.set]} is in it{self._hint(config)}")
        self.bad = bad
        self._names, self._labels = Strings(names), np.array(labels, dtype=np.int64)

    def _foldered(self, path: Path, index: dict[str, int], which: str) -> Iterator[tuple[str, int]]:
        folders = [e.name for e in os.scandir(path) if e.is_dir() and not e.name.startswith((".", "__"))]
        if strange := min((folder for folder in folders if folder not in index), default=None):
            raise ValueError(f"{path}: {brief(shown(strange))} is none of the {len(index):,} classes of {TITLES[which]}"
                             f"{_way_out(path, strange, index)}")  # fmt: skip
        for folder in sorted(folders, key=index.__getitem__):
            for name in pictures_under(self._root, folder, outside_links=self._links):
                yield name, index[folder]

    def _listed(
        self, path: Path, index: dict[str, int], truth: Path, bad: list[BadSample]
    ) -> Iterator[tuple[str, int]]:
        known = _truth(truth, index)
        for name in pictures_under(self._root, "", outside_links=self._links):
            label = known.get(Path(name).stem)
            if label is not None:
                yield name, label
            else:
                bad.append(BadSample(os.path.join(path, name), f"{truth.name} does not have it"))

    def _hint(self, config: ImageNetConfig) -> str:
        loose = next(pictures_under(self._root, "", outside_links=self._links), None)
        if loose is None:
            return "; the class folders with their pictures are needed"
        if config.truth is not None:
            return f"; {config.truth} does not have {os.path.basename(loose)}"
        named = "; with Kaggle's copy, give its LOC_val_solution.csv as `truth`"
        return f": {os.path.basename(loose)} lies in no class folder{named if config.set == 'imagenet' else ''}"

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Example:
        key, image = read_picture(self._root, self._names[index], outside_links=self._links)
        return {"key": key, "image": image, "label": int(self._labels[index])}


def classes(which: str = "imagenet") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The WordNet ids of a set's classes in order, and what to call them: CLIP's names, no two of them alike."""
    rows = listed()
    if which in ("r", "a"):
        rows = [row for row in rows if which in row[1]]
    uses = Counter(name for _, _, name in rows)
    names = (_TOLD_APART.get(wnid, name) if uses[name] > 1 else name for wnid, _, name in rows)
    return tuple(wnid for wnid, _, _ in rows), tuple(names)


def told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """The names of the 1,000 classes in order, where they are CLIP's with other words for what it calls by one name;
    any others as they are."""
    uses, rows = Counter(names), listed()
    if len(names) != len(rows):
        return tuple(names)
    both = zip(rows, names, strict=True)
    return tuple(
        _TOLD_APART.get(wnid, name) if uses[name] > 1 and name == own else name for (wnid, _, own), name in both
    )


def listed() -> list[tuple[str, str, str]]:
    """WordNet id, letters of the smaller sets (r, a) or -, and CLIP's name, of each of the 1,000 classes in order."""
    lines = CLASSES.read_text(encoding="utf-8").splitlines()
    rows = [line.split(" ", 2) for line in lines if not line.startswith("#")]
    return [(wnid, sets, name) for wnid, sets, name in rows]


def _truth(path: Path, index: dict[str, int]) -> dict[str, int]:
    """The label of each picture, by the file's name without its ending. A line is `name,wnid x0 y0 x1 y1 …`."""
    known: dict[str, int] = {}
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            name, _, rest = line.strip().partition(",")
            wnid = next(iter(rest.split()), "")
            if wnid in index:
                known[name] = index[wnid]
            elif line.strip() and name != "ImageId":
                # The development kit numbers classes in an order of its own, which nothing in its text file tells.
                why = "should be a picture's name, a comma, and the WordNet id of its class"
                raise ValueError(
                    f"truth: {path}:{number}: {brief(shown(line.strip()))} {why}; try LOC_val_solution.csv"
                )
    return known


def _way_out(path: Path, strange: str, index: dict[str, int]) -> str:
    """The end of the message about a folder that is no class."""
    if strange in classes()[0]:
        return "; it is one of the 1,000 of `set: imagenet`"
    if strange.isascii() and strange.isdigit() and int(strange[:9]) < 1000:
        return "; if this is ImageNet-V2, say `set: v2`"
    if any(name in index for name in os.listdir(path / strange)):
        return f"; it holds class folders: try path: {path / strange}"
    return did_you_mean(strange, index)
