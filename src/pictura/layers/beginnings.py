"""Texts that begin alike, packed so that what they have in common is computed once.

Under causal attention a token's features follow from the tokens up to it, so texts with one beginning have one row for
each token of it, such as the sentences about the classes of a zero-shot classifier.
"""

import torch
from torch import Tensor

from pictura.layers.packing import Packing


class Beginnings(Packing):
    """As `Packing` of one segment, but rows of the grid that begin as the row above does have one packed token for each
    position that they share: [n], n different beginnings, where equal ones stand one below the other.

    For causal attention without a backward pass, and without dropout, by which equal tokens would differ.
    """

    def __init__(self, text: Tensor, lengths: Tensor) -> None:
        """text: [b t] token ids, of which the first `lengths`, [b], above 0, count."""
        self.shape = text.shape[0], text.shape[1]
        here = torch.arange(self.shape[1], device=text.device) < lengths[:, None]
        first = here.clone()
        alike = (text[1:] == text[:-1]) & here[1:] & here[:-1]
        first[1:] &= alike.cumprod(1) == 0  # else the token and all before it stand in the row above
        self.place = first.flatten().nonzero().squeeze(1)
        number = torch.full(self.shape, -1, device=text.device)
        number[first] = torch.arange(len(self.place), device=text.device)
        number = number.cummax(0).values  # numbers rise from row to row: the latest is that of the row it stands in
        self.row = number.masked_fill(~here, len(self.place)).flatten()
        last = lengths - 1
        self.start = number.gather(1, last[:, None]).squeeze(1) - last
        """[b]: to which the position of its last token is added, it gives that token; for no other position."""

    @property
    def example(self) -> Tensor:
        """A packed token may be of several."""
        raise AssertionError("tokens that texts share are of no single text")
