"""The two objectives of a detector against naive forms, and that a picture's losses are its own."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pictura.models.vild import ViLD
from pictura.objectives.base import Task
from pictura.objectives.detection import Detection, DetectionConfig
from pictura.objectives.distillation import DistillationConfig
from tests.models.test_vild import pictures, small


def batch(b: int = 3, *, things: int = 2) -> dict[str, Any]:
    """Pictures of noise with boxes of noise; the last has none."""
    rng = np.random.default_rng(0)
    out: dict[str, Any] = {"image": torch.stack(pictures(*[(64, 64)] * b)), "seed": [11, 5, 8][:b]}
    for key in ("boxes", "labels", "crowd", "masks", "regions", "region_vectors"):
        out[key] = []
    for i in range(b):
        k = 0 if i == 2 else things
        corner = rng.uniform(0, 30, (k, 2))
        out["boxes"].append(np.concatenate([corner, corner + rng.uniform(10, 30, (k, 2))], 1).astype(np.float32))
        out["labels"].append(rng.integers(0, 3, k))
        out["crowd"].append(np.zeros(k, bool))
        out["masks"].append(rng.random((k, 64, 64)) < 0.5)
        corner = rng.uniform(0, 30, (6, 2))
        out["regions"].append(np.concatenate([corner, corner + 20], 1).astype(np.float32))
        out["region_vectors"].append(rng.normal(size=(6, 12)).astype(np.float16))
    return out


def features(model: ViLD, objective: Detection, given: dict[str, Any]) -> dict[str, Tensor]:
    objective.attach(model)
    return objective.embed(model, given)


def row(given: dict[str, Any], i: int) -> dict[str, Any]:
    return {key: value[i : i + 1] for key, value in given.items()}


@pytest.mark.parametrize("masks", [False, True])
def test_a_pictures_losses_are_its_own(masks: bool) -> None:
    """In evaluation mode, so that batch norm does not mix pictures."""
    model, objective, given = small(masks=masks), DetectionConfig(regions=16).build(), batch()
    together = features(model, objective, given)
    assert set(together) == {"objectness", "proposals", "boxes", "names", "hits", "things"} | (
        {"masks"} if masks else set()
    )
    for i in range(3):
        alone = features(model, objective, row(given, i))
        for name, value in together.items():
            assert value[i].item() == pytest.approx(alone[name].item(), abs=1e-5), name


def test_losses_against_a_loop_over_what_was_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    from pictura.objectives import detection

    drawn: list[tuple[Tensor, Tensor]] = []
    real = detection.sample

    def remembered(found: Tensor, *args: Any) -> Tensor:
        places = real(found, *args)
        drawn.append((found, places))
        return places

    monkeypatch.setattr(detection, "sample", remembered)
    model, given = small(logit_scale=1.5), batch()
    with torch.no_grad():
        found = features(model, DetectionConfig(regions=16, anchors=32).build(), given)
        seen = model.see(given["image"])
        proposed = [boxes for boxes, _ in model.proposer.propose(seen.maps, seen.found, [(64, 64)] * 3)]
    objectness, deltas, anchors = seen.found
    for i in range(3):
        true = torch.tensor(given["boxes"][i])
        match, places = drawn[i]
        told = [F.softplus(-objectness[i, p] if match[p] >= 0 else objectness[i, p]).item() for p in places.tolist()]
        assert found["objectness"][i].item() == pytest.approx(sum(told) / len(told), abs=1e-6)
        moved = 0.0
        for p in (p for p in places.tolist() if match[p] >= 0):
            a, t = anchors[p], true[match[p]]
            size = a[2:] - a[:2]
            wanted = torch.cat([(t[:2] + t[2:] - a[:2] - a[2:]) / 2 / size, ((t[2:] - t[:2]) / size).log()])
            off = (deltas[i, p] - wanted).abs()
            moved += torch.where(off < 1 / 9, off**2 * 4.5, off - 1 / 18).sum().item()
        assert found["proposals"][i].item() == pytest.approx(moved / len(places), abs=1e-5)
        match, places = drawn[3 + i]
        boxes = torch.cat([proposed[i], true])[places]
        assert len(places) <= 16 and (match[places] >= 0).sum() <= 4
        with torch.no_grad():
            read = model.regions(model.pool(seen, [boxes if j == i else boxes[:0] for j in range(3)]))
            vectors, offsets = model.regions.project(read), model.boxes(read)
        words = torch.cat([model.background[None], model.classes]).detach()
        names, placed, right, things = 0.0, 0.0, 0, 0
        for n, p in enumerate(places.tolist()):
            label = int(given["labels"][i][match[p]]) + 1 if match[p] >= 0 else 0
            scores = [float(torch.exp(torch.tensor(1.5)) * F.cosine_similarity(vectors[n], w, dim=0)) for w in words]
            names += float(np.log(np.exp(scores).sum())) - scores[label]
            if label:
                t, size = true[match[p]], boxes[n, 2:] - boxes[n, :2]
                centre = (t[:2] + t[2:] - boxes[n, :2] - boxes[n, 2:]) / 2 / size * 10
                wanted = torch.cat([centre, ((t[2:] - t[:2]) / size).log() * 5])
                off = (offsets[n] - wanted).abs()
                placed += torch.where(off < 1, off**2 / 2, off - 0.5).sum().item()
                right, things = right + (int(np.argmax(scores)) == label), things + 1
        assert found["names"][i].item() == pytest.approx(names / len(places), abs=1e-4)
        assert found["boxes"][i].item() == pytest.approx(placed / len(places), abs=1e-4)
        assert (found["hits"][i], found["things"][i]) == (right, things)
    assert found["things"][2] == 0 and found["proposals"][2] == 0, "a picture without boxes is all background"


def test_the_mask_of_a_region_is_that_of_its_thing() -> None:
    model, given = small(masks=True), row(batch(), 0)
    objective = DetectionConfig(regions=16).build()
    before = features(model, objective, given)["masks"]
    given["masks"][0][:] = False
    with torch.no_grad():
        assert model.masks is not None and model.masks.out.bias is not None
        model.masks.out.weight.zero_()
        model.masks.out.bias.fill_(-20.0)
    assert features(model, objective, given)["masks"].item() < 1e-6 < before.item()
    with torch.no_grad():
        assert features(model, objective, row(batch(), 2))["masks"].tolist() == [0.0]


@pytest.mark.parametrize("ensemble", [False, True])
def test_distillation_trains_the_head_that_is_meant(ensemble: bool) -> None:
    model, given = small(ensemble=ensemble), batch()
    objective = DistillationConfig(regions=4).build()
    found = objective.embed(model, given)
    objective.score(model, found, slice(0, 3)).loss.backward()
    meant, other = (model.taught, model.regions) if ensemble else (model.regions, None)
    assert meant is not None and meant.project.weight.grad is not None
    assert other is None or other.project.weight.grad is None
    for i in range(3):
        chosen = torch.randperm(6, generator=torch.Generator().manual_seed(given["seed"][i]))[:4]
        with torch.no_grad():
            seen = model.see(given["image"][i : i + 1])
            vectors = meant.project(meant(model.pool(seen, [torch.tensor(given["regions"][i])[chosen]])))
        wanted = torch.tensor(given["region_vectors"][i])[chosen].float()
        off = (F.normalize(vectors, dim=1) - F.normalize(wanted, dim=1)).abs().sum(1)
        assert found["distance"][i].item() == pytest.approx(off.mean().item(), abs=1e-5)
        alike = F.cosine_similarity(vectors, wanted).mean()
        assert found["cosine"][i].item() == pytest.approx(alike.item(), abs=1e-5)


def test_both_together_look_at_the_pictures_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, times = small(), 0
    real = model.image.maps

    def counted(image: Tensor) -> list[Tensor]:
        nonlocal times
        times += 1
        return real(image)

    monkeypatch.setattr(model.image, "maps", counted)
    objectives = {"detection": DetectionConfig().build(), "distillation": DistillationConfig().build()}
    outcome = Task(model, objectives, {"detection": 1.0, "distillation": 0.5})(batch())
    assert times == 1
    parts = [outcome.metrics[f"{name}/loss"] for name in objectives]
    assert outcome.loss.item() == pytest.approx(float(parts[0] + 0.5 * parts[1]), abs=1e-5)


def test_names_can_be_left_to_the_teacher() -> None:
    model = small()
    found = features(model, DetectionConfig(names=0.0).build(), batch())
    assert "names" not in found and "boxes" in found


def test_only_a_detector_can_be_trained() -> None:
    for config in (DetectionConfig(), DistillationConfig()):
        with pytest.raises(ValueError, match="no detector; train a vild"):
            config.build().attach(torch.nn.Linear(2, 2))
    for key, value in (("anchors", 1), ("regions", 1), ("things", 1.0), ("names", -1.0)):
        with pytest.raises(ValueError, match=key):
            DetectionConfig(**{key: value})
    with pytest.raises(ValueError, match="regions: 0"):
        DistillationConfig(regions=0)
