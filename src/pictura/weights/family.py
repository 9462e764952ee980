"""A family of checkpoints: one project's way of naming and storing a model's tensors, recognised, read and written.

A file of this room that defines a `Family` is found by existing. Each is asked in turn whether a checkpoint is its own.
"""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

import pictura.weights
from pictura.models.pictures import PictureModelConfig

State = Mapping[str, Tensor]
Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What lies at a path. file: the weights. beside: the JSON objects in its folder, by file name."""

    file: Path
    state: State
    beside: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Written:
    """A model as a family stores it. file: the name of the weights; its suffix, .safetensors or .npz, is their format.
    beside: JSON objects for the same folder, by file name."""

    file: str
    state: dict[str, Tensor]
    beside: dict[str, Json] = field(default_factory=dict)


class Family(ABC):
    """One project's layout. `name` is what `pictura convert --to` takes, of those with `writes`."""

    name: ClassVar[str]
    writes: ClassVar[bool] = True

    @abstractmethod
    def knows(self, found: Found) -> bool:
        """Whether names of tensors that only this family has, or what lies beside them, say that it is its own."""

    @abstractmethod
    def read(self, found: Found) -> tuple[PictureModelConfig, dict[str, Tensor]]:
        """The configuration, and the weights under our names, in their own dtype.

        What no shape gives away (activation, epsilon, how pictures are prepared) comes from what lies beside, else from
        what this family always does. ValueError names tensors that are missing or have no place.
        """

    @abstractmethod
    def write(self, config: PictureModelConfig, state: State) -> Written:
        """The inverse of `read`. ValueError where this family has no place for such a model, saying for what of it."""


def families() -> dict[str, Family]:
    """Every family by its name, in the order of names."""
    for module in pkgutil.iter_modules(pictura.weights.__path__):
        importlib.import_module(f"{pictura.weights.__name__}.{module.name}")
    found = {cls.name: cls() for cls in Family.__subclasses__() if cls.__module__.startswith(pictura.weights.__name__)}
    return dict(sorted(found.items()))
