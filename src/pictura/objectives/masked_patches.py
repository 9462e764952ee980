"""Masked patch prediction beside a text (ViLT, Kim et al. 2021, section 4.5: an ablation, which did not help there).

Of each picture 15 % of the patches are hidden, and the mean of each colour over each one's pixels is asked for, as one
of 256. Of the hidden ones 80 % are replaced by a learned token and the rest stay as they are. So the released code
means it: no patch becomes another one, though its comment says so after BERT, and it cannot run, for want of the token
that it asks for. The paper says no more than 15 %. Which ones is a function of (seed, epoch, index).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.data.randomness import uniforms
from pictura.distributed.gather import shared_mean
from pictura.layers.packing import Packing, places_of
from pictura.layers.patches import PatchEmbed, patchify
from pictura.losses.divergence import symmetric_divergence
from pictura.models.pictures import PictureModelConfig, read_pictures
from pictura.models.vilt import Pictures, ViLT
from pictura.objectives.base import Batch, Features, Objective, ObjectiveConfig, Outcome
from pictura.objectives.joint import check_joint

SALT = 0x2545F4914F6CDD1D  # its random numbers are not those of words and texts of the same example
MASKED = 0.8  # below it a hidden patch is masked, else it stays


@dataclass(frozen=True, kw_only=True)
class MaskedPatchesConfig(ObjectiveConfig):
    """share: of the patches that are hidden, at least one of each picture."""

    kind: ClassVar[str] = "masked_patches"

    share: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            raise ValueError(f"share: {self.share} must be above 0 and below 1; the paper has 0.15")

    def build(self) -> "MaskedPatches":
        """The objective."""
        return MaskedPatches(self.share)


class MaskedPatches(Objective):
    """Metrics: `hits`, the share of colours that are guessed exactly, and `error`, how far the colour that is expected
    is from the right one, of 0 to 255."""

    needs = frozenset({"image", "text", "seed"})

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def attach(self, model: nn.Module) -> None:
        most = check_joint(model, "patches").config.max_patches
        if most is not None:
            raise ValueError(
                f"model.max_patches: {most}: patches that are left out cannot be asked for; set it to null"
            )

    def embed(self, model: nn.Module, batch: Batch) -> Features:
        """-> loss, hits, error: [b], means over the hidden patches of each picture, count: [b] of these; from two draws
        also apart: [b], how far these are from each other. Pictures of many sizes have no more in common than that.
        """
        assert isinstance(model, ViLT)
        image, vit = batch["image"], model.image
        patch = vit.config.patch_size
        right = colours(image, patch, model.config)
        hidden, masked = hide([len(one) for one in right], batch["seed"], self.share)
        if not isinstance(vit.patch_embed, PatchEmbed):  # it would see their pixels from the patches around them
            image = [blanked(one, which, patch) for one, which in zip(image, masked, strict=True)]
        joint = model(image, batch["text"], masked)
        draws, device = len(joint.counts) // len(right), joint.tokens.device
        places = places_of(hidden * draws, int(vit.cls_token is not None)).to(device)
        logits = model.heads["patches"](joint.tokens[len(joint.words) + places]).float()
        target = torch.cat(right)[places_of(hidden)].to(device).repeat(draws, 1)
        count = [int(which.sum()) for which in hidden]
        features = {name: per_picture(value, count * draws) for name, value in measured(logits, target).items()}
        features["count"] = torch.tensor(count, device=device)
        if draws == 2:
            one, two = (draw.flatten(0, 1) for draw in logits.chunk(2))
            features["apart"] = per_picture(symmetric_divergence(one, two).view(-1, 3).mean(1), count)
        return features

    def score(self, model: nn.Module, features: Features, rows: slice) -> Outcome:
        loss, hits, error = (every_patch(features, name, rows) for name in ("loss", "hits", "error"))
        return Outcome(shared_mean(loss), {"hits": shared_mean(hits), "error": shared_mean(error)})

    def divergence(self, model: nn.Module, one: Features, two: Features, rows: slice) -> Tensor:
        return shared_mean(every_patch(one, "apart", rows))


def colours(image: Pictures, patch: int, config: PictureModelConfig) -> list[Tensor]:
    """Pictures, uint8, or floating and normalised -> b of [n 3] from 0 to 255: each colour's mean over each patch."""
    if not isinstance(image, Tensor):
        return [found for one in image for found in colours(one[None], patch, config)]
    pixels = read_pictures(image, config, torch.float32)
    if image.dtype == torch.uint8:
        pixels = image.float()
    else:
        mean, std = (torch.tensor(v, device=image.device).view(3, 1, 1) for v in (config.mean, config.std))
        pixels = 255 * (pixels * std + mean)
    means = patchify(pixels, patch).unflatten(2, (3, patch * patch)).mean(3)
    return list(means.round().clamp(0, 255).long().unbind())


def hide(patches: Sequence[int], seeds: Sequence[int], share: float) -> tuple[list[Tensor], list[Tensor]]:
    """How many patches each of b pictures has -> which of them are asked for, b of [n], and which of these are masked.

    A picture's own do not depend on how large the others of its batch are.
    """
    most = max(patches)
    chance = uniforms([seed ^ SALT for seed in seeds], 2 * most).view(-1, most, 2)
    outside = torch.arange(most) >= torch.tensor(patches)[:, None]
    whether = chance[:, :, 0].masked_fill(outside, 2.0)
    hidden = (whether < share) | (whether == whether.amin(1, keepdim=True))
    masked = hidden & (chance[:, :, 1] < MASKED)
    asked, gone = ([row[:n] for row, n in zip(rows, patches, strict=True)] for rows in (hidden, masked))
    return asked, gone


def blanked(image: Tensor, masked: Tensor, patch: int) -> Tensor:
    """[3 y x], of whose patches those that are `masked`, [n], become zeros."""
    _, y, x = image.shape
    where = masked.to(image.device).view(y // patch, 1, x // patch, 1).expand(-1, patch, -1, patch).reshape(y, x)
    return image.masked_fill(where, 0)


def measured(logits: Tensor, right: Tensor) -> Features:
    """[m 3 256] and the colours that there were, [m 3] -> loss, hits, error: [m], means over the three."""
    losses = F.cross_entropy(logits.flatten(0, 1), right.flatten(), reduction="none").view(-1, 3)
    seen = logits.detach()
    expected = seen.softmax(2) @ torch.arange(256.0, device=seen.device)
    found = {"loss": losses, "hits": (seen.argmax(2) == right).float(), "error": (expected - right).abs()}
    return {name: value.mean(1) for name, value in found.items()}


def per_picture(values: Tensor, counts: Sequence[int]) -> Tensor:
    """[m] of all patches -> [b], the mean over each picture's."""
    pieces = torch.tensor(counts, device=values.device)
    return Packing(pieces).unpack(values[:, None]).flatten(1).sum(1) / pieces


def every_patch(features: Features, name: str, rows: slice) -> Tensor:
    """[m]: for each hidden patch the mean over its picture's, so that every patch counts the same."""
    return features[name][rows].repeat_interleave(features["count"][rows])
