"""`mixture`: several sources as one, each as often as asked."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate, chain
from typing import ClassVar, cast

from pictura.data.source import Example, Source, SourceConfig

NUMBERED = {"label", "boxes", "labels", "crowd", "masks"}  # means nothing without the names of the classes


@dataclass(frozen=True, kw_only=True)
class MixtureConfig(SourceConfig):
    """`parts` by name; `repeat` says how many times an epoch passes over a part (1 where it says nothing).

    Every picture of a repeated part is seen with new augmentation, and perhaps another of its captions, each time.
    """

    kind: ClassVar[str] = "mixture"

    parts: dict[str, SourceConfig]
    repeat: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("parts: a mixture needs at least one source")
        for name, times in self.repeat.items():
            if name not in self.parts:
                raise ValueError(f"repeat: {name} is none of the parts {', '.join(self.parts)}")
            if times < 1:
                raise ValueError(f"repeat: {name} is repeated {times} times; give 1 or more, or leave the part out")

    def build(self) -> "Mixture":
        """Open all parts."""
        return Mixture({name: part.build() for name, part in self.parts.items()}, self.repeat)


class Mixture(Source):
    """Examples of all parts, one part after the other; keys are prefixed with the part's name.

    It provides what all parts provide; labels and boxes only where all parts have the same classes by name and in the
    same order, which are then its own.
    """

    def __init__(self, parts: dict[str, Source], repeat: dict[str, int]) -> None:
        self.parts, self.names = list(parts.values()), list(parts)
        self.ends = list(accumulate(len(part) * repeat.get(name, 1) for name, part in parts.items()))
        alike = {part.class_names for part in self.parts}
        self.class_names = alike.pop() if len(alike) == 1 else ()
        provided = frozenset.intersection(*(part.provides for part in self.parts))
        self.provides = provided if self.class_names else provided - NUMBERED
        self.left_out = NUMBERED - self.provides
        self.bad = [bad for part in self.parts for bad in part.bad]

    def __len__(self) -> int:
        return self.ends[-1]

    def _at(self, index: int) -> tuple[int, int]:
        """index -> part, index within it."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = bisect_right(self.ends, index)
        return part, (index - (self.ends[part - 1] if part else 0)) % len(self.parts[part])

    def __getitem__(self, index: int) -> Example:
        part, within = self._at(index)
        example = self.parts[part][within]
        kept = {key: value for key, value in example.items() if key not in self.left_out}
        return cast(Example, kept | {"key": f"{self.names[part]}/{example['key']}"})

    def captions(self, index: int) -> list[str]:
        part, within = self._at(index)
        return self.parts[part].captions(within)

    def all_captions(self) -> Iterator[str]:
        """Those of every part, once."""
        return chain.from_iterable(part.all_captions() for part in self.parts)
