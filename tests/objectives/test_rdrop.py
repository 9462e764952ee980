import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pictura.config import load
from pictura.models.classifier import ClassifierConfig
from pictura.models.clip import CLIPConfig
from pictura.models.resnet import ResNetConfig
from pictura.models.text import TextTransformerConfig
from pictura.models.vit import ViTConfig
from pictura.objectives.base import Objective, ObjectiveConfig, Task
from pictura.objectives.classification import IGNORED, ClassificationConfig
from pictura.objectives.clip import CLIPObjectiveConfig
from pictura.objectives.rdrop import RDrop, RDropConfig
from pictura.objectives.siglip import SigLIPObjectiveConfig

VIT = ViTConfig(width=32, depth=2, heads=2, patch_size=8, image_size=16, dropout=0.3)
BATCH: dict[str, Any] = {
    "image": torch.randint(0, 256, (6, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8),
    "label": torch.tensor([0, 1, 2, 0, 1, 2]),
    "text": torch.randint(1, 30, (6, 6), generator=torch.Generator().manual_seed(0)),
}


def classifier(image: Any = VIT) -> nn.Module:
    torch.manual_seed(0)
    model = ClassifierConfig(image=image, classes=3).build()
    nn.init.normal_(model.head.weight, std=0.3)
    return model


def clip(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    text = TextTransformerConfig(width=32, depth=1, heads=2, vocab_size=30, context_length=6)
    return CLIPConfig(image=VIT, text=text, embed_dim=16, logit_scale=2.3, **options).build()


def outcome_of(model: nn.Module, config: ObjectiveConfig) -> Any:
    task = Task(model, {"r": config.build()}, {"r": 1.0}).train()
    torch.manual_seed(1)
    return task(BATCH), task


def two_passes(model: nn.Module, objective: Objective) -> list[dict[str, torch.Tensor]]:
    """The features of both draws, as the wrapper sees them."""
    wrapper = RDrop(1.0, objective)
    Task(model, {"r": wrapper}, {"r": 1.0}).train()
    torch.manual_seed(1)
    found = wrapper.embed(model, BATCH)
    shared = {k: v for k, v in found.items() if "/" not in k}
    return [shared | {k[4:]: v for k, v in found.items() if k.startswith(half)} for half in ("one/", "two/")]


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_of_classification_it_is_the_papers_equation(loss: Any) -> None:
    inner = ClassificationConfig(loss=loss, label_smoothing=0.1)
    outcome, _ = outcome_of(classifier(), RDropConfig(alpha=3.0, of=inner))
    one, two = (draw["scores"] for draw in two_passes(classifier(), inner.build()))
    assert not torch.allclose(one, two)
    if loss == "softmax":
        ce = [F.cross_entropy(s, BATCH["label"], label_smoothing=0.1) for s in (one, two)]
        p, q = one.log_softmax(1), two.log_softmax(1)
        kl = [F.kl_div(x, y, log_target=True, reduction="batchmean") for x, y in ((p, q), (q, p))]
    else:
        target = F.one_hot(BATCH["label"], 3) * 0.9 + 0.1 / 3
        ce = [F.binary_cross_entropy_with_logits(s, target, reduction="sum") / 6 for s in (one, two)]
        pairs = [torch.stack([s, torch.zeros_like(s)], 2).flatten(0, 1).log_softmax(1) for s in (one, two)]
        kl = [F.kl_div(x, y, log_target=True, reduction="sum") / 6 for x, y in (pairs, pairs[::-1])]
    torch.testing.assert_close(outcome.loss, sum(ce) / 2 + 3.0 / 4 * sum(kl), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(outcome.metrics["r/kl"], sum(kl) / 2)


def test_of_clip_both_directions_of_the_similarities_agree() -> None:
    outcome, _ = outcome_of(clip(), RDropConfig(alpha=2.0, of=CLIPObjectiveConfig()))
    model = clip()
    draws = two_passes(model, CLIPObjectiveConfig().build())
    assert torch.equal(draws[0]["text"], draws[1]["text"]), "its text tower has no dropout, so texts are read once"
    logits = [model.logit_scale.exp() * draw["image"] @ draw["text"].T for draw in draws]
    target, wanted = torch.arange(6), 0.0
    for direction in (logits, [x.T for x in logits]):
        wanted = wanted + sum(F.cross_entropy(x, target) for x in direction) / 4
        p, q = (x.log_softmax(1) for x in direction)
        for x, y in ((p, q), (q, p)):
            wanted = wanted + 2.0 / 4 * F.kl_div(x, y, log_target=True, reduction="batchmean") / 2
    torch.testing.assert_close(outcome.loss, wanted, rtol=1e-6, atol=1e-6)


def test_of_siglip_each_pair_is_yes_or_no() -> None:
    outcome, task = outcome_of(clip(logit_bias=-1.0), RDropConfig(of=SigLIPObjectiveConfig()))
    outcome.loss.backward()
    assert task.model.logit_bias.grad.abs() > 0
    model = clip(logit_bias=-1.0)
    logits = [
        model.logit_scale.exp() * draw["image"] @ draw["text"].T - 1
        for draw in two_passes(model, SigLIPObjectiveConfig().build())
    ]
    sign = 2 * torch.eye(6) - 1
    ce = sum(-F.logsigmoid(sign * x).sum() / 6 for x in logits) / 2
    both = ((logits[0].sigmoid() - logits[1].sigmoid()) * (logits[0] - logits[1])).sum() / 6
    torch.testing.assert_close(outcome.loss, ce + both / 4, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(outcome.metrics["r/kl"], both / 2, rtol=1e-5, atol=1e-6)


def test_mixed_pictures_are_mixed_before_the_draws() -> None:
    inner = ClassificationConfig(mixup=1.0, cutmix=1.0)
    one, two = two_passes(classifier(), inner.build().train())
    assert torch.equal(one["target"], two["target"]) and one["target"].shape == (6, 3)
    assert not torch.allclose(one["scores"], two["scores"])


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_ignored_labels_take_no_part(loss: Any) -> None:
    inner = ClassificationConfig(loss=loss)
    objective = RDropConfig(alpha=3.0, of=inner).build()
    one, two = (torch.randn(4, 3, generator=torch.Generator().manual_seed(n)) for n in (0, 1))
    target = torch.tensor([0, IGNORED, 2, IGNORED])
    given = {"one/scores": one, "two/scores": two, "target": target}
    known = {"one/scores": one[::2], "two/scores": two[::2], "target": target[::2]}
    found = [objective.score(nn.Identity(), some, slice(None)) for some in (given, known)]
    torch.testing.assert_close(found[0].loss, found[1].loss)
    for name, value in found[1].metrics.items():
        torch.testing.assert_close(found[0].metrics[name], value)


def test_in_evaluation_it_is_the_objective_inside() -> None:
    task = Task(classifier(), {"r": RDropConfig(of=ClassificationConfig()).build()}, {"r": 1.0}).eval()
    bare = Task(classifier(), {"c": ClassificationConfig().build()}, {"c": 1.0}).eval()
    torch.testing.assert_close(task(BATCH).loss, bare(BATCH).loss)


def test_a_model_without_chance_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        outcome, _ = outcome_of(classifier(replace(VIT, dropout=0.0)), RDropConfig(of=ClassificationConfig()))
    assert "no dropout in what is trained" in caplog.text and "model.image.drop_path=0.1" in caplog.text
    assert "r/kl" not in outcome.metrics


def test_batch_norm_is_told_too(caplog: pytest.LogCaptureFixture) -> None:
    resnet = ResNetConfig(block="basic", layers=(1, 1, 1, 1), stem="cifar", width=8, image_size=16)
    with caplog.at_level(logging.WARNING):
        outcome_of(classifier(resnet), RDropConfig(of=ClassificationConfig()))
        assert "no dropout" in caplog.text and "batch norm" not in caplog.text
        model = classifier()
        model.image.norm_pre = nn.BatchNorm1d(5)
        outcome_of(model, RDropConfig(of=ClassificationConfig()))
    assert "batch norm, through which the two draws of a batch see each other" in caplog.text


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"alpha": 0, "of": {"kind": "clip"}}, "alpha: 0.0 must be above 0; the paper has 0.6 for ViT"),
        ({"alpha": -1.0, "of": {"kind": "clip"}}, "alpha: -1.0 must be above 0"),
        ({"of": {"kind": "clip", "weight": 0.5}}, "of.weight: give the weight"),
        ({}, "of"),
    ],
)
def test_a_wrong_setting_is_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(ObjectiveConfig, {"kind": "rdrop"} | config)


def test_what_predicts_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"of: SimCLR predicts nothing"):
        load(ObjectiveConfig, {"kind": "rdrop", "of": {"kind": "simclr"}}).build()
