"""ViLD-image (Gu et al. 2022, section 3.3): regions learn the vectors that a CLIP gives their crops, things without
boxes among them."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pictura.losses.regions import distillation_loss, per_picture
from pictura.models.vild import ViLD
from pictura.objectives.base import Batch, Features, Objective, ObjectiveConfig, Outcome
from pictura.objectives.detection import check_detector


@dataclass(frozen=True, kw_only=True)
class DistillationConfig(ObjectiveConfig):
    """regions: of a picture, drawn anew each time; where it has fewer, all of them. The paper's weights are from 0.5 to
    2."""

    kind: ClassVar[str] = "distillation"

    regions: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.regions < 1:
            raise ValueError(f"regions: {self.regions} is below 1")

    def build(self) -> "Distillation":
        """The objective."""
        return Distillation(self.regions)


class Distillation(Objective):
    """Metrics: `cosine`, of the regions with what they are taught. It trains the second head where there is one, else
    the one that words train too."""

    needs = frozenset({"image", "regions", "region_vectors", "seed"})

    def __init__(self, regions: int) -> None:
        super().__init__()
        self.regions = regions

    def attach(self, model: nn.Module) -> None:
        check_detector(model)

    def embed(self, model: nn.Module, batch: Batch) -> Features:
        """image: [b 3 y x]; of each picture regions: [m 4] in pixels, region_vectors: [m e] -> distance, cosine: [b],
        means over the regions that are drawn."""
        assert isinstance(model, ViLD)
        seen, boxes, taught = model.see(batch["image"]), list[Tensor](), list[Tensor]()
        device = seen.found[2].device
        for regions, vectors, seed in zip(batch["regions"], batch["region_vectors"], batch["seed"], strict=True):
            chance = torch.Generator().manual_seed(int(seed))
            drawn = torch.randperm(len(regions), generator=chance)[: self.regions]
            boxes.append(torch.as_tensor(regions)[drawn].to(device).float())
            taught.append(torch.as_tensor(vectors)[drawn].to(device).float())
        counts = torch.tensor([len(one) for one in boxes], device=device)
        picture = torch.arange(len(boxes), device=device).repeat_interleave(counts)
        head = model.regions if model.taught is None else model.taught
        if len(taught) and taught[0].shape[1] != model.config.embed_dim:
            e = taught[0].shape[1]
            raise ValueError(f"the regions were taught in {e} numbers each, but the model has {model.config.embed_dim}")
        vectors, wanted = head.project(head(model.pool(seen, boxes))), torch.cat(taught)
        alike = nn.functional.cosine_similarity(vectors.detach().float(), wanted)
        distance = per_picture(distillation_loss(vectors, wanted), picture, len(boxes))
        return {"distance": distance, "cosine": per_picture(alike, picture, len(boxes))}

    def score(self, model: nn.Module, features: Features, rows: slice) -> Outcome:
        return Outcome(features["distance"][rows].mean(), {"cosine": features["cosine"][rows].mean()})
