from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pictura.config import load
from pictura.losses.nt_xent import nt_xent
from pictura.models.classifier import ClassifierConfig
from pictura.models.clip import CLIPConfig
from pictura.models.resnet import ResNetConfig
from pictura.models.text import TextTransformerConfig
from pictura.models.vit import ViTConfig
from pictura.objectives.base import ObjectiveConfig, Task
from pictura.objectives.classification import ClassificationConfig
from pictura.objectives.clip import CLIPObjectiveConfig
from pictura.objectives.simclr import SimCLRConfig
from pictura.training.gradient_cache import check_cacheable

VIT = ViTConfig(width=32, depth=2, heads=2, patch_size=8, image_size=16)
RESNET = ResNetConfig(block="basic", layers=(1, 1, 1, 1), stem="cifar", width=8, image_size=16)
IMAGE = torch.randint(0, 256, (6, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
BATCH: dict[str, Any] = {"image": IMAGE, "seed": [3, 1, 4, 15, 9, 2], "label": torch.tensor([0, 1, 2, 0, 1, 2])}


def task(classes: int = 0, image: Any = VIT, **options: Any) -> Task:
    torch.manual_seed(0)
    model = ClassifierConfig(image=image, classes=classes).build()
    return Task(model, {"simclr": SimCLRConfig(**options).build()}, {"simclr": 1.0})


@pytest.mark.parametrize("image", [VIT, RESNET])
def test_it_is_views_through_tower_and_head_and_nt_xent(image: Any) -> None:
    ours = task(image=image, temperature=0.2, head=3, head_width=20, head_out=12).train()
    objective = ours.named["simclr"]
    views = (objective.view(IMAGE, BATCH["seed"], 2) - 0.5) / 0.5
    one, two = F.normalize(objective.projection(ours.model.image(views)), dim=1).chunk(2)
    wanted, hits = nt_xent(one, two, 0.2)
    outcome = ours(BATCH)
    torch.testing.assert_close(outcome.loss, wanted)
    torch.testing.assert_close(outcome.metrics["simclr/hits"], hits)
    outcome.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in ours.parameters())


def test_the_same_seeds_give_the_same_loss() -> None:
    assert torch.equal(task().train()(BATCH).loss, task().train()(BATCH).loss)
    assert not torch.equal(task().train()(BATCH | {"seed": list(range(6))}).loss, task().train()(BATCH).loss)


def test_the_probe_trains_the_classifiers_head_and_nothing_else() -> None:
    with_probe, without = task(3, probe=True).train(), task(3).train()
    nn.init.normal_(with_probe.model.head.weight)
    assert with_probe.needs == {"image", "seed", "label"} and without.needs == {"image", "seed"}
    outcome = with_probe(BATCH)
    outcome.loss.backward()
    without(BATCH).loss.backward()
    for (name, ours), (_, bare) in zip(with_probe.named_parameters(), without.named_parameters(), strict=True):
        if name.startswith("model.head."):
            assert ours.grad.abs().max() > 0 and bare.grad is None
        else:
            torch.testing.assert_close(ours.grad, bare.grad)
    assert {"simclr/probe_loss", "simclr/probe_hits"} <= outcome.metrics.keys()


def test_the_probe_names_a_label_that_is_no_class() -> None:
    with pytest.raises(ValueError, match="label 3 in the data, but the model has 3 classes"):
        task(3, probe=True)(BATCH | {"label": torch.tensor([0, 1, 2, 3, 1, 2])})


def test_it_goes_together_with_clip_and_with_classification() -> None:
    torch.manual_seed(0)
    text = TextTransformerConfig(width=32, depth=1, heads=2, vocab_size=30, context_length=6)
    slip = Task(
        CLIPConfig(image=VIT, text=text, embed_dim=16).build(),
        {"clip": CLIPObjectiveConfig().build(), "simclr": SimCLRConfig().build()},
        {"clip": 1.0, "simclr": 0.5},
    )
    outcome = slip(BATCH | {"text": torch.randint(1, 30, (6, 6))})
    torch.testing.assert_close(
        outcome.loss, outcome.metrics["clip/loss"] + 0.5 * outcome.metrics["simclr/loss"], check_stride=False
    )
    both = Task(
        ClassifierConfig(image=VIT, classes=3).build(),
        {"class": ClassificationConfig().build(), "simclr": SimCLRConfig().build()},
        {"class": 1.0, "simclr": 1.0},
    )
    both(BATCH).loss.backward()
    assert all(p.grad is not None for p in both.parameters())


def test_in_bf16_the_loss_is_nearly_the_same() -> None:
    exact = task().train()(BATCH).loss
    low = task().train()
    for name, parameter in low.named_parameters():
        if "norms" not in name:
            parameter.data = parameter.data.to(torch.bfloat16)
    loss = low(BATCH).loss
    loss.backward()
    torch.testing.assert_close(loss, exact, rtol=0.05, atol=0.05)


def test_gradient_caching_is_refused_with_batch_norm_in_the_head() -> None:
    with pytest.raises(ValueError, match=r"micro_batch: .*projection.norms.0 is batch norm"):
        check_cacheable(task())
    check_cacheable(task(head=0))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": 0}, "temperature: 0.0 must be above 0"),
        ({"temperature": -0.5}, "temperature: -0.5 must be above 0"),
        ({"head": 4}, "head"),
        ({"head_out": 0}, "head_out: 0 is below 1"),
        ({"head": 1, "head_width": 9}, "head_width: 9, but a head of 1 has no hidden layer"),
        ({"weight": ".nan"}, "weight"),
        ({"schedule": [[0, -1]]}, "no factor below 0"),
        ({"schedule": [[0.5, 0], [0.5, 1]]}, r"schedule: .* must be points"),
        ({"view": {"kind": "simclr", "sizes": "cifar"}}, "size"),
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(ObjectiveConfig, {"kind": "simclr"} | wrong)


def test_models_it_cannot_train() -> None:
    with pytest.raises(ValueError, match=r"objectives.simclr: probe: needs a model of kind classifier"):
        task(0, probe=True)
    bare = nn.Linear(2, 2)
    bare.config = None
    with pytest.raises(ValueError, match=r"objectives.s: needs a model with a tower for pictures"):
        Task(bare, {"s": SimCLRConfig().build()}, {"s": 1.0})


def test_one_picture_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two pictures"):
        task(head=0)({"image": IMAGE[:1], "seed": [1]})
