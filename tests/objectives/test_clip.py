import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from pictura.config import load
from pictura.losses.contrastive import contrastive_loss
from pictura.models.clip import CLIP, CLIPConfig
from pictura.models.text import TextTransformerConfig
from pictura.models.vit import ViTConfig
from pictura.objectives.base import ObjectiveConfig, Task
from pictura.objectives.clip import CLIPObjective, CLIPObjectiveConfig, embed_pair


def tiny(**changes: object) -> CLIP:
    torch.manual_seed(0)
    config = CLIPConfig(
        image=ViTConfig(image_size=16, patch_size=8, width=24, depth=2, heads=3),
        text=TextTransformerConfig(vocab_size=50, context_length=12, width=16, depth=2, heads=2),
        embed_dim=10,
    )
    return replace(config, **changes).build()


def batch(n: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    text = torch.randint(1, 48, (n, 5), generator=generator)
    text[:, -1] = 49
    image = torch.randint(0, 256, (n, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return {"image": image, "text": text}


def test_from_a_recipe() -> None:
    config = load(ObjectiveConfig, {"kind": "clip", "weight": 0.5, "max_scale": 30})
    assert config == CLIPObjectiveConfig(weight=0.5, max_scale=30.0)
    assert isinstance(config.build(), CLIPObjective)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_are_of_unit_length_in_float32(dtype: torch.dtype) -> None:
    for name, features in embed_pair(tiny().to(dtype), batch()).items():
        assert features.shape == (6, 10), name
        assert features.dtype == torch.float32
        torch.testing.assert_close(features.norm(dim=1), torch.ones(6))


def test_the_loss_as_figure_3_of_the_paper_has_it() -> None:
    model, given = tiny(), batch()
    outcome = Task(model, {"clip": CLIPObjectiveConfig().build()}, {"clip": 1.0})(given)
    image = F.normalize(model.encode_image(given["image"]), dim=1)
    text = F.normalize(model.encode_text(given["text"]), dim=1)
    logits, labels = image @ text.T * model.logit_scale.exp(), torch.arange(6)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    torch.testing.assert_close(outcome.loss, expected)
    found = torch.autograd.grad(outcome.loss, list(model.parameters()))
    torch.testing.assert_close(found, torch.autograd.grad(expected, list(model.parameters())), rtol=1e-3, atol=1e-6)
    assert outcome.metrics["clip/scale"].item() == pytest.approx(1 / 0.07)
    assert outcome.metrics["clip/hits"].item() == pytest.approx((logits.argmax(1) == labels).float().mean().item())


def test_the_temperature_learns() -> None:
    model, objective = tiny(), CLIPObjectiveConfig().build()
    objective.score(model, objective.embed(model, batch()), slice(0, 6)).loss.backward()
    assert model.logit_scale.grad is not None
    assert model.logit_scale.grad.abs() > 0


def test_rows_are_passed_on() -> None:
    model, objective = tiny(), CLIPObjectiveConfig().build()
    features = objective.embed(model, batch())
    expected = contrastive_loss(features["image"], features["text"], model.logit_scale.exp(), rows=slice(2, 4))[0]
    assert torch.equal(objective.score(model, features, slice(2, 4)).loss, expected)
    assert objective.across, "negatives of other processes count"


@pytest.mark.parametrize(("given", "settled"), [(5.0, math.log(100)), (-1.0, 0.0), (3.0, 3.0)])
def test_the_temperature_stays_within_its_bounds(given: float, settled: float) -> None:
    model = tiny(logit_scale=given)
    Task(model, {"clip": CLIPObjectiveConfig().build()}, {"clip": 1.0}).settle()
    assert model.logit_scale.item() == pytest.approx(settled)


def test_the_bound_is_settable() -> None:
    model = tiny(logit_scale=5.0)
    with torch.no_grad():
        CLIPObjectiveConfig(max_scale=20).build().settle(model)
    assert model.logit_scale.exp().item() == pytest.approx(20)


@pytest.mark.parametrize("bound", [0.0, 0.5, -3.0])
def test_a_bound_below_one_is_refused(bound: float) -> None:
    with pytest.raises(ValueError, match="max_scale"):
        load(ObjectiveConfig, {"kind": "clip", "max_scale": bound})


def test_it_learns() -> None:
    """Eight pairs by heart, in forty steps."""
    model, given = tiny().train(), batch(8)
    task = Task(model, {"clip": CLIPObjectiveConfig().build()}, {"clip": 1.0})
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    first = task(given).loss.item()
    for _ in range(40):
        optimizer.zero_grad()
        outcome = task(given)
        outcome.loss.backward()
        optimizer.step()
        task.settle()
    assert outcome.loss.item() < 0.3 < 1.5 < first
    assert outcome.metrics["clip/hits"].item() == 1
