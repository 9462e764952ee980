"""How many examples are nearest to their own: one rule for every loss, and cheap beside the similarities."""

import math

from torch import Tensor

TIE = 1e-6
"""Cosines that differ by less count as equal: what rounding leaves of them in float32."""


def count_hits(z: Tensor, offset: int, scale: Tensor) -> Tensor:
    """z: [m n] cosines times `scale`, row i's own at column i + offset -> [], the rows with no other as high.

    A tie counts against the model: one that gives every example the same features has no hit. `z` is left as it was.
    """
    diagonal = z.diagonal(offset)
    own = diagonal.clone()
    diagonal.fill_(-math.inf)
    hits = (z.amax(1) < own - TIE * scale).sum()
    diagonal.copy_(own)
    return hits
