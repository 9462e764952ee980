"""CLIP: one training step against open_clip at its best settings; `embed.py` embeds with the same model and inputs.

Both sides are given the same pictures and the same captions. Of ViT-B/32 they hold the same weights too (ours, written
in open_clip's layout), and their first results are compared. The demo's model open_clip holds only with a class token
more, so there each side starts from its own weights and nothing is compared. Ours is given what a user gives: uint8
pictures, normalised inside the step, and captions as long as the longest of their batch. The peer is given float
pictures normalised beforehand, and captions padded to its context, because it raises for shorter ones.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from . import flops, peers
from .captions import CAPTIONS
from .harness import COMMAND, Case, Side

if TYPE_CHECKING:  # torch and pictura arrive with the first case that runs, so that `--list` is quick
    import torch

    from pictura.models.clip import CLIPConfig
    from pictura.prepare import Prepared

FOREVER = 1_000_000  # steps of the schedule: more than any run makes
Step = Callable[[], "torch.Tensor"]


# What both sides are given


@dataclass(frozen=True, kw_only=True)
class ClipCase(Case):
    """A model's shapes, pictures and captions, the same for both sides."""

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
        """open_clip's CLIP of the same shapes, float32; with the same weights where it can hold them."""
        import torch

        torch.backends.cuda.matmul.allow_tf32 = True  # as open_clip's own training does
        config = self.config()
        model = peers.model(config)
        if peers.holds(config):
            from pictura.weights.open_clip import from_pictura

            model.load_state_dict(from_pictura(self.model().state_dict()))
        return model.to(device)

    def normalised(self, device: str) -> torch.Tensor:
        """[b 3 y x] float32, as open_clip's loader hands pictures over."""
        import torch

        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self.config().mean, self.config().std))
        return ((self.pictures().float() / 255 - mean) / std).to(device)


def clip_ids(captions: tuple[str, ...]) -> torch.Tensor:
    """[b t] ids of CLIP's own vocabulary, by our tokenizer, cropped to the longest."""
    from pictura.data.vocabularies import CLIPTokenizerConfig

    return CLIPTokenizerConfig().build(lambda: captions)(captions)


def lengths(ids: torch.Tensor) -> list[int]:
    """[b t] -> tokens of each text up to its end token, which has the highest id."""
    return [int(at) + 1 for at in ids.argmax(1)]


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
    fused: bool = True

    def environment(self, side: Side) -> dict[str, str]:
        return COMMAND if side == "ours" else {}

    def flops(self) -> float:
        return flops.training_step(self.config(), lengths(self.text()))

    def recipe(self) -> dict[str, Any]:
        """What our trainer takes: `config` and `optimizer`, CLIP's defaults."""
        from pictura.training.config import TrainingConfig
        from pictura.training.optimizers import AdamWConfig

        return {"config": TrainingConfig(steps=FOREVER, precision="bf16", clip_norm=None), "optimizer": AdamWConfig()}

    def ours(self, device: str) -> Step:
        from pictura.objectives.base import Task
        from pictura.objectives.clip import CLIPObjectiveConfig
        from pictura.training.loop import Trainer
        from pictura.training.schedules import CosineConfig

        task = Task(self.model(), {"clip": CLIPObjectiveConfig().build()}, {"clip": 1.0})
        # The trainer writes nothing before it saves, and nobody asks it to.
        folder, schedule = Path(tempfile.gettempdir()) / "benchmark", CosineConfig(warmup=0)
        trainer = Trainer(task, **self.recipe(), schedule=schedule, folder=folder, device=device)
        batch = {"image": self.pictures().to(device), "text": self.text().to(device)}
        return lambda: trainer._advance(batch).loss.detach()

    def peer(self, device: str) -> Step:
        import torch
        from open_clip import ClipLoss

        model = self.theirs(device).train()
        run = torch.compile(model) if self.compiled else model
        objective = ClipLoss(cache_labels=True)
        optimizer = peers.optimizer(model, fused=self.fused)
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


@cache
def demo() -> Prepared:
    """The demo's recipe, opened: its scenes, its tokenizer trained on their captions, its model."""
    from pictura.prepare import prepare
    from pictura.recipe import read_recipe

    recipe = read_recipe("demo")
    few = replace(recipe.data, count=20_000)  # enough for every word; a vocabulary learnt from a million takes minutes
    return prepare(replace(recipe, data=few, evaluation={}))


@cache
def demo_batch(size: int) -> dict[str, Any]:
    """The first batch that the demo trains on."""
    prepared = demo()
    assert prepared.recipe.loader.batch_size == size, "the case's name says the demo's batch size"
    return next(prepared.batches.iterate())


@dataclass(frozen=True, kw_only=True)
class DemoStep(TrainStep):
    """The same step at the size of `pictura demo`, its pictures and captions, where overhead per operation decides.

    The demo itself trains with Muon and clips gradients; here both sides run AdamW without clipping.
    """

    def config(self) -> CLIPConfig:
        return demo().recipe.model

    def text(self, length: int | None = None) -> torch.Tensor:
        ids = demo_batch(self.batch)["text"]
        return ids if length is None else pad(ids, length)

    def pictures(self) -> torch.Tensor:
        return demo_batch(self.batch)["image"]

    def recipe(self) -> dict[str, Any]:
        from pictura.training.optimizers import AdamWConfig

        recipe = demo().recipe
        config = replace(recipe.training, steps=FOREVER, clip_norm=None, ema=None)
        return {"config": config, "optimizer": AdamWConfig()}  # as the peer's: the same work on both sides


# The cases

STEP = f"{peers.AMP}, fused AdamW"
DEMO = "the demo's shapes; weights differ, as it always adds a class token; both sides run AdamW without clipping"

CASES = (
    TrainStep(name="clip_train_step", case="vit_b32_batch32", batch=32, items=32, peer_setting=STEP, tolerance=0.01),
    TrainStep(
        name="clip_train_step", case="vit_b32_batch32_peer_as_it_trains", batch=32, items=32, fused=False,
        peer_setting=f"{peers.AMP}, AdamW not fused, as its own trainer builds it", tolerance=0.01,
    ),
    TrainStep(
        name="clip_train_step", case="vit_b32_batch32_peer_compiled", batch=32, items=32, compiled=True, opt_in=True,
        peer_setting=f"{STEP}, torch.compile", tolerance=0.01,
    ),
    DemoStep(
        name="clip_train_step", case="demo_batch256", batch=256, items=256,
        peer_setting=f"{STEP}; {DEMO}",
    ),
    DemoStep(
        name="clip_train_step", case="demo_batch256_peer_compiled", batch=256, items=256, compiled=True, opt_in=True,
        peer_setting=f"{STEP}, torch.compile; {DEMO}",
    ),
)  # fmt: skip
