"""ViLT (Kim et al., ViLT: Vision-and-Language Transformer Without Convolution or Region Supervision, 2021).

One Transformer, a ViT's, reads a text and a picture's patches together (section 3.1). Pictures keep their aspect ratio
and texts their length: the tokens of all examples are packed, so that padding costs nothing. Where paper, released code
and Hugging Face differ: patches stay in reading order (the code shuffles them, which changes nothing that is read);
which patches are real follows from each picture's size, not from pixels that are not black; `image.eps` is 1e-6 as in
the code (Hugging Face: 1e-12), 1e-12 in the embedding of words as in BERT.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.layers.draws import Drawing, has_chance
from pictura.layers.dropout import Dropout
from pictura.layers.linear import Linear
from pictura.layers.once import Once
from pictura.layers.packing import Packing, places_of
from pictura.layers.positions import stretch_positions
from pictura.models.pictures import PictureModelConfig, read_pictures
from pictura.models.vilt_parts import PatchesHead, TwoLayers, WordEmbedding, WordsConfig, WordsHead
from pictura.models.vit import ViTConfig

JointTask = Literal["words", "matching", "rank", "answers", "pair", "patches"]
Pictures = Tensor | Sequence[Tensor]  # [b 3 y x], or b of [3 y x], each of its own size


@dataclass(frozen=True, kw_only=True)
class ViLTConfig(PictureModelConfig):
    """`image` is the ViT whose Transformer reads both; a recipe with `initial` may leave it to that model.

    tasks: what there are heads for: to tell `words` behind a mask, whether text and picture are `matching`, the `rank`
    of pictures and texts for each other, which of `answers` is that to a question, whether a statement holds of a
    `pair` of pictures, the colours of hidden `patches`.
    answers: their words; a recipe that leaves them out takes those of its data.
    max_patches: of a picture in training, drawn by chance where there are more (paper, section 4.1: 200).
    longest: side of a picture, in pixels, as in the view `fit`; None is 1333 / 800 of the shorter one.
    dropout: becomes that of `image`, also where this comes from an `initial` model (released code: 0.1).
    """

    kind: ClassVar[str] = "vilt"
    tower_kind = ViTConfig
    resizes: ClassVar[tuple[str, ...]] = ("fit",)
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "B/32": {"image": {"kind": "vit", "size": "B/32", "image_size": 384, "dropout": 0.1}},
    }

    resize: Literal["shortest", "squash", "fit"] = "fit"
    text: WordsConfig = field(default_factory=WordsConfig)
    tasks: tuple[JointTask, ...] = ("words", "matching")
    answers: tuple[str, ...] = ()
    max_patches: int | None = None
    longest: int | None = None
    dropout: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dropout is not None and isinstance(self.image, ViTConfig):
            object.__setattr__(self, "image", replace(self.image, dropout=self.dropout))
            object.__setattr__(self, "dropout", None)
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"tasks: {', '.join(self.tasks)}: each only once")
        object.__setattr__(self, "tasks", tuple(task for task in get_args(JointTask) if task in self.tasks))
        if len(set(self.answers)) != len(self.answers):
            twice = next(answer for answer in self.answers if self.answers.count(answer) > 1)
            raise ValueError(f"answers: {twice!r} is there twice")
        if self.crop != 1 or self.interpolation != "bicubic":
            raise ValueError("crop, interpolation: ViLT reads whole pictures, resized bicubically; leave both out")
        if self.max_patches is not None and self.max_patches < 1:
            raise ValueError(f"max_patches: {self.max_patches} is below 1; the paper has 200")
        if isinstance(self.image, ViTConfig) and self.image.patch_dropout:
            raise ValueError("image.patch_dropout: ViLT leaves patches out by max_patches; set patch_dropout to 0")

    @property
    def vit(self) -> ViTConfig:
        """`image`. ValueError where it is no ViT."""
        if not isinstance(self.tower, ViTConfig):
            raise ValueError(f"image.kind: {self.tower.kind}: ViLT's Transformer is a vit")  # type: ignore[attr-defined]
        return self.tower

    @property
    def embed_dim(self) -> int:
        """Numbers of what is read, [b d]."""
        return self.vit.width

    def build(self) -> "ViLT":
        """The module, with fresh weights."""
        if self.longest is not None and self.longest < self.vit.image_size:
            raise ValueError(f"longest: {self.longest} is below image.image_size, the shorter side")
        return ViLT(self)


class Joint(NamedTuple):
    """Texts and pictures read together. tokens: [n d]: all texts side by side, then all pictures, each with its class
    token first, if there is one. inside: [b t], where the texts have tokens. counts: [b], the pictures' tokens. grids:
    (y, x) patches of each picture, of which in training only some may have been taken."""

    tokens: Tensor
    inside: Tensor
    counts: Tensor
    grids: list[tuple[int, int]]

    @property
    def words(self) -> Tensor:
        """[words d], those of the texts."""
        return self.tokens[: int(self.inside.sum())]


class ViLT(Drawing, Once):
    """`read(pictures, text: [b t]) -> [b d]`, the pooled class token of the text, and what the heads make of it."""

    def __init__(self, config: ViLTConfig) -> None:
        super().__init__()
        c, vit = config, config.vit
        d = vit.width
        self.config = c
        self.image = vit.build()
        self.text = WordEmbedding(c.text, d, vit.dropout)
        self.type_embed = nn.Parameter(torch.empty(3 if "pair" in c.tasks else 2, d))  # text, picture, second picture
        self.dropout = Dropout(vit.dropout)
        self.pooler = Linear(d, d)
        build: dict[JointTask, Callable[[], nn.Module]] = {
            "words": lambda: WordsHead(d, c.text.eps, c.text.vocab_size),
            "matching": lambda: Linear(d, 2),
            "rank": lambda: Linear(d, 1),
            "answers": lambda: TwoLayers(d, 2 * d, len(c.answers)),
            "pair": lambda: TwoLayers(2 * d, 2 * d, 2),
            "patches": lambda: PatchesHead(d, c.text.eps),
        }
        self.heads = nn.ModuleDict({task: build[task]() for task in c.tasks})
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """BERT's: normal of 0.02, biases zero (Devlin et al. 2019). The ViT resets itself when it is built.

        Each answer begins as likely as among equals; its sigmoid would begin at 1/2, which steps are lost in
        unlearning (Lin et al., Focal Loss for Dense Object Detection, 2017, section 4.1).
        """
        for module in (self.text, self.pooler, self.heads):
            for part in module.modules():
                if isinstance(part, nn.Linear | nn.Embedding):
                    nn.init.normal_(part.weight, std=0.02)
                if isinstance(part, nn.Linear):
                    nn.init.zeros_(part.bias)
                if isinstance(part, nn.LayerNorm):
                    part.reset_parameters()
                if isinstance(part, PatchesHead):
                    nn.init.normal_(part.mask_token, std=0.02)
        for table in (self.text.pos_embed, self.type_embed):
            nn.init.normal_(table, std=0.02)
        if "answers" in self.heads:
            head = self._head("answers")
            assert isinstance(head, TwoLayers)
            nn.init.constant_(head.fc2.bias, -math.log(max(1, len(self.config.answers) - 1)))

    def forward(self, image: Pictures, text: Tensor, hidden: Sequence[Tensor] | None = None) -> Joint:
        """Every token of the last layer, normalised, for what reads more than one of them.

        hidden: b of [n], on the CPU, which patches of each picture are replaced by the mask token; by default none.
        """
        x, packing, joint = self._embed(image, text, hidden=hidden)
        for block in self.image.blocks:
            x = block(x, None, packing)
        return joint._replace(tokens=self.image.norm(x))

    def pool(self, joint: Joint) -> Tensor:
        """What `read` gives, [b d], of tokens that are there already."""
        lengths = joint.inside.sum(1)
        out: Tensor = self.pooler(joint.words[lengths.cumsum(0) - lengths]).tanh()
        return out

    def read(self, image: Pictures, text: Tensor, types: Tensor | None = None, which: Tensor | None = None) -> Tensor:
        """pictures, text: [b t] ids, zero after each end -> [b d]: tanh of the first token of the text, projected.

        types: [b] row of `type_embed` of each picture, by default 1. which: [b], the picture that each text is read
        beside, by default its own one; patches of a picture are computed once for all of its texts. The last block
        computes the text's first token alone.
        """
        x, packing, _ = self._embed(image, text, types, which)
        for block in self.image.blocks[:-1]:
            x = block(x, None, packing)
        first = torch.zeros(packing.shape[0], dtype=torch.long, device=x.device)
        x = self.image.norm(self.image.blocks[-1](x, first, packing)).squeeze(1)
        out: Tensor = self.pooler(x).tanh()
        return out

    def match(self, image: Pictures, text: Tensor, which: Tensor | None = None) -> Tensor:
        """pictures and texts, one by one or by `which` -> [b] float32, higher where they match: `rank`, or else the
        matching head's score for a match, which is what the paper ranks by without fine-tuning (section 4.4)."""
        pooled = self.read(image, text, None, which).float()  # in bf16 too many scores would tie
        head = self._head("rank" if "rank" in self.heads else "matching")
        assert isinstance(head, Linear) and head.bias is not None
        return F.linear(pooled, head.weight[-1:].float(), head.bias[-1:].float()).squeeze(1).float()

    def answer(self, image: Pictures, text: Tensor) -> Tensor:
        """pictures and questions -> [b k] float32, a score for each of `config.answers`, before the sigmoid."""
        scores: Tensor = self._head("answers")(self.read(image, text))
        return scores.float()

    def compare(self, left: Pictures, right: Pictures, text: Tensor) -> Tensor:
        """pairs of pictures and statements about them -> [b 2] float32, scores for false and true.

        Each picture is read beside the statement, the right one under the third type (paper, section 4.3: NLVR2).
        """
        b = len(text)
        types = torch.ones(2 * b, dtype=torch.long, device=text.device)
        types[b:] = 2
        both = self.read([*left, *right], torch.cat([text, text]), types)
        pairs = both.view(-1, 2, b, both.shape[1]).transpose(1, 2).flatten(2).flatten(0, 1)  # -1: draws
        scores: Tensor = self._head("pair")(pairs)
        return scores.float()

    def _head(self, task: JointTask) -> nn.Module:
        if task not in self.heads:
            raise ValueError(f"tasks: this model has no head for {task}; it has {', '.join(self.heads) or 'none'}")
        return self.heads[task]

    def _embed(
        self,
        image: Pictures,
        text: Tensor,
        types: Tensor | None = None,
        which: Tensor | None = None,
        hidden: Sequence[Tensor] | None = None,
    ) -> tuple[Tensor, Packing, Joint]:
        """Tokens before the first block, [n d], how they are packed, and what they are.

        The draws of `two_draws` begin here: the first thing done to a token is dropout.
        """
        patches, grids, positions = self.once(image, "patches", lambda: self._patches(image))
        if hidden is not None:
            patches = self._hide(patches, positions, hidden)
        if which is not None:
            places = which.tolist()
            patches, grids = [patches[i] for i in places], [grids[i] for i in places]
        if len(patches) != len(text) or not len(text):
            raise ValueError(f"{len(patches)} pictures and {len(text)} texts: they are read in pairs, at least one")
        types = torch.ones(len(text), dtype=torch.long, device=text.device) if types is None else types
        if self.drawing and has_chance(self):
            patches, grids, text, types = [*patches, *patches], [*grids, *grids], text.repeat(2, 1), types.repeat(2)
        lengths = self.config.text.ends(text) + 1
        inside = torch.arange(text.shape[1], device=text.device) < lengths[:, None]
        words = self.text(text, inside) + self.type_embed[0]
        counts = torch.tensor([len(tokens) for tokens in patches], device=text.device)
        packing = Packing(lengths, counts)
        kinds = F.embedding(types.repeat_interleave(counts), self.type_embed)
        pixels = self.dropout(torch.cat(patches)) + kinds
        x = torch.cat([words, self.image.norm_pre(pixels)])
        return x, packing, Joint(x, inside, counts, grids)

    def _hide(self, patches: list[Tensor], positions: list[Tensor], hidden: Sequence[Tensor]) -> list[Tensor]:
        """What `_patches` gives, with the mask token in place of hidden patches, before positions are added."""
        extra = int(self.image.cls_token is not None)
        found, wanted = [len(tokens) - extra for tokens in patches], [len(which) for which in hidden]
        if found != wanted:
            raise ValueError(f"hidden: of pictures of {wanted} patches, but these have {found}, by size or max_patches")
        head = self._head("patches")
        assert isinstance(head, PatchesHead)
        x = torch.cat(patches)
        masked = head.mask_token + torch.cat(positions)[places_of(hidden).to(x.device)]
        x = x.index_copy(0, places_of(hidden, extra).to(x.device), masked.to(x.dtype))
        return list(x.split([len(tokens) for tokens in patches]))

    def _patches(self, image: Pictures) -> tuple[list[Tensor], list[tuple[int, int]], list[Tensor]]:
        """Of each picture its tokens with their positions, [n d], its grid, and the positions of its patches alone,
        [n d]. Pictures of one size are read at once."""
        vit, patch, dtype = self.image, self.image.config.patch_size, self.image.pos_embed.dtype
        if isinstance(image, Tensor):
            image = read_pictures(image, self.config, dtype)
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, one in enumerate(image):
            groups[(one.shape[-2], one.shape[-1])].append(i)
        tokens, grids, places = [torch.empty(0)] * len(image), [(0, 0)] * len(image), [torch.empty(0)] * len(image)
        extra = vit.cls_token is not None
        for (height, width), members in groups.items():
            together = image if isinstance(image, Tensor) else torch.stack([image[i] for i in members])
            grid = (height // patch, width // patch)
            pixels = read_pictures(together.to(vit.pos_embed.device), self.config, dtype)
            positions = stretch_positions(vit.pos_embed[0, extra:], (vit.grid,) * 2, grid)
            found = self._sampled(vit.patch_embed(pixels) + positions)
            if vit.cls_token is not None:
                first = vit.cls_token + vit.pos_embed[:, :1]
                found = torch.cat([first.expand(len(found), 1, -1), found], 1)
            for i, one in zip(members, found.unbind(), strict=True):
                tokens[i], grids[i], places[i] = one, grid, positions
        return tokens, grids, places

    def _sampled(self, patches: Tensor) -> Tensor:
        """[b n d] -> [b at most max_patches d] in training, of each picture others, in the order that they had."""
        most, (b, n, d) = self.config.max_patches, patches.shape
        if most is None or not self.training or n <= most:
            return patches
        kept = torch.rand(b, n, device=patches.device).argsort(1)[:, :most].sort(1).values
        return patches.gather(1, kept[:, :, None].expand(-1, -1, d))
