"""Floating point operations that CLIP's towers need, by their shapes; a multiplication and an addition are two.

Only matrix products are counted. The last block counts the one token that is read, and of texts only the tokens up to
the end: `share_of_peak` must not rise by computing what nobody reads.
"""

from __future__ import annotations

from typing import Any


def tower(n: int, width: int, depth: int, mlp_ratio: float, *, one_read: bool = True) -> float:
    """Forward pass of a Transformer over one sequence of n tokens; `one_read`: the last block computes one of them."""

    def block(queries: int) -> float:
        projections = 2 * width * width * (2 * n + 2 * queries)  # keys and values; queries and output
        scores = 2 * 2 * queries * n * width
        mlp = 2 * 2 * queries * width * round(mlp_ratio * width)
        return projections + scores + mlp

    return (depth - 1) * block(n) + block(1 if one_read else n)


def stem(c: Any) -> float:
    """One picture through a convolutional stem: 3x3 of stride 2, each with twice the channels, then a linear map."""
    total, ins, outs, side = 0.0, 3, c.stem.channels, c.image_size // 2
    while side >= c.image_size // c.patch_size:
        total += 2 * side * side * 9 * ins * outs
        ins, outs, side = outs, 2 * outs, side // 2
    return total + 2 * (c.image_size // c.patch_size) ** 2 * ins * c.width


def image(config: Any, *, training: bool = False) -> float:
    """One picture through the image tower and its projection. config: a CLIPConfig with a ViT.

    Training adds a backward pass of twice as much, less the gradient of the picture itself.
    """
    c = config.image
    patches = (c.image_size // c.patch_size) ** 2
    class_token = c.pool == "class"
    embed = 2 * patches * 3 * c.patch_size**2 * c.width if c.stem.kind == "patch" else stem(c)
    blocks = tower(patches + class_token, c.width, c.depth, c.mlp_ratio, one_read=class_token)
    rest = blocks + 2 * c.width * config.embed_dim
    return 2 * embed + 3 * rest if training else embed + rest


def text(config: Any, length: int, *, training: bool = False) -> float:
    """One text of `length` tokens through the text tower and its projection."""
    c = config.text
    forward = tower(length, c.width, c.depth, c.mlp_ratio) + 2 * c.width * config.embed_dim
    return 3 * forward if training else forward


def contrastive(n: int, dim: int) -> float:
    """Similarities of n pairs and their gradient: one product forward, two backward."""
    return 3 * 2.0 * n * n * dim


def training_step(config: Any, lengths: list[int]) -> float:
    """One step on pairs whose texts have so many tokens."""
    batch = len(lengths)
    texts = sum(text(config, length, training=True) for length in lengths)
    return batch * image(config, training=True) + texts + contrastive(batch, config.embed_dim)
