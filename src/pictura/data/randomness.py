"""Random numbers that belong to an example, whoever draws them and whenever: keyed by (seed, epoch, index) and a
purpose.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


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


def uniforms(seeds: Sequence[int], n: int) -> Tensor:
    """One seed, of 63 bits, for each of b examples -> [b n] float32, uniform from 0 to, not including, 1, on the CPU.

    SplitMix64 (Steele, Lea and Flood 2014): number i of a seed is a hash of seed + i x a constant, so a batch's numbers
    are made at once, and more of them leave the first as they are.
    """
    step = torch.arange(1, n + 1) * signed(0x9E3779B97F4A7C15)
    z = torch.tensor(seeds, dtype=torch.int64)[:, None] + step
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ shifted(z, shift)) * signed(factor)
    return shifted(z ^ shifted(z, 31), 40).float() / 2**24


def signed(number: int) -> int:
    """64 bits as torch counts them."""
    return number - 2**64 if number >= 2**63 else number


def shifted(z: Tensor, by: int) -> Tensor:
    """64 bits moved right, zeros coming in: torch's own shift lets the sign come in."""
    out: Tensor = (z >> by) & (2 ** (64 - by) - 1)
    return out
