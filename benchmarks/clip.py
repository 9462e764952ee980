"""CLIP: one training step, and embedding of pictures and captions, against open_clip at its best settings.

Both sides hold the same weights (ours, written in open_clip's layout), the same pictures and the same captions, and
their first results are compared. Ours is given what a user gives: uint8 pictures, normalised inside the step, and
captions as long as the longest of their batch. The peer is given float pictures normalised beforehand, and captions
padded to its context, because it raises for shorter ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from . import flops, peers
from .captions import CAPTIONS
from .harness import Case

if TYPE_CHECKING:  # torch and pictura arrive with the first case that runs, so that `--list` is quick
    import torch

    from pictura.models.clip import CLIPConfig

Step = Callable[[], "torch.Tensor"]


# What both sides are given


@dataclass(frozen=True, kw_only=True)
class ClipCase(Case):
    """A model, pictures and captions, the same for both sides."""

    batch: int
    seed: ClassVar[int] = 0

    def config(self) -> CLIPConfig:
        """The model's shapes. open_clip's ViT-B-32 uses the exact GELU, its faster choice."""
        from pictura.config import sized
        from pictura.models.clip import CLIPConfig

        config = sized(CLIPConfig, "ViT-B/32")
        return replace(
            config, image=replace(config.image, activation="gelu"), text=replace(config.text, activation="gelu")
        )

    def text(self, length: int | None = None) -> torch.Tensor:
        """[b t] token ids: t as long as the longest caption, or padded with zeros to `length`."""
        ids = clip_ids((CAPTIONS * (1 + self.batch // len(CAPTIONS)))[: self.batch])
        return ids if length is None else pad(ids, length)

    def pictures(self) -> torch.Tensor:
        """[b 3 y x] uint8 noise: what is in a picture does not change the work."""
        import torch

        size = self.config().image.image_size
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randint(0, 256, (self.batch, 3, size, size), dtype=torch.uint8, generator=generator)

    def model(self) -> torch.nn.Module:
        """Ours, float32, always with the same fresh weights."""
        import torch

        torch.manual_seed(self.seed)
        return self.config().build()

    def theirs(self, device: str) -> torch.nn.Module:
        """open_clip's CLIP of the same shapes with the same weights, float32."""
        import torch

        from pictura.weights.open_clip import from_pictura

        torch.backends.cuda.matmul.allow_tf32 = True  # as open_clip's own training does
        config = self.config()
        model = peers.model(config)
        model.load_state_dict(from_pictura(self.model().state_dict()))
        return model.to(device)

    def normalised(self, device: str) -> torch.Tensor:
        """[b 3 y x] float32, as open_clip's loader hands pictures over."""
        import torch

        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self.config().mean, self.config().std))
        return ((self.pictures().float() / 255 - mean) / std).to(device)


def clip_ids(captions: tuple[str, ...]) -> torch.Tensor:
    """[b t] ids of CLIP's own vocabulary, by our tokenizer, cropped to the longest."""
    from pictura.data.text import ClipTokenizerConfig

    return ClipTokenizerConfig().build(lambda: captions)(captions)


def pad(ids: torch.Tensor, length: int) -> torch.Tensor:
    """[b t] -> [b length], zeros behind."""
    import torch

    return torch.nn.functional.pad(ids, (0, length - ids.shape[1]))


# Training


@dataclass(frozen=True, kw_only=True)
class TrainStep(ClipCase):
    """Forward, loss, backward, AdamW with weight decay groups, bound of the temperature, zero_grad; no clipping."""

    unit: str = "pairs/s"
    compiled: bool = False

    def flops(self) -> float:
        return flops.training_step(self.config(), self.batch, self.text().shape[1])

    def ours(self, device: str) -> Step:
        import torch

        from pictura.objectives.base import Task
        from pictura.objectives.clip import CLIPObjectiveConfig
        from pictura.training.optimizers import AdamWConfig
        from pictura.training.precision import Masters

        task = Task(self.model(), {"clip": CLIPObjectiveConfig().build()}, {"clip": 1.0}).to(device).train()
        masters = Masters(task, torch.bfloat16)
        optimizer = AdamWConfig().build(masters.named())
        batch = {"image": self.pictures().to(device), "text": self.text().to(device)}

        def step() -> torch.Tensor:
            loss = task(batch).loss
            loss.backward()
            masters.collect()
            optimizer.step()
            optimizer.zero_grad()
            masters.publish()
            task.settle()
            return loss

        return step

    def peer(self, device: str) -> Step:
        import torch
        from open_clip import ClipLoss

        model = self.theirs(device).train()
        run = torch.compile(model) if self.compiled else model
        objective = ClipLoss(cache_labels=True)
        optimizer = peers.optimizer(model)
        image, text = self.normalised(device), self.text(self.config().text.context_length).to(device)

        def step() -> torch.Tensor:
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16):
                loss = objective(**run(image, text), output_dict=True)["contrastive_loss"]
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, math.log(100))
            return loss

        return step


# Embedding


@dataclass(frozen=True, kw_only=True)
class Embed(ClipCase):
    """Features of unit length, no gradients. `pure`: the peer's weights are bf16 too; else its default, autocast."""

    pure: bool

    def our_model(self, device: str) -> Any:
        import torch

        return self.model().to(device, torch.bfloat16).eval()

    def their_model(self, device: str) -> Any:
        import torch

        return self.theirs(device).to(torch.bfloat16 if self.pure else torch.float32).eval()

    def their_call(self, encode: Callable[[], torch.Tensor], device: str) -> Step:
        """`encode` as open_clip's README runs it, or in inference mode with nothing left to cast."""
        import torch

        if self.pure:
            return torch.inference_mode()(encode)
        return torch.no_grad()(torch.autocast(device, torch.bfloat16)(encode))


@dataclass(frozen=True, kw_only=True)
class EmbedImages(Embed):
    """One batch of pictures."""

    unit: str = "images/s"

    def flops(self) -> float:
        return self.batch * flops.image(self.config())

    def ours(self, device: str) -> Step:
        import torch

        model, image = self.our_model(device), self.pictures().to(device)
        return torch.inference_mode()(lambda: unit_length(model.encode_image(image)))

    def peer(self, device: str) -> Step:
        model, image = self.their_model(device), self.normalised(device)
        image = image.to(model.visual.conv1.weight.dtype)
        return self.their_call(lambda: model.encode_image(image, normalize=True), device)


@dataclass(frozen=True, kw_only=True)
class EmbedTexts(Embed):
    """`batch` captions in `pieces`, sorted by length since order is free; the peer's are as long as its context."""

    unit: str = "texts/s"
    pieces: int = 4

    def sorted_text(self) -> list[torch.Tensor]:
        """Pieces [b/pieces t], shortest captions first, each cropped to its own longest."""
        ids = self.text()
        lengths = ids.argmax(1) + 1  # the end token has the highest id
        order = lengths.argsort(stable=True).chunk(self.pieces)
        return [ids[piece, : int(lengths[piece].max())] for piece in order]

    def flops(self) -> float:
        return sum(len(piece) * flops.text(self.config(), piece.shape[1]) for piece in self.sorted_text())

    def ours(self, device: str) -> Step:
        import torch

        model, pieces = self.our_model(device), [piece.to(device) for piece in self.sorted_text()]
        return torch.inference_mode()(lambda: torch.cat([unit_length(model.encode_text(piece)) for piece in pieces]))

    def peer(self, device: str) -> Step:
        import torch

        model, context = self.their_model(device), self.config().text.context_length
        pieces = [pad(piece, context).to(device) for piece in self.sorted_text()]
        encode = model.encode_text
        return self.their_call(lambda: torch.cat([encode(piece, normalize=True) for piece in pieces]), device)


def unit_length(features: torch.Tensor) -> torch.Tensor:
    """[b e] -> [b e] in float32."""
    import torch

    return torch.nn.functional.normalize(features.float(), dim=1)


# The cases

AMP = "amp_bf16 (autocast over float32 weights, its default)"
PURE = "pure_bf16 (weights and pictures bf16, inference_mode)"
STEP = f"{AMP}, fused AdamW"

CASES = (
    TrainStep(name="clip_train_step", case="vit_b32_batch32", batch=32, items=32, peer_setting=STEP, tolerance=0.01),
    TrainStep(
        name="clip_train_step", case="vit_b32_batch32_peer_compiled", batch=32, items=32, compiled=True, opt_in=True,
        peer_setting=f"{STEP}, torch.compile", tolerance=0.01,
    ),
    *(
        EmbedImages(
            name="clip_embed_images", case=f"vit_b32_batch64_{name}", batch=64, items=64, pure=name == "pure_bf16",
            peer_setting=setting, tolerance=0.05,
        )
        for name, setting in (("amp_bf16", AMP), ("pure_bf16", PURE))
    ),
    *(
        EmbedTexts(
            name="clip_embed_texts", case=f"vit_b32_256_captions_{name}", batch=256, items=256,
            pure=name == "pure_bf16",
            peer_setting=setting, tolerance=0.05,
        )
        for name, setting in (("amp_bf16", AMP), ("pure_bf16", PURE))
    ),
)  # fmt: skip
