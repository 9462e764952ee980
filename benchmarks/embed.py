"""CLIP: pictures and captions to features of unit length, against open_clip as its README runs it, in its default
precision, and in its fastest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import flops, peers
from .clip import ClipCase, Step, lengths, pad

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Embed(ClipCase):
    """Features of unit length, no gradients. `precision` is the peer's; ours computes in bf16."""

    precision: str

    def our_model(self, device: str) -> Any:
        import torch

        return self.model().to(device, torch.bfloat16).eval()

    def their_model(self, device: str) -> Any:
        import torch

        return self.theirs(device).to(torch.bfloat16 if self.precision == "pure_bf16" else torch.float32).eval()

    def their_call(self, encode: Callable[[], torch.Tensor], device: str) -> Step:
        """`encode` under the peer's autocast, or in inference mode with nothing left to cast."""
        import torch

        if self.precision == "pure_bf16":
            return torch.inference_mode()(encode)
        if self.precision == "readme":  # autocast for CUDA, which does nothing on a CPU
            return torch.no_grad()(torch.autocast("cuda")(encode) if device == "cuda" else encode)
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
        import torch

        ids = self.text()
        long = torch.tensor(lengths(ids))
        order = long.argsort(stable=True).chunk(self.pieces)
        return [ids[piece, : int(long[piece].max())] for piece in order]

    def flops(self) -> float:
        return sum(flops.text(self.config(), length) for length in lengths(self.text()))

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


SETTINGS = {"readme": peers.README, "amp_bf16": peers.AMP, "pure_bf16": peers.PURE}

CASES = (
    *(
        EmbedImages(
            name="clip_embed_images", case=f"vit_b32_batch64_{precision}", batch=64, items=64, precision=precision,
            peer_setting=setting, tolerance=0.05,
        )
        for precision, setting in SETTINGS.items()
    ),
    *(
        EmbedTexts(
            name="clip_embed_texts", case=f"vit_b32_256_captions_{precision}", batch=256, items=256,
            precision=precision, peer_setting=setting, tolerance=0.05,
        )
        for precision, setting in SETTINGS.items()
    ),
)  # fmt: skip
