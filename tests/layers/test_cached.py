import torch

from pictura.layers.block import Block
from pictura.layers.cached import Past, further


def test_token_by_token_is_what_the_block_gives_of_all() -> None:
    torch.manual_seed(0)
    block, x = Block(24, 3, causal=True, dropout=0.5).eval(), torch.randn(2, 7, 24)
    for begin in (1, 3):
        past: Past | None = None
        found = []
        for part in (x[:, :begin], *x[:, begin:].split(1, 1)):
            out, past = further(block, part, past)
            found.append(out)
        torch.testing.assert_close(torch.cat(found, 1), block(x))
        assert past is not None and past[0].shape == past[1].shape == (2, 3, 7, 8)
