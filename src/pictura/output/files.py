"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A path to write to, `.NAME.PID` with the suffix of `path`, whose file takes the place of `path` at the end;
    whatever goes wrong before, `path` is as it was."""
    beside = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file whole. Names of files that are no UTF-8 come out as they are on disk."""
    with aside(path) as beside:
        beside.write_text(text, encoding="utf-8", errors="surrogateescape")
