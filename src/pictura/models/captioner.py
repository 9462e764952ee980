"""ClipCap (Mokady et al., ClipCap: CLIP Prefix for Image Captioning, 2021): a picture's vector stands where a caption's
first tokens would.

CLIP's vector of a picture x is mapped to k tokens, p_1 … p_k = F(CLIP(x)) (section 3.1), before those of the caption,
c_1 … c_l; a language model is trained for sum_j log p(c_j | p_1 … p_k, c_1 … c_(j-1)). F is a perceptron of one hidden
layer, as where the language model learns too (section 3.2). That one is GPT-2 in the paper; here it is small, begins
without having read anything, and its output weights are those of its embedding, as GPT-2's are.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.layers.block import Block
from pictura.layers.cached import Past, further
from pictura.layers.draws import Drawing
from pictura.layers.linear import Linear, linear
from pictura.layers.mlp import Activation
from pictura.layers.packing import Packing
from pictura.models.base import TextConfig, check_heads, check_positive, check_share
from pictura.models.beams import Caption, beam_search, check_search
from pictura.models.pictures import PictureModelConfig, read_pictures


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(TextConfig):
    """The Transformer that says the words; its vocabulary is what a recipe's tokenizer has. `context_length` counts a
    caption's start and end."""

    width: int = 512
    depth: int = 6
    heads: int = 8
    mlp_ratio: float = 4.0
    activation: Activation = "gelu"
    eps: float = 1e-5
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(width=self.width, depth=self.depth, mlp_ratio=self.mlp_ratio, eps=self.eps)
        check_heads(self.heads, self.width)
        check_share(dropout=self.dropout)
        if self.context_length < 2:
            raise ValueError(f"context_length: {self.context_length} has no room for a start and an end")

    @property
    def end(self) -> int:
        """The id that ends a caption."""
        return self.vocab_size - 1 if self.end_token is None else self.end_token


@dataclass(frozen=True, kw_only=True)
class CaptionerConfig(PictureModelConfig):
    """`image` None takes the tower of a recipe's `initial` model, such as a CLIP, and how that one prepares pictures.

    embed_dim, projection_bias: of the projection into CLIP's space, as in `clip`. prefix: tokens that a picture becomes
    (paper: 10).
    """

    kind: ClassVar[str] = "captioner"

    text: DecoderConfig = field(default_factory=DecoderConfig)
    embed_dim: int = 512
    projection_bias: bool = False
    prefix: int = 10
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(embed_dim=self.embed_dim, prefix=self.prefix)

    def build(self) -> "Captioner":
        """The module, with fresh weights."""
        return Captioner(self)


class Mapping(nn.Module):
    """Unit vectors [b e] -> [b p d]. One hidden layer of half the outputs' number, tanh, as in the released code."""

    def __init__(self, embed_dim: int, prefix: int, width: int) -> None:
        super().__init__()
        self.prefix, hidden = prefix, max(1, prefix * width // 2)
        self.fc1 = Linear(embed_dim, hidden)
        self.fc2 = Linear(hidden, prefix * width)

    def forward(self, unit: Tensor) -> Tensor:
        x = unit * unit.shape[1] ** 0.5  # each number about one: Adam's steps do not know how small a unit vector's are
        out: Tensor = self.fc2(self.fc1(x).tanh())
        return out.view(len(unit), self.prefix, -1)


class Decoder(Drawing):
    """prefix: [b p d], text: [b t] ids -> [b t d]: at place i, what the token after text[:, : i + 1] is told from.

    The last token of the prefix stands where the text's first one would, its start, which is the same in all. After a
    text's end nothing means anything.
    """

    def __init__(self, config: DecoderConfig, prefix: int) -> None:
        super().__init__()
        c = self.config = config
        self.token_embedding = nn.Embedding(c.vocab_size, c.width)
        self.pos_embed = nn.Parameter(torch.empty(prefix + c.context_length - 1, c.width))
        self.blocks = nn.ModuleList(
            Block(c.width, c.heads, c.mlp_ratio, causal=True, activation=c.activation, eps=c.eps, dropout=c.dropout)
            for _ in range(c.depth)
        )
        self.norm = nn.LayerNorm(c.width, eps=c.eps)

    def forward(self, prefix: Tensor, text: Tensor) -> Tensor:
        at, (p, t) = self.config.ends(text), (prefix.shape[1], text.shape[1])
        prefix = self.drawn(prefix, self, len(text))
        if len(prefix) != len(text):  # two draws, begun here or in the picture's tower
            text, at = text.repeat(2, 1), at.repeat(2)
        words = F.embedding(text[:, 1:], self.token_embedding.weight)
        x, packing = torch.cat([prefix, words], 1) + self.pos_embed[: p + t - 1], None
        if text.device.type == "cpu":  # how many tokens there are is read from the device, which a GPU would wait for
            packing = Packing(at + p, width=p + t - 1)
            x = packing.pack(x)
        for block in self.blocks:
            x = block(x, None, packing)
        x = x if packing is None else packing.unpack(x)
        out: Tensor = self.norm(x[:, p - 1 :])
        return out

    def scores(self, states: Tensor) -> Tensor:
        """[… d] -> [… k] float32, of each token of the vocabulary, before softmax."""
        return linear(states, self.token_embedding.weight, None).float()

    def further(self, x: Tensor, past: list[Past] | None) -> tuple[Tensor, list[Past]]:
        """x: [b m d], tokens after those of `past`, of each block -> [b k], scores of the next one, and all of them."""
        begin = 0 if past is None else past[0][0].shape[2]
        x, now = x + self.pos_embed[begin : begin + x.shape[1]], list[Past]()
        for i, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            x, kept = further(block, x, None if past is None else past[i])
            now.append(kept)
        return self.scores(self.norm(x[:, -1])), now


class Captioner(nn.Module):
    """`forward(image: [b 3 y x], text: [b t]) -> [b t k]`: at each place, float32 scores of the token after it.

    Names of weights are CLIP's as far as it goes, `image` and `image_projection`; so is what `encode_image` gives.
    """

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        c = self.config = config
        self.image = c.tower.build()
        self.image_projection = nn.Linear(c.tower.features, c.embed_dim, bias=c.projection_bias)
        self.mapping = Mapping(c.embed_dim, c.prefix, c.text.width)
        self.text = Decoder(c.text, c.prefix)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """CLIP's (openai/CLIP, model.py) for projection and decoder, and LeCun's normal for the mapping, whose tokens
        begin as long as those of words. The tower resets itself when it is built."""
        c, text = self.config, self.text
        nn.init.normal_(self.image_projection.weight, std=c.tower.features**-0.5)
        if self.image_projection.bias is not None:
            nn.init.zeros_(self.image_projection.bias)
        for layer, scale in ((self.mapping.fc1, 1.0), (self.mapping.fc2, 0.02)):
            nn.init.normal_(layer.weight, std=scale * layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(text.token_embedding.weight, std=0.02)
        nn.init.normal_(text.pos_embed, std=0.01)
        for block in text.blocks:
            assert isinstance(block, Block)
            block.reset_parameters(c.text.width**-0.5, (2 * c.text.depth) ** -0.5)
        text.norm.reset_parameters()

    def encode_image(self, image: Tensor) -> Tensor:
        """image: [b 3 y x], uint8 RGB as decoded, or floating and already normalised -> [b e], not of unit length."""
        image = read_pictures(image, self.config, self.image_projection.weight.dtype)
        out: Tensor = self.image_projection(self.image(image))
        return out

    def prefix(self, image: Tensor) -> Tensor:
        """image: [b 3 y x] -> [b p d], the tokens that it becomes."""
        vector = self.encode_image(image)
        out: Tensor = self.mapping(F.normalize(vector.float(), dim=-1).to(vector.dtype))
        return out

    def states(self, image: Tensor, text: Tensor) -> Tensor:
        """image, text: [b t] ids, start first, zero after each end -> [b t d], of which `text.scores` makes scores; of
        so wide a vocabulary one may want them at some places only."""
        out: Tensor = self.text(self.prefix(image), text)
        return out

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        return self.text.scores(self.states(image, text))

    @torch.no_grad()
    def generate(
        self, image: Tensor, beams: int = 5, longest: int | None = None, length_penalty: float = 1.0
    ) -> list[Caption]:
        """image: [b 3 y x] -> for each the best caption that `beam_search` finds. longest: tokens, the end included, by
        default all that there is room for. ValueError for a search that cannot be, or a model in training."""
        if self.training:
            raise ValueError("generate: the model is in training, where chance has a part; call model.eval() first")
        most = self.config.text.context_length - 1
        longest = most if longest is None else longest
        check_search(beams, longest, most, length_penalty)
        first, past = self.text.further(self.prefix(image), None)
        past = [(k.repeat_interleave(beams, 0), v.repeat_interleave(beams, 0)) for k, v in past]

        def go_on(rows: Tensor, tokens: Tensor) -> Tensor:
            nonlocal past
            words = F.embedding(tokens, self.text.token_embedding.weight)
            scores, past = self.text.further(words[:, None], [(k[rows], v[rows]) for k, v in past])
            return scores

        end = self.config.text.end
        return beam_search(first, go_on, beams=beams, longest=longest, end=end, length_penalty=length_penalty)
