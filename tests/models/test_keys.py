"""Model folders hold the names of weights: a checked-in list of them for each tower and model makes a renaming seen."""

import difflib
import re
from pathlib import Path
from typing import Any

import pytest

from pictura.config import sized
from pictura.weights.folder import empty
from tests.models.small import BY_KIND

WRITE = ".venv/bin/python -m tests.models.test_keys"
KEYS = Path(__file__).parent / "keys"


def listing(config: Any) -> str:
    """Names and shapes of the small one, then the names that published sizes have besides, with * for numbers."""
    shapes = {name: list(tensor.shape) for name, tensor in empty(config).state_dict().items()}
    known = {starred(name) for name in shapes}
    published = {starred(key) for size in getattr(config, "sizes", ()) for key in _names(type(config), size)}
    lines = [f"{name} {shape}" for name, shape in shapes.items()]
    return "\n".join([f"# Written by `{WRITE}`.", *lines, *sorted(published - known), ""])


def _names(kind: type, size: str) -> list[str]:
    return list(empty(sized(kind, size)).state_dict())


def starred(name: str) -> str:
    return re.sub(r"\d+", "*", name)


@pytest.mark.parametrize("kind", BY_KIND)
def test_names_of_weights_are_an_interface(kind: str) -> None:
    file, found = KEYS / f"{kind}.txt", listing(BY_KIND[kind])
    expected = file.read_text() if file.exists() else ""
    change = "\n".join(difflib.unified_diff(expected.splitlines(), found.splitlines(), str(file), "now", lineterm=""))
    assert found == expected, f"not as listed; for a new model, or if folders may become unreadable: {WRITE}\n{change}"


def test_every_list_of_names_has_a_model() -> None:
    assert {file.stem for file in KEYS.iterdir()} <= BY_KIND.keys()


if __name__ == "__main__":
    for name, config in BY_KIND.items():
        (KEYS / f"{name}.txt").write_text(listing(config))
