"""ViLT against Hugging Face: eight pictures of mixed sizes and shapes beside texts of 20 to 40 tokens.

Both sides hold the same weights and are given normalised pictures: ours one by one, theirs as its processor pads them,
with the mask of pixels. Its attention is the only one that it offers. Where ours reads one token, its model computes
all, since it has no way not to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from .clip import FOREVER, Step
from .harness import COMMAND, Case, Side

if TYPE_CHECKING:
    import torch

PATCH = 32
GRIDS = ((12, 12), (12, 16), (16, 12), (12, 18), (12, 14), (18, 12), (12, 15), (12, 17))  # patches, down and across
LENGTHS = (20, 40, 25, 33, 28, 37, 22, 30)  # tokens of each text
START, END, MASK = 101, 102, 103


@dataclass(frozen=True, kw_only=True)
class ViLTCase(Case):
    """ViLT-B/32 with BERT's vocabulary. precision: of the weights on both sides, or of theirs under autocast."""

    precision: str
    unit: str = "images/s"
    items: int = len(GRIDS)
    peer_name: str = "transformers"

    def config(self, dropout: float = 0.0) -> Any:
        from pictura.config import sized
        from pictura.models.vilt import ViLTConfig

        config = sized(ViLTConfig, "B/32")
        return replace(config, image=replace(config.vit, dropout=dropout, eps=1e-12))

    def model(self, dropout: float = 0.0) -> torch.nn.Module:
        """Ours, float32, always with the same weights."""
        import torch

        torch.manual_seed(0)
        model: torch.nn.Module = self.config(dropout).build()
        return model

    def theirs(self, dropout: float = 0.0) -> Any:
        """Hugging Face's `ViltModel` with our weights, float32."""
        from transformers import ViltConfig, ViltModel

        from pictura.weights.huggingface_vilt import from_pictura

        body = {name: value for name, value in self.model().state_dict().items() if not name.startswith("heads.")}
        model: Any = ViltModel(ViltConfig(hidden_dropout_prob=dropout))
        model.load_state_dict(from_pictura(body, ()))
        return model

    def pictures(self, device: str) -> list[torch.Tensor]:
        """[3 y x] float32 noise, normalised: what is in a picture does not change the work."""
        import torch

        generator = torch.Generator().manual_seed(1)
        return [torch.randn(3, PATCH * y, PATCH * x, generator=generator).to(device) for y, x in GRIDS]

    def texts(self, device: str) -> torch.Tensor:
        """[b t]: start, words, end, zeros."""
        import torch

        generator = torch.Generator().manual_seed(2)
        ids = torch.randint(1000, 30000, (len(LENGTHS), max(LENGTHS)), generator=generator)
        ids[:, 0] = START
        for row, length in zip(ids, LENGTHS, strict=True):
            row[length - 1], row[length:] = END, 0
        return ids.to(device)

    def padded(self, device: str) -> dict[str, torch.Tensor]:
        """The same as Hugging Face's processors give it."""
        import torch

        pictures, text = self.pictures(device), self.texts(device)
        height, width = (max(picture.shape[axis] for picture in pictures) for axis in (1, 2))
        pixels = torch.zeros(len(pictures), 3, height, width, device=device)
        mask = torch.zeros(len(pictures), height, width, dtype=torch.int64, device=device)
        for i, picture in enumerate(pictures):
            pixels[i, :, : picture.shape[1], : picture.shape[2]] = picture
            mask[i, : picture.shape[1], : picture.shape[2]] = 1
        return {"input_ids": text, "attention_mask": (text > 0).long(), "pixel_values": pixels, "pixel_mask": mask}

    def flops(self) -> float:
        """Matrix products of the tokens that there are; of the last block keys and values, and what one token needs."""
        return self.forward_flops() - sum(20 * n * self.config().vit.width ** 2 for n in self.tokens())

    def tokens(self) -> list[int]:
        return [y * x + 1 + length for (y, x), length in zip(GRIDS, LENGTHS, strict=True)]

    def forward_flops(self) -> float:
        """All tokens in every block."""
        vit = self.config().vit
        d = vit.width
        blocks = sum(24 * n * d * d + 4 * n * n * d for n in self.tokens())
        return vit.depth * blocks + self.patch_flops()

    def patch_flops(self) -> float:
        """Of pixels made into tokens."""
        return sum(y * x for y, x in GRIDS) * 2.0 * 3 * PATCH**2 * self.config().vit.width


@dataclass(frozen=True, kw_only=True)
class Inference(ViLTCase):
    """The pooled token of one batch, no gradients."""

    def dtype_of_weights(self) -> Any:
        import torch

        return torch.float32 if self.precision == "float32" else torch.bfloat16

    def ours(self, device: str) -> Step:
        import torch

        dtype = self.dtype_of_weights()
        model: Any = self.model().to(device, dtype).eval()
        pictures, text = [picture.to(dtype) for picture in self.pictures(device)], self.texts(device)
        return torch.inference_mode()(lambda: model.read(pictures, text).float())

    def peer(self, device: str) -> Step:
        import torch

        dtype = self.dtype_of_weights()
        model = self.theirs().to(device, dtype).eval()
        given = self.padded(device)
        given["pixel_values"] = given["pixel_values"].to(dtype)
        return torch.inference_mode()(lambda: model(**given).pooler_output.float())


@dataclass(frozen=True, kw_only=True)
class TrainStep(ViLTCase):
    """Masked words and matching: two forwards and one backward, fused AdamW; dropout 0.1. Ours makes pixels into tokens
    once for both.

    Theirs under autocast, the head of masked words at every place of the text, as `ViltForMaskedLM` has it.
    """

    def environment(self, side: Side) -> dict[str, str]:
        return COMMAND if side == "ours" else {}

    def flops(self) -> float:
        return 3 * (self.forward_flops() + super().flops() - self.patch_flops())

    def ours(self, device: str) -> Step:
        import tempfile
        from pathlib import Path

        from pictura.objectives.base import Task
        from pictura.objectives.masked_words import MaskedWordsConfig
        from pictura.objectives.matching import MatchingConfig
        from pictura.training.config import TrainingConfig
        from pictura.training.loop import Trainer
        from pictura.training.optimizers import AdamWConfig
        from pictura.training.schedules import CosineConfig

        precision: Any = self.precision
        objectives = {"words": MaskedWordsConfig().build(), "matching": MatchingConfig().build()}
        task = Task(self.model(0.1), objectives, dict.fromkeys(objectives, 1.0))
        config = TrainingConfig(steps=FOREVER, precision=precision, clip_norm=None)
        folder, schedule = Path(tempfile.gettempdir()) / "benchmark", CosineConfig(warmup=0)
        trainer = Trainer(task, config, AdamWConfig(), schedule, folder, device=device)
        text = self.texts(device)
        words = (text > START) * text.new_ones(text.shape).cumsum(1) * (text != END)
        batch = {"image": self.pictures(device), "text": text, "words": words, "other": text.roll(1, 0)[:, None]}
        return lambda: trainer._advance(batch | {"seed": list(range(len(text)))}).loss.detach()

    def peer(self, device: str) -> Step:
        import torch
        from torch import nn
        from transformers import ViltConfig
        from transformers.models.vilt.modeling_vilt import ViltMLMHead

        model = self.theirs(0.1)
        head, matching = ViltMLMHead(ViltConfig()), nn.Linear(768, 2)
        parts = nn.ModuleList([model, head, matching]).to(device).train()
        optimizer = torch.optim.AdamW(parts.parameters(), lr=1e-4, fused=True)
        given, text = self.padded(device), self.texts(device)
        hidden = (torch.rand(text.shape, generator=torch.Generator().manual_seed(3)).to(device) < 0.15) & (text > MASK)
        label, masked = text.masked_fill(~hidden, -100), text.masked_fill(hidden, MASK)
        match = torch.arange(len(text), device=device) % 2
        texts = torch.where(match[:, None].bool(), text, text.roll(1, 0))
        inside = (texts > 0).long()

        def step() -> torch.Tensor:
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16"):
                tokens = model(**given | {"input_ids": masked}).last_hidden_state[:, : text.shape[1]]
                loss = nn.functional.cross_entropy(head(tokens).flatten(0, 1), label.flatten())
                pooled = model(**given | {"input_ids": texts, "attention_mask": inside}).pooler_output
                loss = loss + nn.functional.cross_entropy(matching(pooled), match)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step


inference: Callable[..., Inference] = partial(Inference, name="vilt_inference", tolerance=0.05)
step: Callable[..., TrainStep] = partial(TrainStep, name="vilt_train_step")

CASES = (
    inference(case="b32_batch8_bf16", precision="bf16", peer_setting="ViltModel, bf16 weights, inference_mode"),
    inference(
        case="b32_batch8_float32", precision="float32", dtype="float32", tolerance=1e-3,
        peer_setting="ViltModel, float32, inference_mode",
    ),
    step(case="b32_batch8_bf16", precision="bf16", peer_setting="ViltModel twice, autocast to bf16, fused AdamW"),
    step(
        case="b32_batch8_float32", precision="float32", dtype="float32",
        peer_setting="ViltModel twice, float32, fused AdamW",
    ),
)  # fmt: skip
