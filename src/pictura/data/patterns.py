"""Names of many files in one: braces, as WebDataset writes them, and the shell's * ? [ ]."""

import glob
import os
import re
from collections.abc import Iterator, Sequence

from pictura.data.source import did_you_mean

MAX_NAMES = 100_000  # that one pattern may stand for


def local_tars(patterns: str | Sequence[str]) -> list[str]:
    """The files that patterns stand for, in order: braces expanded, then * ? [ ], and all *.tar of a folder."""
    found: list[str] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        for name in map(os.path.expanduser, expand(pattern)):
            if os.path.isdir(name):
                name = os.path.join(glob.escape(name), "*.tar")
            matches = [name] if os.path.isfile(name) else sorted(glob.glob(name, recursive=True))
            if not matches:
                folder = os.path.dirname(name) or "."
                beside = os.listdir(folder) if os.path.isdir(folder) else []
                raise ValueError(f"{name}: no such tar{did_you_mean(os.path.basename(name), beside)}")
            found += matches
    if not found:
        raise ValueError("path: names no tar")
    return list(dict.fromkeys(found))


def expand(pattern: str) -> list[str]:
    """`a-{0..2}.tar` → a-0.tar, a-1.tar, a-2.tar; `{a,b}` → a, b; braces may nest. `ValueError` above `MAX_NAMES`."""
    try:
        return _expand(pattern, pattern)
    except RecursionError:
        raise ValueError(f"path: the braces in {pattern[:80]!r}… are nested too deep") from None


def _expand(pattern: str, whole: str) -> list[str]:
    start = pattern.find("{")
    end = _closing(pattern, start) if start >= 0 else -1
    if end < 0:
        return [pattern]
    choices = list(_choices(pattern[start + 1 : end], whole))
    rest = _expand(pattern[end + 1 :], whole)
    if len(choices) * len(rest) > MAX_NAMES:
        raise ValueError(f"path: {whole!r} stands for more than {MAX_NAMES:,} names")
    return [pattern[:start] + choice + tail for choice in choices for tail in rest]


def _closing(pattern: str, start: int) -> int:
    depth = 0
    for place in range(start, len(pattern)):
        depth += {"{": 1, "}": -1}.get(pattern[place], 0)
        if depth == 0:
            return place
    return -1


def _choices(inside: str, whole: str) -> Iterator[str]:
    """`00..12` → 00, 01, … 12, as wide as written; otherwise the parts between commas, each expanded in turn."""
    if span := re.fullmatch(r"(\d{1,18})\.\.(\d{1,18})", inside):
        first, last = map(int, span.groups())
        if abs(last - first) >= MAX_NAMES:
            raise ValueError(f"path: {whole!r} stands for more than {MAX_NAMES:,} names")
        width = max(map(len, span.groups())) if any(len(n) > 1 and n[0] == "0" for n in span.groups()) else 0
        step = 1 if last >= first else -1
        yield from (str(number).zfill(width) for number in range(first, last + step, step))
        return
    depth, part = 0, ""
    parts = []
    for letter in inside:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += letter
    parts.append(part)
    if len(parts) == 1:  # {word} is not a choice, and stays as it is
        yield from (f"{{{name}}}" for name in _expand(inside, whole))
        return
    for part in parts:
        yield from _expand(part, whole)
