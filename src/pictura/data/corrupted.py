"""`corrupted`: the pictures of a source with noise, blur, weather or digital damage, which a model should bear."""

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np

from pictura.data.corruptions import check_corruption, corrupt
from pictura.data.decode import decode
from pictura.data.randomness import random_generator
from pictura.data.source import Example, Source, SourceConfig
from pictura.data.wrapper import Changed


@dataclass(frozen=True, kw_only=True)
class CorruptedConfig(SourceConfig):
    """The pictures of `of` with one of the corruptions of ImageNet-C, the fifteen or the four extra ones.

    corruption: its name (`pictura.data.corruptions` has them). severity: 1 to 5. What chance draws (flakes, the
    direction of a motion) is a function of (seed, example), the same at each severity.
    """

    kind: ClassVar[str] = "corrupted"

    of: SourceConfig
    corruption: str
    severity: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        check_corruption(self.corruption, self.severity)

    def build(self) -> "Corrupted":
        """Open the source. Raises ValueError when it has no pictures."""
        return Corrupted(self.of.build(), self.corruption, self.severity, self.seed)


class Corrupted(Changed):
    """The source's examples, all as they are but for `image`, which is pixels now, upright. Boxes and masks hold as
    before, except that `elastic_transform` moves what they are around, and they stay where they were."""

    def __init__(self, source: Source, corruption: str, severity: int = 3, seed: int = 0) -> None:
        check_corruption(corruption, severity)
        if "image" not in source.provides:
            raise ValueError("corrupted: the data has no pictures, so there is nothing to corrupt")
        super().__init__(source)
        self.corruption, self.severity, self.seed = corruption, severity, seed

    def __getitem__(self, index: int) -> Example:
        example = cast(dict[str, Any], self.source[index])
        pixels = np.asarray(decode(example["image"], key=example["key"]))
        rng = random_generator(self.seed, 0, index, self.corruption)
        return cast(Example, example | {"image": corrupt(pixels, self.corruption, self.severity, rng)})
