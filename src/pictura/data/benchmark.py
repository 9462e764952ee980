"""`benchmark`: a data set of CLIP_benchmark, which has those of ELEVATER, VTAB and others as WebDataset tars.

Its layout (github.com/LAION-AI/CLIP_benchmark, datasets/builder.py, build_wds_dataset): classnames.txt,
zeroshot_classification_templates.txt and dataset_type.txt, and a folder for each part with nshards.txt, 0.tar, 1.tar, …
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pictura.data.imagenet import told_apart
from pictura.data.official import brief
from pictura.data.patterns import MAX_NAMES
from pictura.data.shards import Shards, ShardsConfig
from pictura.data.source import SourceConfig, existing, shown

TEMPLATES = "zeroshot_classification_templates.txt"


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(SourceConfig):
    """`path`: the folder with classnames.txt in it, such as wds_food101; part: the folder of tars in it, test or train.

    Sets for retrieval give captions, all others a label. Of ImageNet's two pairs of classes with one name, one has the
    other word that it has in kind `imagenet`; CLIP_benchmark asks for both by the same.
    """

    kind: ClassVar[str] = "benchmark"
    path: Path
    part: str = "test"

    def build(self) -> "Benchmark":
        return Benchmark(self)


class Benchmark(Shards):
    """The examples of the part's tars; the number in `cls` is a line of classnames.txt, from 0."""

    def __init__(self, config: BenchmarkConfig) -> None:
        path = existing(config.path, "folder")
        sort = "".join(_lines(path / "dataset_type.txt")).lower() if (path / "dataset_type.txt").exists() else ""
        if sort not in ("", "classification", "retrieval"):
            can = "classification and retrieval can be read"
            raise ValueError(f"{path}: dataset_type.txt says {brief(shown(sort))}; {can}")
        tars = _tars(existing(path / config.part, "folder"))
        if sort == "retrieval":
            super().__init__(ShardsConfig(path=tars))
            if "captions" not in self.provides:
                raise ValueError(f"{path / config.part}: is for retrieval, but no example has captions, a part `txt`")
            return
        names = told_apart(_lines(path / "classnames.txt"))
        super().__init__(ShardsConfig(path=tars, captions=[], label="cls"))
        if self.class_names:  # words: `cls` is a number in this layout, and a name that is a number is still a name
            has = f"has {brief(shown(self.class_names[-1]))}"
            raise ValueError(f"{path / config.part}: `cls` should hold a line number of classnames.txt, and {has}")
        if self.least_classes > len(names):
            raise ValueError(f"{path}: a label is {self.least_classes - 1}, and classnames.txt has {len(names)} lines")
        self.class_names = names


def templates(path: Path | str) -> tuple[str, ...]:
    """The sentences of a data set's folder, or of such a file, with {} where the file has {c}. ValueError for one
    without it."""
    path = Path(path).expanduser()
    path = path / TEMPLATES if path.is_dir() else path
    lines = _lines(path)
    for number, line in enumerate(lines, 1):
        if "{c}" not in line:
            raise ValueError(f"{path}:{number}: {brief(shown(line))} has no {{c}} where the class name goes")
    return tuple(line.replace("{c}", "{}") for line in lines)


def _tars(folder: Path) -> list[str]:
    """As many tars as nshards.txt says, so that one that is missing is found out; all of them where there is none."""
    if not (folder / "nshards.txt").exists():
        return [str(folder)]
    text = " ".join(_lines(folder / "nshards.txt"))
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= MAX_NAMES):
        raise ValueError(f"{folder / 'nshards.txt'}: {brief(shown(text))} is no number of tars")
    return [str(folder / f"{number}.tar") for number in range(int(text[:9]))]


def _lines(path: Path) -> tuple[str, ...]:
    """The lines of a small text file; an empty one inside counts, so that the others keep their numbers."""
    text = existing(path, "file").read_text(encoding="utf-8-sig", errors="replace").rstrip()
    return tuple(line.strip() for line in text.split("\n")) if text else ()
