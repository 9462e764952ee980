from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from pictura.config.messages import describe, name_of, nearest


@dataclass
class Tower:
    pass


@pytest.mark.parametrize(
    ("tp", "words"),
    [
        (int, "int"),
        (Path, "a path"),
        (type(None), "null"),
        (Any, "anything"),
        (object, "anything"),
        (int | None, "int or null"),
        (Literal["a", "b"], "one of 'a', 'b'"),
        (Literal["a"], "'a'"),
        (list[int], "a list of int"),
        (list, "a list"),
        (tuple[int, ...], "a list of int"),
        (tuple[int, str], "a list of 2: int, str"),
        (tuple[list[int] | None, ...], "a list of a list of int or null"),
        (dict[str, Tower], "a mapping of names to a mapping for Tower"),
        (dict, "a mapping"),
        (Mapping[str, float], "a mapping of names to float"),
        (Tower, "a mapping for Tower"),
    ],
)
def test_types_in_words(tp: Any, words: str) -> None:
    assert describe(tp) == words


def test_nearest() -> None:
    assert nearest("pach_size", ["width", "patch_size"]) == "; did you mean patch_size?"
    assert nearest("zzz", ["width", "patch_size"]) == ""
    assert nearest(15, [16, "bf16"]) == ""
    assert nearest("width", []) == ""


def test_names_of_given_types() -> None:
    assert [name_of(type(value)) for value in (None, {}, [], 1, "a")] == ["null", "mapping", "list", "int", "str"]
