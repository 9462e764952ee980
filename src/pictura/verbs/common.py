"""What verbs share: what they say, how they show it, and how they read what they are given.

Results go to stdout, progress and messages to stderr; with `--json` stdout has one JSON object and nothing else.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Answer = Mapping[str, Any]


def reads_model(p: argparse.ArgumentParser) -> None:
    """An argument `model`."""
    p.add_argument("model", help="a model: a folder or file of weights, ours or another's; a hub name")


def overridable(p: argparse.ArgumentParser) -> None:
    """Changes to a recipe at the end."""
    p.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the recipe, such as seed=1")
    p.set_defaults(rest="overrides")


def say(line: str) -> None:
    """A line for people, on stderr."""
    if is_main():
        sys.stderr.write(line + "\n")


def is_main() -> bool:
    """Whether this is the process that talks, of those that `torchrun` has started."""
    return os.environ.get("RANK", "0") == "0"


def show(a: argparse.Namespace, title: str, rows: Iterable[Sequence[str]], heads: Sequence[str] = ()) -> None:
    """A table: on stdout, or on stderr where stdout is for JSON."""
    if not is_main():
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    layout: dict[str, Any] = {"title_justify": "left", "box": None, "padding": (0, 2, 0, 0)}
    grid = Table(*heads, title=title or None, show_header=bool(heads), **layout)
    for row in rows:
        grid.add_row(*map(Text, row))  # as it stands: a label may hold brackets
    Console(stderr=a.json).print(grid)


def bar(share: float) -> str:
    """A share, to look at."""
    return "█" * round(20 * share)


def pictures(paths: Sequence[Path]) -> list[Path]:
    """Files as they are, folders as the pictures in them."""
    from pictura.data.folders import pictures_under

    found: list[Path] = []
    for path in paths:
        inside = pictures_under(os.path.realpath(path), "", outside_links=False) if path.is_dir() else None
        some = [path] if inside is None else [path / name for name in inside]
        if not some:
            raise ValueError(f"{path}: there is no picture in this folder")
        found += some
    return found


def check_place(option: str, path: Path) -> None:
    """ValueError where a file cannot be written later, before hours are spent on what goes into it."""
    if not path.absolute().parent.is_dir() or path.is_dir():
        wrong = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise ValueError(f"{option} {path}: {wrong}; give the path of a file in a folder that is there")


def read_lines(path: Path) -> list[str]:
    """The non-empty lines of a text file."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start})") from error
    if not any(lines):
        raise ValueError(f"{path}: has no lines")
    return [line for line in lines if line]


def read_numbers(option: str, given: str) -> list[int]:
    """Different whole numbers with commas between them."""
    words = [word.strip() for word in given.split(",")]
    whole = all(word.removeprefix("-").isdecimal() for word in words)
    numbers = [int(word) for word in words] if whole else []
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f"{option}: {given} is no list of different whole numbers with commas, such as 3,-1")
    return numbers


def read_labels(given: str, option: str = "--labels") -> list[str]:
    """Labels from a comma-separated string, or from a text file of one a line."""
    if "," not in given:
        if not Path(given).is_file():
            raise ValueError(f"{option}: {given} is no text file, and not several words with commas between them")
        return read_lines(Path(given))
    return [label.strip() for label in given.split(",") if label.strip()]


def read_data(given: str) -> Any:
    """What data a path means, as a configuration: a .yaml file says it itself, `kind: …`; a folder whose pictures lie
    loose is one of pictures alone; else as kind `image_text` has it."""
    from pictura.config import load
    from pictura.data.folders import FolderConfig, pictures_under
    from pictura.data.image_text import ImageTextConfig
    from pictura.data.pictures import PicturesConfig
    from pictura.data.source import SourceConfig

    if given.endswith((".yaml", ".yml")):
        return load(SourceConfig, given)
    config = ImageTextConfig(path=given).config()
    if isinstance(config, FolderConfig):
        names = pictures_under(os.path.realpath(config.path), "", outside_links=False)
        if any(os.sep not in name for name in names):
            return PicturesConfig(path=config.path)
    return config
