"""Writes docs/reference.md, every key of a recipe, from the dataclasses that a recipe is read into.

    python docs/write_reference.py

The words are the classes' docstrings, the tables are their fields: there is no second place to keep up to date.
"""

import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from inspect import cleandoc
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pictura.config.schema import kinds
from pictura.config.text import dump
from pictura.config.writer import to_plain
from pictura.recipe import Recipe

PAGE = Path(__file__).with_name("reference.md")
HEAD = """# Reference: every key of a recipe

Written by `python docs/write_reference.py` from the package's own dataclasses; a test keeps it up to date. How recipes
are put together is told in [recipes.md](recipes.md).

"""


def reference() -> str:
    """The whole page: the recipe, then every class that it leads to, in the order in which they are met."""
    sections = list(_sections(Recipe, "recipe"))
    index = "".join(f"- [{title}](#{_anchor(title)})\n" for title, _ in sections)
    return HEAD + index + "".join(f"\n## {title}\n\n{body}" for title, body in sections)


def _sections(root: type, name: str) -> Iterator[tuple[str, str]]:
    """(title, Markdown) of `root` and of every class below it, each once."""
    waiting, met = [(root, name)], {root}
    while waiting:
        cls, name = waiting.pop(0)
        options = _kinds(cls)
        parts = [_told(cls, object), *([] if options else [_table(cls)])]
        for kind, option in options.items():
            parts += [f"### {name}, `kind: {kind}`\n", _told(option, cls), _sizes(option), _table(option)]
        yield name, "\n".join(part for part in parts if part)
        below: list[tuple[type, str]] = []
        for owner in options.values() or [cls]:
            hints = get_type_hints(owner)
            for key in _names(owner):
                new = [found for found in _classes(hints[key]) if found not in met]
                met.update(new)
                below += [(found, _title(key, name, hints[key])) for found in new]
        waiting = below + waiting


def _title(key: str, owner: str, tp: Any) -> str:
    """`optimizer`; `model.image` for what lies deeper; `objectives.NAME` for a dict's entries."""
    path = key if owner == "recipe" else f"{owner}.{key}"
    return f"{path}.NAME" if get_origin(tp) is dict else path


def _kinds(cls: type) -> dict[str, type]:
    """The package's own kinds: a test may have defined others in this process."""
    return {kind: option for kind, option in kinds(cls).items() if option.__module__.startswith("pictura.")}


def _classes(tp: Any) -> Iterator[type]:
    """The configuration classes inside a type."""
    if get_args(tp):
        for inner in get_args(tp):
            yield from _classes(inner)
    elif is_dataclass(tp) and isinstance(tp, type):
        yield tp


def _names(cls: Any) -> list[str]:
    return [field.name for field in fields(cls) if field.init]


def _told(cls: Any, base: type) -> str:
    """The docstrings of `cls` and of what lies between it and `base`. A sentence `key: …` becomes an item of a list."""
    paragraphs: list[str] = []
    for owner in cls.__mro__:
        if owner in (base, object) or not is_dataclass(owner) or owner.__module__ == "pictura.config.schema":
            break
        doc = vars(owner).get("__doc__") or ""
        if not doc.startswith(f"{owner.__name__}("):  # what `dataclass` writes where nobody has
            paragraphs += cleandoc(doc).split("\n\n")
    keys = "|".join(_names(cls)) or "(?!)"
    start = re.compile(rf"(?:^|(?<=[.;] ))`?((?:{keys})(?:, (?:{keys}))*)`?: ")
    told: list[str] = []
    for paragraph in paragraphs:
        before, *rest = start.split(" ".join(line.strip() for line in paragraph.splitlines()))
        told += [before.strip()] if before.strip() else []
        for names, said in zip(rest[::2], rest[1::2], strict=True):
            told.append(f"- `{names.replace(', ', '`, `')}`: {said.strip()}")
    return re.sub(r"(?m)^(- .*)\n\n(?=- )", r"\1\n", "\n\n".join(told)) + "\n" if told else ""


def _sizes(cls: Any) -> str:
    sizes = ", ".join(f"`{size}`" for size in getattr(cls, "sizes", {}))
    return f"`size`, which stands for several keys at once: {sizes}\n" if sizes else ""


def _table(cls: Any) -> str:
    types = get_type_hints(cls)
    rows = [
        f"| `{field.name}` | {_type(types[field.name])} | {_default(field)} |\n" for field in fields(cls) if field.init
    ]
    return "| key | value | if not given |\n| --- | --- | --- |\n" + "".join(rows) if rows else "No keys.\n"


def _type(tp: Any) -> str:
    """A type in the words of the error messages, with a configuration class named by what it configures."""
    origin, args = get_origin(tp), get_args(tp)
    if origin in (Union, UnionType):
        return " or ".join(_type(arg) for arg in args)
    if origin is Literal:
        return ", ".join(f"`{arg}`" for arg in args)
    if origin is dict:
        return f"names, each with {_type(args[1])}"
    if origin is tuple and args[-1] is not Ellipsis:
        return f"list of {len(args)}: {' and '.join(dict.fromkeys(map(_type, args)))}"
    if origin in (list, tuple):
        return f"list of {_type(args[0])}"
    if is_dataclass(tp):
        return "a `kind` and its keys" if _kinds(tp) else "keys of its own"
    return {NoneType: "null", Path: "path", str: "text"}.get(tp, tp.__name__)


def _default(field: Field[Any]) -> str:
    if field.default is MISSING and field.default_factory is MISSING:
        return "**needed**"
    value = field.default if field.default is not MISSING else field.default_factory()  # type: ignore[misc]
    if is_dataclass(value):
        return f"`kind: {value.kind}`" if hasattr(value, "kind") else "its own defaults"
    plain = to_plain(value)
    text = dump(plain).removesuffix("\n").removesuffix("...").strip()
    if isinstance(plain, dict):
        text = "{" + ", ".join(dump({key: inner}).strip() for key, inner in plain.items()) + "}"
    return f"`{text}`"


def _anchor(title: str) -> str:
    """GitHub's rule: lower case, spaces to hyphens, punctuation dropped."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
