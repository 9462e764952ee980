"""What the readers of published data sets share: their JSON, and pictures that lie in one of several usual places."""

import glob
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pictura.data.patterns import expand
from pictura.data.source import BadSample, existing, under

PROBED = 32  # pictures of a file that are looked for before anything is read
COCO_FOLDERS = ("train2014", "val2014", "train2017", "val2017")


def files(given: str | Sequence[str]) -> list[Path]:
    """The files that one name, pattern (* ? [ ], {train,val}) or several of them stand for, in order."""
    found: list[Path] = []
    for pattern in [given] if isinstance(given, str) else given:
        for name in map(os.path.expanduser, expand(pattern)):
            matches = [] if os.path.exists(name) else sorted(glob.glob(name))
            found += [existing(match, "file") for match in matches or [name]]
    return list(dict.fromkeys(found))


def read_list(
    path: Path, name: str, what: str, shrink: Callable[[dict[str, Any]], Any] | None = None
) -> dict[str, Any]:
    """The JSON object in `path`, sure to hold the list `name`; `what` says to a person what the file should be.

    `shrink` is shown every object as it is read and gives what to keep in its place: objects inside objects, innermost
    first, so that millions of them are never held at once.
    """
    try:
        content = json.loads(path.read_bytes(), object_hook=shrink)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get(name), list):
        raise ValueError(f"{path}: should be {what}, one JSON object with the list `{name}`")
    return content


def entries(
    path: Path, name: str, content: dict[str, Any], bad: list[BadSample]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where it is, and the object, for each object of the list `name`; what is none goes into `bad`."""
    for number, entry in enumerate(content[name]):
        where = f"{path}: {name}[{number}]"
        if isinstance(entry, dict):
            yield where, entry
        else:
            bad.append(BadSample(where, "not a JSON object"))


def picture_folders(
    path: Path,
    given: Path | Sequence[Path] | None,
    beside: Sequence[str],
    inside: Sequence[str],
    names: Sequence[Sequence[str]],
) -> list[str]:
    """The real folders to look in for the pictures that the file `path` names: the user's, or the first one of `beside`
    that holds any of `names` (the spellings of each picture); with those folders of `inside` that are in it.

    That none of some pictures is there is a wrong folder, not bad luck: `ValueError`.
    """
    if given is None:
        groups = [[path.parent / place] for place in beside]
    else:
        groups = [[existing(folder, "folder") for folder in ([given] if isinstance(given, Path) else given)]]
    for group in groups:
        choice = [folder / name for folder in group for name in (".", *inside)]
        folders = list(dict.fromkeys(os.path.realpath(folder) for folder in choice if os.path.isdir(folder)))
        if any(_is_there(folders, spellings) for spellings in names[:: max(1, len(names) // PROBED)]):
            return folders
    looked = ", ".join(os.path.normpath(folder) for group in groups for folder in group) or "no folder"
    raise ValueError(f"{path}: no picture such as {names[0][0]!r} in {looked}; set `images` to the pictures' folder")


def _is_there(folders: Sequence[str], spellings: Sequence[str]) -> bool:
    try:
        find_picture(folders, spellings, "")
    except BadSample:
        return False
    return True


def find_picture(folders: Sequence[str], spellings: Sequence[str], key: str) -> str:
    """The path of a picture that is in one of `folders` by one of `spellings`, else `BadSample` naming `key`."""
    reason = f"no such file: {spellings[0]}"
    for folder in folders:
        for name in spellings:
            try:
                path = under(folder, name)
            except BadSample as outside:
                reason = str(outside)
                continue
            if os.path.isfile(path):
                return path
    raise BadSample(key, reason)


def brief(value: Any) -> str:
    """A strange value for an error message; never the whole of something large or deep."""
    plain = value is None or isinstance(value, int | float)
    return repr(value[:80]) if isinstance(value, str) else repr(value)[:80] if plain else f"a {type(value).__name__}"
