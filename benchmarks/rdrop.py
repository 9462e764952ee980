"""What R-Drop costs: against the form with two forwards, as its authors released it, and against none at all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .backbones import MODELS, TrainStep
from .clip import Step
from .harness import COMMAND, Side

if TYPE_CHECKING:
    import torch

ALPHA = 0.6


@dataclass(frozen=True, kw_only=True)
class RDropStep(TrainStep):
    """A training step of a ViT with dropout 0.1 (the recipe of R-Drop's ViT). `against`: two forwards, or none."""

    against: str
    unit: str = "images/s"

    def environment(self, side: Side) -> dict[str, str]:
        return COMMAND if side == "ours" or self.against == "none" else {}

    def config(self) -> Any:
        config = super().config()
        return replace(config, image=replace(config.tower, dropout=0.1))

    def flops(self) -> float:
        return 2 * super().flops()

    def ours(self, device: str) -> Step:
        from pictura.objectives.classification import ClassificationConfig
        from pictura.objectives.rdrop import RDropConfig

        return self.trained(RDropConfig(alpha=ALPHA, of=ClassificationConfig()), device)

    def peer(self, device: str) -> Step:
        from pictura.objectives.classification import ClassificationConfig

        if self.against == "none":
            return self.trained(ClassificationConfig(), device)
        return self.two_forwards(device)

    def two_forwards(self, device: str) -> Step:
        """timm's model twice, cross-entropy of both and both divergences, under autocast."""
        import timm
        import torch
        import torch.nn.functional as F

        model = timm.create_model(self.timm_name, proj_drop_rate=0.1).to(device).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, fused=True)
        image, label = self.pictures(device), self.labels(device)

        def step() -> torch.Tensor:
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16):
                one, two = model(image), model(image)
                p, q = one.log_softmax(1), two.log_softmax(1)
                apart = F.kl_div(p, q, log_target=True, reduction="batchmean")
                apart = apart + F.kl_div(q, p, log_target=True, reduction="batchmean")
                loss = (F.cross_entropy(one, label) + F.cross_entropy(two, label)) / 2 + ALPHA / 4 * apart
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step


def case(against: str, peer_name: str, peer_setting: str) -> RDropStep:
    return RDropStep(
        name="rdrop_cost", case=f"vit_s16_batch16_against_{against}", against=against, peer_name=peer_name,
        peer_setting=peer_setting, mode="bf16", batch=16, items=16, **MODELS["vit_s16"],
    )  # fmt: skip


CASES = (
    case("two_forwards", "timm", "two forwards as R-Drop's released code, autocast to bf16, fused AdamW"),
    case("none", "pictura", "the same step of ours without R-Drop"),
)
