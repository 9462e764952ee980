"""What a configuration class is, and how a base finds the kinds that choose among its subclasses."""

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of every configuration dataclass; subclasses are `@dataclass(frozen=True, kw_only=True)` too.

    A base without `kind` whose subclasses have `kind: ClassVar[str]` is a choice: a field typed by that base is
    read by its `kind:` key. `sizes: ClassVar[dict[str, dict]]` names presets that the key `size:` expands to.
    """


def kinds(base: type) -> dict[str, type]:
    """Every subclass of `base` that names itself with `kind: ClassVar[str]`, by that name, in alphabetical order.

    All modules of the room where `base` lives are imported first, so that adding a file adds a kind.
    """
    _import_siblings(base.__module__)
    found: dict[str, type] = {}
    for cls in _descendants(base):
        kind = vars(cls).get("kind")
        if isinstance(kind, str):
            assert found.get(kind, cls) is cls, f"kind {kind!r} names both {found[kind]} and {cls}"
            found[kind] = cls
    return dict(sorted(found.items()))


def _descendants(cls: type) -> Iterator[type]:
    yield cls
    children: list[type] = cls.__subclasses__()
    for child in children:
        yield from _descendants(child)


@cache
def _import_siblings(module_name: str) -> None:
    """Imports every module of the room that holds `module_name`.

    A room is a package within a package: a class in `pictura.recipe` must not import the whole of `pictura`, with all
    that its extras need, and a script or a test has no siblings.
    """
    module = sys.modules.get(module_name)
    package_name = getattr(module, "__package__", None)
    package = sys.modules.get(package_name or "")
    if package is None or "." not in package.__name__ or getattr(package, "__file__", None) is None:
        return
    for found in pkgutil.walk_packages(package.__path__, f"{package_name}."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
