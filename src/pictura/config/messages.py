"""The words of the loader's error messages."""

from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from difflib import get_close_matches
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin


def nearest(word: Any, options: Iterable[Any]) -> str:
    """`; did you mean patch_size?` where one of `options` is close to `word`, else nothing."""
    near = get_close_matches(str(word), [str(option) for option in options], n=1)
    return f"; did you mean {near[0]}?" if near else ""


def explain(error: BaseException) -> str:
    """An error in one line: for one of the system, the file and what is the matter with it."""
    words = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    return " ".join(words.split())


def origin_of(tp: Any) -> Any:
    """`dict` for `dict[str, int]`, `Union` for `int | str`, a plain class for itself."""
    origin: Any = get_origin(tp)
    return tp if origin is None else origin


def name_of(tp: type) -> str:
    """The type of a value that was given."""
    return {"NoneType": "null", "dict": "mapping"}.get(tp.__name__, tp.__name__)


def describe(tp: Any) -> str:
    """A type as an error message says it: `int`, `one of 'a', 'b'`, `list of int`."""
    origin, args = origin_of(tp), get_args(tp)
    if origin in (Union, UnionType):
        return " or ".join(describe(arg) for arg in args)
    if origin is Literal:
        return (f"one of {', '.join(map(repr, args))}") if len(args) > 1 else repr(args[0])
    if is_dataclass(origin):
        return f"a mapping for {tp.__name__}"
    if origin in (dict, Mapping):
        return f"a mapping of names to {describe(args[1])}" if args else "a mapping"
    if origin is tuple and args and args[-1] is not Ellipsis:
        return f"a list of {len(args)}: {', '.join(map(describe, args))}"
    if origin in (list, tuple):
        return f"a list of {describe(args[0])}" if args else "a list"
    return "anything" if tp in (Any, object) else {"NoneType": "null", "Path": "a path"}.get(tp.__name__, tp.__name__)
