"""Detection of things whose boxes are known (Faster and Mask R-CNN; with names as texts: ViLD-text, Gu et al. 2022,
section 3.3).

Each picture's loss is a mean over the anchors and regions that are drawn for it, by its own seed, so it is the same in
any batch. Where a picture has nothing, all of it is background. The proposals' boxes have torchvision's smooth L1, nine
times the Huber loss of ViLD's code; the regions' boxes have that one.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pictura.distributed.gather import shared_mean
from pictura.layers.region_matching import match, sample
from pictura.losses.regions import box_loss, mask_loss, named, naming_loss, per_picture
from pictura.models.vild import Seen, ViLD
from pictura.objectives.base import Batch, Features, Objective, ObjectiveConfig, Outcome

PARTS = ("objectness", "proposals", "boxes", "masks", "names")


@dataclass(frozen=True, kw_only=True)
class DetectionConfig(ObjectiveConfig):
    """anchors, regions: how many of a picture are trained on; half of the anchors and `things` of the regions, at most,
    are things. names: what the classification of regions weighs; 0 leaves it to a teacher (ViLD-image)."""

    kind: ClassVar[str] = "detection"

    anchors: int = 256
    regions: int = 512
    things: float = 0.25
    names: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("anchors", "regions"):
            if getattr(self, key) < 2:
                raise ValueError(f"{key}: {getattr(self, key)} is below 2")
        if not 0 < self.things < 1:
            raise ValueError(f"things: {self.things} is not a share between 0 and 1")
        if self.names < 0:
            raise ValueError(f"names: {self.names} is below 0")

    def build(self) -> "Detection":
        """The objective."""
        return Detection(self)


class Detection(Objective):
    """Metrics: the losses of which it is the sum, and `hits`, the share of regions with things that are named right."""

    needs = frozenset({"image", "boxes", "labels", "crowd", "seed"})

    def __init__(self, config: DetectionConfig) -> None:
        super().__init__()
        self.config = config

    def attach(self, model: nn.Module) -> None:
        check_detector(model)
        if model.masks is not None:
            self.needs = self.needs | {"masks"}

    def embed(self, model: nn.Module, batch: Batch) -> Features:
        """image: [b 3 y x]; of each picture boxes: [k 4] in pixels, labels: [k], crowd: [k], and masks: [k y x] where
        the model has them -> the losses, [b] each, and hits and things: [b]."""
        assert isinstance(model, ViLD)
        seen = model.see(batch["image"])
        true = [Truth.of(batch, i, seen.found[2].device) for i in range(len(batch["image"]))]
        return self._proposals(model, seen, true) | self._regions(model, seen, true)

    def _proposals(self, model: ViLD, seen: Seen, true: list["Truth"]) -> Features:
        """What the proposer is told: objectness: [b], proposals: [b]."""
        objectness, deltas, anchors = seen.found
        losses: list[list[Tensor]] = []
        for i, own in enumerate(true):
            found = match(anchors, own.boxes, own.crowd, 0.7, 0.3, best=True)
            drawn = sample(found, self.config.anchors, 0.5, own.seed)
            thing = drawn[found[drawn] >= 0]
            said = nn.functional.binary_cross_entropy_with_logits(objectness[i, drawn], (found[drawn] >= 0).float())
            wanted = model.proposer.targets(anchors[thing], own.boxes[found[thing]])
            losses.append([said, box_loss(deltas[i, thing], wanted, 1 / 9).sum() / max(1, len(drawn))])
        told, moved = (torch.stack(part) for part in zip(*losses, strict=True))
        return {"objectness": told, "proposals": moved}

    def _regions(self, model: ViLD, seen: Seen, true: list["Truth"]) -> Features:
        """What the heads are told: boxes, names, hits, things: [b], and masks: [b]."""
        b, sizes = len(true), [seen.size] * len(true)
        proposed = [boxes for boxes, _ in model.proposer.propose(seen.maps, seen.found, sizes)]
        regions, which = [], []
        for own, boxes in zip(true, proposed, strict=True):
            boxes = torch.cat([boxes, own.boxes[~own.crowd]])
            found = match(boxes, own.boxes, own.crowd, 0.5, 0.5)
            drawn = sample(found, self.config.regions, self.config.things, own.seed)
            regions.append(boxes[drawn])
            which.append(found[drawn])
        counts = torch.tensor([len(one) for one in which], device=regions[0].device)
        picture = torch.arange(b, device=counts.device).repeat_interleave(counts)
        features = model.regions(model.pool(seen, regions))
        thing = torch.cat(which) >= 0
        wanted = torch.cat([own.boxes[found[found >= 0]] for own, found in zip(true, which, strict=True)])
        target = model.coder.encode_single(wanted, torch.cat(regions)[thing])
        moved = features.new_zeros(len(features), dtype=torch.float32)
        moved[thing] = box_loss(model.boxes(features[thing]), target, 1.0)
        out: Features = {"boxes": per_picture(moved, picture, b)}
        if self.config.names:
            labels = torch.cat([own.names(found) for own, found in zip(true, which, strict=True)])
            vectors = model.regions.project(features)
            scale = model.logit_scale.exp()
            said = naming_loss(vectors, model.classes, model.background, scale, labels)
            out["names"] = self.config.names * per_picture(said, picture, b)
            with torch.no_grad():
                best = named(vectors[thing], model.classes, model.background, scale).argmax(1) - 1
                right = (best == labels[thing]).float()
            out["hits"] = right.new_zeros(b).index_add(0, picture[thing], right)
            out["things"] = right.new_zeros(b).index_add(0, picture[thing], torch.ones_like(right))
        if model.masks is not None:
            out["masks"] = self._masks(model, seen, true, regions, which)
        return out

    def _masks(
        self, model: ViLD, seen: Seen, true: list["Truth"], regions: list[Tensor], which: list[Tensor]
    ) -> Tensor:
        """[b], of the regions with things."""
        from torchvision.models.detection.roi_heads import project_masks_on_boxes

        assert model.masks is not None
        things = [boxes[found >= 0] for boxes, found in zip(regions, which, strict=True)]
        counts = torch.tensor([len(boxes) for boxes in things], device=seen.found[2].device)
        picture = torch.arange(len(true), device=counts.device).repeat_interleave(counts)
        said: Tensor = model.masks(model.pool(seen, things, 14))
        wanted = [
            project_masks_on_boxes(own.masks, boxes, found[found >= 0], said.shape[-1])
            for own, boxes, found in zip(true, things, which, strict=True)
            if len(boxes)
        ]
        if not wanted:
            return said.float().sum().expand(len(true)) * 0
        return per_picture(mask_loss(said, torch.cat(wanted)), picture, len(true))

    def score(self, model: nn.Module, features: Features, rows: slice) -> Outcome:
        losses = {part: features[part][rows].mean() for part in PARTS if part in features}
        metrics = {part: loss.detach() for part, loss in losses.items()}
        if "hits" in features:
            hits, things = features["hits"][rows].sum(), features["things"][rows].sum()
            metrics["hits"] = shared_mean((torch.arange(int(things), device=hits.device) < hits).float())
        return Outcome(torch.stack(list(losses.values())).sum(), metrics)


@dataclass
class Truth:
    """What is in one picture: boxes [k 4], labels [k], crowd [k], masks [k y x] or None; and its seed."""

    boxes: Tensor
    labels: Tensor
    crowd: Tensor
    masks: Tensor | None
    seed: int

    @classmethod
    def of(cls, batch: Batch, i: int, device: torch.device) -> "Truth":
        boxes, labels, crowd = (torch.as_tensor(batch[key][i]).to(device) for key in ("boxes", "labels", "crowd"))
        masks: Any = torch.as_tensor(batch["masks"][i]).to(device) if "masks" in batch else None
        return cls(boxes.float(), labels, crowd, masks, int(batch["seed"][i]))

    def names(self, found: Tensor) -> Tensor:
        """found: [n], by `match` -> [n], the class of each, -1 for background."""
        if not len(self.labels):
            return torch.full_like(found, -1)
        return torch.where(found >= 0, self.labels[found.clamp(min=0)], -1)


def check_detector(model: nn.Module) -> None:
    """ValueError for a model that finds nothing."""
    if not isinstance(model, ViLD):
        kind = getattr(getattr(model, "config", None), "kind", type(model).__name__)
        raise ValueError(f"the model ({kind}) is no detector; train a vild")
