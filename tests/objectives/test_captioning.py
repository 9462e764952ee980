import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pictura.config import load
from pictura.models.captioner import Captioner, CaptionerConfig, DecoderConfig
from pictura.models.classifier import ClassifierConfig
from pictura.models.vit import ViTConfig
from pictura.objectives.base import Objective, ObjectiveConfig, Task
from pictura.objectives.captioning import next_tokens
from pictura.objectives.classification import IGNORED
from pictura.training.gradient_cache import cached_backward

VOCABULARY, START, END = 30, 28, 29
LENGTHS = (7, 3, 9, 2, 5, 9)  # of 2 there is an end alone


def texts() -> Tensor:
    """Start, words, end, and zeros, which are a word's id too."""
    ids = torch.randint(0, 28, (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(0))
    for row, length in zip(ids, LENGTHS, strict=True):
        row[0], row[length - 1], row[length:] = START, END, 0
    return ids


def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(256, (len(LENGTHS), 3, 16, 16), generator=generator, dtype=torch.uint8)
    return {"image": image, "text": texts()}


def model_of(dropout: float = 0.0) -> Captioner:
    torch.manual_seed(0)
    tower = ViTConfig(image_size=16, patch_size=8, width=24, depth=1, heads=3)
    text = DecoderConfig(
        vocab_size=VOCABULARY, context_length=10, width=24, depth=2, heads=3, end_token=END, dropout=dropout
    )
    model = CaptionerConfig(image=tower, text=text, embed_dim=10, prefix=3).build()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def objective(**options: Any) -> Objective:
    return load(ObjectiveConfig, {"kind": "captioning"} | options).build()


def test_after_each_token_the_next_and_nothing_from_the_end_on() -> None:
    text = torch.tensor([[28, 0, 5, 29, 0, 0], [28, 29, 0, 0, 0, 0], [28, 1, 2, 3, 4, 29]])
    no = IGNORED
    expected = [[0, 5, 29, no, no, no], [29, no, no, no, no, no], [1, 2, 3, 4, 29, no]]
    for config in (DecoderConfig(vocab_size=30, end_token=29), DecoderConfig(vocab_size=30)):
        assert next_tokens(text, config).tolist() == expected


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_mean_over_all_tokens_of_the_batch(smoothing: float) -> None:
    """Each caption read alone, without padding, its probabilities written out."""
    model, given = model_of().eval(), batch()
    outcome = Task(model, {"c": objective(label_smoothing=smoothing)}, {"c": 1.0}).eval()(given)
    losses, surprises, hits = [], [], []
    for i, n in enumerate(LENGTHS):
        with torch.no_grad():
            rows = model(given["image"][i, None], given["text"][i, None, :n])[0].tolist()
        for scores, right in zip(rows[:-1], given["text"][i, 1:n].tolist(), strict=True):
            total = sum(map(math.exp, scores))
            logs = [score - math.log(total) for score in scores]
            losses.append(-(1 - smoothing) * logs[right] - smoothing * sum(logs) / VOCABULARY)
            surprises.append(-logs[right])
            hits.append(scores.index(max(scores)) == right)
    assert len(losses) == sum(LENGTHS) - len(LENGTHS)
    assert outcome.loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert float(outcome.metrics["c/surprise"]) == pytest.approx(sum(surprises) / len(losses), rel=1e-5)
    assert float(outcome.metrics["c/hits"]) == pytest.approx(sum(hits) / len(losses))
    assert not outcome.metrics["c/surprise"].requires_grad


def test_more_padding_changes_nothing() -> None:
    task, given = Task(model_of(), {"c": objective()}, {"c": 1.0}).eval(), batch()
    longer = given | {"text": torch.cat([given["text"], torch.zeros(6, 1, dtype=torch.long)], 1)}
    torch.testing.assert_close(task(longer).loss, task(given).loss)


@pytest.mark.parametrize("options", [{}, {"kind": "rdrop", "of": {"kind": "captioning"}}])
def test_micro_batches_of_unequal_lengths_give_the_same_gradients(options: dict[str, Any]) -> None:
    """Also those of the embedding, by which tokens are read in one step and told in the other."""
    found = []
    for micro in (None, 2):
        task, given = Task(model_of(), {"c": objective(**options)}, {"c": 1.0}), batch()
        if micro is None:
            outcome = task(given)
            outcome.loss.backward()
        else:
            outcome = cached_backward(task, given, micro)
        found.append((outcome.loss.detach(), {name: p.grad for name, p in task.named_parameters()}))
    torch.testing.assert_close(found[1][0], found[0][0])
    for name, gradient in found[0][1].items():
        assert gradient is not None and found[1][1][name] is not None, name
        torch.testing.assert_close(found[1][1][name], gradient, rtol=1e-4, atol=1e-6)


def test_two_draws_differ_by_the_mean_over_tokens() -> None:
    model, given, one = model_of().eval(), batch(), objective()
    with torch.no_grad():
        first = one.embed(model, given)
        second = first | {"states": first["states"] + torch.randn(first["states"].shape)}
        found = one.divergence(model, first, second, slice(0, 6))
        p, q = (model.text.scores(draw["states"]).softmax(-1) for draw in (first, second))
    apart = ((p - q) * (p.log() - q.log())).sum(-1)[first["label"] != IGNORED]
    assert found.item() == pytest.approx(apart.mean().item(), rel=1e-4) and found > 1e-2
    rdrop = Task(model_of(0.3).train(), {"c": objective(kind="rdrop", of={"kind": "captioning"})}, {"c": 1.0})
    assert rdrop(given).metrics["c/kl"] > 1e-3


def test_it_learns_captions_by_heart_and_tells_them() -> None:
    torch.manual_seed(0)
    model, given = model_of(), batch()
    task = Task(model, {"c": objective()}, {"c": 1.0})
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        outcome = task(given)
        outcome.loss.backward()
        optimizer.step()
    assert outcome.loss < 0.1 and outcome.metrics["c/hits"] == 1
    for beams in (1, 4):
        told = model.eval().generate(given["image"], beams=beams)
        assert [one.ids for one in told] == [
            row[1 : n - 1] for row, n in zip(given["text"].tolist(), LENGTHS, strict=True)
        ]


def test_models_that_tell_no_captions() -> None:
    other: nn.Module = ClassifierConfig(
        image=ViTConfig(image_size=16, patch_size=8, width=24, depth=1, heads=3)
    ).build()
    with pytest.raises(
        ValueError, match=r"objectives\.c: needs a model that tells captions, not classifier; set model="
    ):
        Task(other, {"c": objective()}, {"c": 1.0})


@pytest.mark.parametrize("share", [1.0, -0.1])
def test_smoothing_that_cannot_be(share: float) -> None:
    with pytest.raises(ValueError, match=r"label_smoothing: .* must be at least 0 and below 1; try 0\.1"):
        objective(label_smoothing=share)
