"""Several objectives of one model often read the same pictures: what is the same for all of them is computed once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import nn

Found = TypeVar("Found")


class Once(nn.Module):
    """A model that `reading_once` knows."""

    kept: dict[tuple[int, str], Any] | None = None

    def once(self, given: Any, what: str, make: Callable[[], Found]) -> Found:
        """What `make` gives of `given`, a batch's own object; inside `reading_once` made only the first time."""
        if self.kept is None:
            return make()
        key = id(given), what
        if key not in self.kept:
            self.kept[key] = make(), given  # held, so that nothing else can have its id
        found: Found = self.kept[key][0]
        return found


@contextmanager
def reading_once(model: nn.Module) -> Iterator[None]:
    """Inside, the parts of `model` that are told to compute something once of the same object do; gradients of all who
    read it go through it together."""
    parts = [part for part in model.modules() if isinstance(part, Once)]
    for part in parts:
        part.kept = {}
    try:
        yield
    finally:
        for part in parts:
            part.kept = None
