"""Random numbers that belong to an example, whoever draws them and whenever: keyed by (seed, epoch, index) and a
purpose.
"""

import hashlib
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt


def random_generator(seed: int, epoch: int, index: int, stream: str) -> np.random.Generator:
    """The random numbers of one example in one epoch, for the purpose that `stream` names.

    Philox (Salmon et al. 2011) is a cipher in counter mode: other keys and other counters give streams that never meet.
    """
    counter = np.array([0, 0, index, epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=_key(seed, stream), counter=counter))


class Draws:
    """`random_generator(seed, epoch, index, stream)` for many examples, by moving one generator: 1 µs instead of 9."""

    def __init__(self, seed: int, stream: str) -> None:
        self._bits = np.random.Philox(key=_key(seed, stream))
        self._state: Any = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def at(self, epoch: int, index: int) -> np.random.Generator:
        """The generator, good until the next call."""
        self._state["state"]["counter"][2:] = index, epoch
        self._bits.state = self._state
        return self._generator


@lru_cache(maxsize=256)
def _key(seed: int, stream: str) -> npt.NDArray[np.uint64]:
    digest = hashlib.blake2b(stream.encode(), digest_size=8).digest()
    return np.array([seed % 2**64, int.from_bytes(digest, "little")], np.uint64)
