"""Backbones: ViT and Mixer against timm, CLIP's ResNet against open_clip; pictures to scores, and a training step.

Both sides hold the same weights and are given the same normalised pictures. `float32` and `bf16` run both in the same
precision and mode, eager or compiled whole. `default` is ours as `pictura.load` opens a model against timm under
autocast, which is how its own `validate.py --amp` runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .clip import FOREVER, Step
from .harness import COMMAND, Case, Side

if TYPE_CHECKING:
    import torch

    from pictura.objectives.base import ObjectiveConfig

CLASSES = 1000
AUTOCAST = "autocast to bf16 over float32 weights, inference_mode"


@dataclass(frozen=True, kw_only=True)
class Backbone(Case):
    """`kind` and `size` are ours, `timm_name` is theirs. mode: float32 or bf16 weights on both sides, or default."""

    kind: str
    size: str
    timm_name: str
    batch: int
    mode: str
    compiled: bool = False
    peer_name: str = "timm"

    def config(self) -> Any:
        from pictura.config import kinds, sized
        from pictura.models.base import ImageTowerConfig
        from pictura.models.classifier import ClassifierConfig

        return ClassifierConfig(image=sized(kinds(ImageTowerConfig)[self.kind], self.size), classes=CLASSES)

    def model(self) -> torch.nn.Module:
        """Ours, float32, always with the same weights, those of the head too."""
        import torch

        torch.manual_seed(0)
        model = self.config().build()
        torch.nn.init.normal_(model.head.weight, std=0.02)
        return model

    def theirs(self) -> torch.nn.Module:
        """timm's model with our weights, float32."""
        import timm

        model = timm.create_model(self.timm_name, num_classes=CLASSES)
        state = self.model().state_dict()
        model.load_state_dict({name.removeprefix("image."): value for name, value in state.items()})
        return model

    def pictures(self, device: str) -> torch.Tensor:
        """[b 3 y x] float32 noise, normalised: what is in a picture does not change the work."""
        import torch

        size = self.config().tower.image_size
        return torch.randn(self.batch, 3, size, size, generator=torch.Generator().manual_seed(1)).to(device)

    def flops_of_one(self) -> float:
        """One picture, forward: what a tower needs that computes nothing nobody reads."""
        from pictura.facts import forward_flops
        from pictura.weights.folder import empty

        config = self.config()
        return forward_flops(empty(config), config)


@dataclass(frozen=True, kw_only=True)
class Inference(Backbone):
    """Scores of one batch, no gradients."""

    unit: str = "images/s"

    def flops(self) -> float:
        return self.batch * self.flops_of_one()

    def dtypes(self) -> tuple[Any, Any]:
        """Of the weights: ours, theirs."""
        import torch

        ours = torch.float32 if self.mode == "float32" else torch.bfloat16
        return ours, torch.bfloat16 if self.mode == "bf16" else torch.float32

    def ours(self, device: str) -> Step:
        import torch

        from pictura.evaluation.ready import Pictura

        dtype = self.dtypes()[0]
        model = self.model().to(device, dtype).eval()
        if self.mode == "default":  # whatever `load` does to a model to make it quick
            model = Pictura(model, None, torch.device(device)).model
        image = self.pictures(device).to(dtype)
        run = torch.compile(model.classify) if self.compiled else model.classify
        return torch.inference_mode()(lambda: run(image).float())

    def peer(self, device: str) -> Step:
        import torch

        dtype = self.dtypes()[1]
        model = self.theirs().to(device, dtype).eval()
        image = self.pictures(device).to(dtype)
        run: Callable[..., torch.Tensor] = torch.compile(model) if self.compiled else model
        if self.mode != "default":
            return torch.inference_mode()(lambda: run(image).float())
        under = torch.autocast(device, torch.bfloat16)
        return torch.inference_mode()(under(lambda: run(image).float()))


@dataclass(frozen=True, kw_only=True)
class TrainStep(Backbone):
    """Forward, cross-entropy, backward, fused AdamW, zero_grad; no clipping.

    In bf16 ours is the trainer as it is, float32 masters over bf16 weights; theirs is autocast, as timm's train.py.
    """

    unit: str = "images/s"

    def environment(self, side: Side) -> dict[str, str]:
        return COMMAND if side == "ours" else {}

    def flops(self) -> float:
        return 3 * self.batch * self.flops_of_one()

    def labels(self, device: str) -> torch.Tensor:
        import torch

        return (torch.arange(self.batch) * 37 % CLASSES).to(device)

    def ours(self, device: str) -> Step:
        from pictura.objectives.classification import ClassificationConfig

        return self.trained(ClassificationConfig(), device)

    def trained(self, objective: ObjectiveConfig, device: str) -> Step:
        """A step of our trainer."""
        import tempfile
        from pathlib import Path

        from pictura.objectives.base import Task
        from pictura.training.config import TrainingConfig
        from pictura.training.loop import Trainer
        from pictura.training.optimizers import AdamWConfig
        from pictura.training.schedules import CosineConfig

        precision: Any = "float32" if self.mode == "float32" else "bf16"
        config = TrainingConfig(steps=FOREVER, precision=precision, clip_norm=None, compile=self.compiled)
        task = Task(self.model(), {"class": objective.build()}, {"class": 1.0})
        folder, schedule = Path(tempfile.gettempdir()) / "benchmark", CosineConfig(warmup=0)
        trainer = Trainer(task, config, AdamWConfig(), schedule, folder, device=device)
        batch = {"image": self.pictures(device), "label": self.labels(device)}
        return lambda: trainer._advance(batch).loss.detach()

    def peer(self, device: str) -> Step:
        import torch

        model = self.theirs().to(device).train()
        run = torch.compile(model) if self.compiled else model
        image, label = self.pictures(device), self.labels(device)
        named = list(model.named_parameters())
        groups = [
            {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
            {"params": [p for _, p in named if p.ndim >= 2], "weight_decay": 0.2},
        ]
        optimizer = torch.optim.AdamW(groups, lr=5e-4, betas=(0.9, 0.98), eps=1e-6, fused=True)

        def step() -> torch.Tensor:
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=self.mode != "float32"):
                loss = torch.nn.functional.cross_entropy(run(image), label)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step


@dataclass(frozen=True, kw_only=True)
class ClipResNet(Case):
    """CLIP RN50: pictures to unit vectors, ours as `pictura.load` opens it, open_clip under autocast."""

    unit: str = "images/s"
    batch: int
    pure: bool = False

    def config(self) -> Any:
        from pictura.config import sized
        from pictura.models.clip import CLIPConfig

        return sized(CLIPConfig, "RN50")

    def model(self) -> torch.nn.Module:
        """Ours, float32; statistics of batch norm as after some training, so that features have a size."""
        import torch

        torch.manual_seed(0)
        model = self.config().build()
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                if name.endswith("running_var"):
                    buffer.fill_(0.5)
            for name, parameter in model.named_parameters():
                if name.endswith("bn3.weight"):
                    parameter.fill_(0.3)
        return model.eval()

    def pictures(self, device: str) -> torch.Tensor:
        import torch

        size = self.config().tower.image_size
        return torch.randn(self.batch, 3, size, size, generator=torch.Generator().manual_seed(1)).to(device)

    def flops(self) -> float:
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        from pictura.weights.folder import empty

        config = self.config()
        model: Any = empty(config).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            size = config.tower.image_size
            model.encode_image(torch.empty(1, 3, size, size, device="meta"))
        return float(self.batch * counter.get_total_flops())

    def ours(self, device: str) -> Step:
        import torch

        from pictura.evaluation.ready import Pictura

        model: Any = Pictura(self.model().to(device, torch.bfloat16), None, torch.device(device)).model
        image = self.pictures(device).bfloat16()
        return torch.inference_mode()(lambda: unit(model.encode_image(image)))

    def peer(self, device: str) -> Step:
        import open_clip
        import torch

        from pictura.weights.open_clip import from_pictura

        model = open_clip.create_model("RN50-quickgelu")
        model.load_state_dict(from_pictura(self.model().state_dict()))
        model, image = model.to(device).eval(), self.pictures(device)
        if self.pure:
            model, image = model.to(torch.bfloat16), image.bfloat16()
            return torch.inference_mode()(lambda: unit(model.encode_image(image)))
        under = torch.autocast(device, torch.bfloat16)
        return torch.inference_mode()(under(lambda: unit(model.encode_image(image))))


def unit(features: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.normalize(features.float(), dim=1)


MODELS = {
    "vit_b16": {"kind": "vit", "size": "B/16", "timm_name": "vit_base_patch16_224"},
    "vit_s16": {"kind": "vit", "size": "S/16", "timm_name": "vit_small_patch16_224"},
    "mixer_b16": {"kind": "mixer", "size": "B/16", "timm_name": "mixer_b16_224"},
}
BATCH = {"vit_b16": 16, "vit_s16": 32, "mixer_b16": 16}
MODES: dict[str, dict[str, Any]] = {
    "default": {"mode": "default", "peer_setting": AUTOCAST, "tolerance": 0.1},
    "bf16": {"mode": "bf16", "peer_setting": "bf16 weights, inference_mode", "tolerance": 0.1},
    "float32": {"mode": "float32", "peer_setting": "float32, inference_mode", "tolerance": 1e-4},
}
STEPS: dict[str, dict[str, Any]] = {
    "bf16": {"mode": "bf16", "peer_setting": "autocast to bf16, fused AdamW", "tolerance": 0.02},
    "float32": {"mode": "float32", "peer_setting": "float32, fused AdamW", "tolerance": 1e-3},
}


def of(kind: type[Backbone], name: str, modes: dict[str, dict[str, Any]], part: int) -> list[Case]:
    """A case for each model and mode, eager and compiled; `part` of the batch."""
    cases: list[Case] = []
    for model, facts in MODELS.items():
        family = f"{model.split('_')[0]}_{name}"
        for mode, setting in modes.items():
            for compiled in (False, True) if mode != "default" else (False,):
                batch, how = BATCH[model] // part, "_compiled" if compiled else ""
                given = (
                    facts
                    | setting
                    | {"peer_setting": setting["peer_setting"] + (", torch.compile" if compiled else "")}
                )
                dtype = "float32" if mode == "float32" else "bfloat16"
                case = f"{model}_batch{batch}_{mode}{how}"
                cases.append(
                    kind(
                        name=family,
                        case=case,
                        batch=batch,
                        items=batch,
                        compiled=compiled,
                        dtype=dtype,
                        unit="images/s",
                        **given,
                    )
                )
    return cases


CASES = (
    *of(Inference, "inference", MODES, 1),
    *of(TrainStep, "train_step", STEPS, 2),
    ClipResNet(
        name="clip_resnet", case="rn50_batch16_amp_bf16", batch=16, items=16, peer_setting=AUTOCAST, tolerance=0.1,
    ),
    ClipResNet(
        name="clip_resnet", case="rn50_batch16_pure_bf16", batch=16, items=16, pure=True,
        peer_setting="pure_bf16 (weights and pictures bf16, inference_mode)", tolerance=0.1,
    ),
)  # fmt: skip
