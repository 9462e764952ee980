"""ViLT's objectives embed each example alone: in micro-batches they have the gradients of the whole batch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pictura.config import load
from pictura.models.vilt import JointTask
from pictura.objectives.base import ObjectiveConfig, Task
from pictura.training.gradient_cache import cached_backward
from pictura.training.precision import Masters
from tests.objectives import (
    test_masked_words,
    test_matching,
    test_questions,
    test_ranking,
    test_statements,
)
from tests.objectives.test_masked_words import model_of

CASES: dict[str, tuple[JointTask, Callable[[], dict[str, Any]], dict[str, Any]]] = {
    "masked words": ("words", test_masked_words.batch, {"kind": "masked_words", "share": 0.4}),
    "matching": ("matching", test_matching.batch, {"kind": "matching"}),
    "alignment": ("matching", test_matching.batch, {"kind": "matching", "alignment": 0.1}),
    "patches": ("patches", test_masked_words.batch, {"kind": "masked_patches", "share": 0.4}),
    "ranking": ("rank", lambda: test_ranking.batch(6), {"kind": "ranking", "negatives": 3}),
    "questions": ("answers", test_questions.batch, {"kind": "questions"}),
    "statements": ("pair", test_statements.batch, {"kind": "statements"}),
}
BIAS = "model.heads.rank.bias"  # which a softmax over texts does not see


@pytest.mark.parametrize("most", [1, 4])
@pytest.mark.parametrize("case", CASES)
def test_in_parts_it_has_the_gradients_of_the_whole_batch(case: str, most: int) -> None:
    """Six examples one by one, and as four and two."""
    name, batch, config = CASES[case]
    found, losses = [], []
    for parts in (None, most):
        answers = test_questions.ANSWERS if name == "answers" else ()
        objective = load(ObjectiveConfig, config).build()
        task = Task(model_of(tasks=(name,), answers=answers), {"o": objective}, {"o": 1.0})
        if parts is None:
            outcome = task(batch())
            outcome.loss.backward()
        else:
            outcome = cached_backward(task, batch(), parts, Masters(task))
        losses.append(outcome.loss.detach())
        found.append({n: p.grad for n, p in task.named_parameters() if p.grad is not None})
    torch.testing.assert_close(losses[1], losses[0])
    assert found[0].keys() == found[1].keys()
    assert f"model.heads.{name}" in " ".join(found[0]) and "model.text.word_embed.weight" in found[0]
    for n, grad in found[0].items():
        assert grad.abs().max() > 1e-4 or n == BIAS, n
        torch.testing.assert_close(found[1][n], grad, rtol=1e-4, atol=1e-6, msg=lambda text, n=n: f"{n}: {text}")


def test_with_chance_both_passes_of_a_part_draw_the_same() -> None:
    """Two objectives that share patches, one of them twice by R-Drop, and patches left out by chance."""
    words = load(ObjectiveConfig, {"kind": "masked_words", "share": 0.4})
    twice = load(ObjectiveConfig, {"kind": "rdrop", "alpha": 1.0, "of": {"kind": "matching", "alignment": 0.1}})
    given, found = test_masked_words.batch() | test_matching.batch(), []
    for parts in (None, 6):
        model = model_of(0.2, tasks=("words", "matching"), max_patches=3).train()
        task = Task(model, {"w": words.build(), "m": twice.build()}, {"w": 1.0, "m": 1.0}).train()
        torch.manual_seed(5)
        if parts is None:
            torch.manual_seed(int(torch.randint(2**62, (1,))))  # as the only part is seeded
            task(given).loss.backward()
        else:
            cached_backward(task, given, parts, Masters(task))
        found.append({n: p.grad for n, p in task.named_parameters()})
    for n, grad in found[0].items():
        torch.testing.assert_close(found[1][n], grad, rtol=1e-4, atol=1e-6, msg=lambda text, n=n: f"{n}: {text}")
