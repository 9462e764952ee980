import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pictura.models.classifier import Classifier, ClassifierConfig
from pictura.models.clip import CLIPConfig
from pictura.models.text import TextTransformerConfig
from pictura.models.vit import ViTConfig
from pictura.objectives.base import Task
from pictura.objectives.classification import ClassificationConfig, class_loss
from pictura.training.gradient_cache import cached_backward
from pictura.training.precision import Masters

TOWER = ViTConfig(image_size=16, patch_size=8, width=24, depth=1, heads=3)
B, K = 6, 4


def model() -> Classifier:
    torch.manual_seed(0)
    built = ClassifierConfig(image=TOWER, classes=K).build()
    assert built.head is not None
    torch.nn.init.normal_(built.head.weight)
    return built


def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (B, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return {"image": image, "label": torch.arange(B) % K}


def naive(scores: Tensor, target: Tensor, loss: str, smoothing: float) -> float:
    """One number after the other."""
    total = 0.0
    for row, aim in zip(scores.double().tolist(), target.double().tolist(), strict=True):
        whole = math.log(sum(math.exp(s) for s in row))
        for score, share in zip(row, aim, strict=True):
            share = share * (1 - smoothing) + smoothing / len(row)
            if loss == "softmax":
                total -= share * (score - whole)
            else:
                p = 1 / (1 + math.exp(-score))
                total -= share * math.log(p) + (1 - share) * math.log(1 - p)
    return total / len(scores)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("soft", [False, True])
def test_the_loss_is_a_naive_loop_s(loss: Any, smoothing: float, soft: bool) -> None:
    torch.manual_seed(0)
    scores, labels = torch.randn(B, K), torch.arange(B) % K
    shares = torch.rand(B, K).softmax(1) if soft else torch.nn.functional.one_hot(labels, K).float()
    config = ClassificationConfig(loss=loss, label_smoothing=smoothing)
    found = class_loss(scores, shares if soft else labels, config)
    assert found.item() == pytest.approx(naive(scores, shares, loss, smoothing), rel=1e-6)


def test_of_equal_scores_it_is_the_logarithm_of_the_number_of_classes() -> None:
    task = Task(ClassifierConfig(image=TOWER, classes=K).build(), {"c": ClassificationConfig().build()}, {"c": 1.0})
    assert task(batch()).loss.item() == pytest.approx(math.log(K))


def test_hits_are_the_share_of_right_answers() -> None:
    built = model()
    task = Task(built, {"c": ClassificationConfig().build()}, {"c": 1.0}).eval()
    given = batch()
    given["label"] = built.classify(given["image"]).argmax(1)
    assert task(given).metrics["c/hits"] == 1.0
    given["label"][: B // 2] = (given["label"][: B // 2] + 1) % K
    assert task(given).metrics["c/hits"] == 0.5


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_pictures_and_labels_are_mixed_by_the_same_share(kind: str) -> None:
    """Whole pictures of one colour each: what is left of the colours says the share."""
    built = model()
    objective = ClassificationConfig(**{kind: 1.0}).build()
    colours = torch.tensor([0, 255, 0, 255], dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 3, 16, 16)
    seen = {}
    built.image.register_forward_pre_hook(lambda _, given: seen.update(image=given[0]))
    torch.manual_seed(3)
    target = objective.embed(built, {"image": colours, "label": torch.arange(4)})["target"]
    assert target.shape == (4, K)
    torch.testing.assert_close(target.sum(1), torch.ones(4))
    bright = (seen["image"].mean((1, 2, 3)) + 1) / 2
    torch.testing.assert_close(bright, target[:, 1] + target[:, 3], atol=1e-5, rtol=0)
    assert ((target > 0) & (target < 1)).any()


def test_in_evaluation_nothing_is_mixed() -> None:
    built, given = model(), batch()
    features = ClassificationConfig(mixup=1.0, cutmix=1.0).build().eval().embed(built, given)
    assert torch.equal(features["target"], given["label"])
    torch.testing.assert_close(features["scores"], built.classify(given["image"]))


def test_of_both_kinds_each_batch_gets_one_by_chance() -> None:
    objective = ClassificationConfig(mixup=1.0, cutmix=1.0).build()
    assert sorted(type(mix).__name__ for mix in objective._mixes(K)) == ["CutMix", "MixUp"]


def test_in_parts_it_has_the_same_gradients() -> None:
    whole, parts = model(), model()
    config = ClassificationConfig(label_smoothing=0.1)
    Task(whole, {"c": config.build()}, {"c": 1.0})(batch()).loss.backward()
    task = Task(parts, {"c": config.build()}, {"c": 1.0})
    masters = Masters(task)
    cached_backward(task, batch(), 2, masters)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-4)


def test_a_model_without_classes_is_refused_before_anything_is_trained() -> None:
    text = TextTransformerConfig(vocab_size=20, context_length=6, width=16, depth=1, heads=2)
    others = (ClassifierConfig(image=TOWER), CLIPConfig(image=TOWER, text=text, embed_dim=8))
    for config in others:
        with pytest.raises(ValueError, match=r"objectives\.c: needs a model with classes; set model="):
            Task(config.build(), {"c": ClassificationConfig().build()}, {"c": 1.0})


@pytest.mark.parametrize("wrong", [-1, K])
def test_a_label_that_is_no_class_is_named(wrong: int) -> None:
    task = Task(model(), {"c": ClassificationConfig().build()}, {"c": 1.0})
    with pytest.raises(ValueError, match=rf"label {wrong} in the data, but the model has {K} classes, 0 to {K - 1}"):
        task(batch() | {"label": torch.full((len(batch()["label"]),), wrong)})


@pytest.mark.parametrize("wrong", [{"label_smoothing": 1.0}, {"mixup": -0.1}, {"cutmix": float("inf")}])
def test_mistakes(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ClassificationConfig(**wrong)
