from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pictura.config import load
from pictura.models.vilt import ViLT, ViLTConfig
from pictura.models.vilt_parts import WordsConfig
from pictura.models.vit import ViTConfig
from pictura.objectives.base import Objective, ObjectiveConfig, Task
from pictura.objectives.classification import IGNORED
from pictura.objectives.masked_words import MaskedWordsConfig, hide

WORDS = WordsConfig(vocab_size=50, context_length=12, end_token=3, mask_token=4)


def texts(b: int = 6, t: int = 12) -> tuple[Tensor, Tensor]:
    """Rows of start (2), words of one to three pieces, end (3), padding; and the numbers of the words."""
    generator = torch.Generator().manual_seed(b)
    ids, numbers = torch.zeros(b, t, dtype=torch.long), torch.zeros(b, t, dtype=torch.long)
    for row, number in zip(ids, numbers, strict=True):
        length = int(torch.randint(4, t + 1, (), generator=generator))
        row[:length] = torch.randint(10, 50, (length,), generator=generator)
        row[0], row[length - 1] = 2, 3
        at, word = 1, 1
        while at < length - 1:
            pieces = int(torch.randint(1, 4, (), generator=generator))
            number[at : min(at + pieces, length - 1)] = word
            at, word = at + pieces, word + 1
    return ids, numbers


def model_of(dropout: float = 0.0, **changes: Any) -> ViLT:
    torch.manual_seed(0)
    image = ViTConfig(image_size=32, patch_size=16, width=24, depth=2, heads=3, dropout=dropout)
    model = replace(ViLTConfig(image=image, text=WORDS), **changes).build()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
    return model


def batch(b: int = 6) -> dict[str, Any]:
    ids, numbers = texts(b)
    generator = torch.Generator().manual_seed(1)
    image = [torch.randint(256, (3, 32, 16 * (1 + i % 3)), generator=generator, dtype=torch.uint8) for i in range(b)]
    return {"image": image, "text": ids, "words": numbers, "seed": [7**i for i in range(1, b + 1)]}


def objective(**options: Any) -> Objective:
    return load(ObjectiveConfig, {"kind": "masked_words"} | options).build()


def test_all_pieces_of_a_word_are_hidden_or_none() -> None:
    ids, numbers = texts(200)
    _, label = hide(ids, numbers, list(range(200)), 0.3, WORDS)
    for row, words in zip(label != IGNORED, numbers, strict=True):
        hidden = {int(word) for word in words[row]}
        assert hidden and 0 not in hidden
        assert all(bool(row[words == word].all()) for word in hidden)


def test_what_is_asked_is_what_was_there_and_the_rest_stays() -> None:
    ids, numbers = texts(100)
    hidden, label = hide(ids, numbers, list(range(100)), 0.3, WORDS)
    asked = label != IGNORED
    assert torch.equal(label[asked], ids[asked]) and torch.equal(hidden[~asked], ids[~asked])
    assert torch.equal(WORDS.ends(hidden), WORDS.ends(ids)), "no other token ends the text before its end"


def test_how_many_and_how() -> None:
    """15 % of the words; of their tokens 80 % masked, 10 % another, 10 % as they were (a 40th of the others is too)."""
    ids = torch.full((20_000, 12), 20)
    ids[:, 0], ids[:, -1] = 2, 3
    numbers = torch.arange(12).repeat(20_000, 1) * (ids == 20)
    hidden, label = hide(ids, numbers, list(range(20_000)), 0.15, WORDS)
    asked = label[:, 1:-1] != IGNORED
    at_least_one = 0.15 + 0.85**10 / 10
    assert float(asked.float().mean()) == pytest.approx(at_least_one, abs=0.003)
    found = hidden[:, 1:-1][asked]
    shares = [float((found == token).float().mean()) for token in (4, 20)]
    assert shares == pytest.approx([0.8 + 0.1 * 2 / 50, 0.1 + 0.1 / 50], abs=0.01)
    assert found.unique().tolist() == [token for token in range(50) if token != 3]


def test_an_example_is_hidden_the_same_whatever_stands_beside_it() -> None:
    given = batch()
    together = hide(given["text"], given["words"], given["seed"], 0.15, WORDS)
    for i in range(6):
        row, length = slice(i, i + 1), int(WORDS.ends(given["text"])[i]) + 1
        alone = hide(given["text"][row, :length], given["words"][row, :length], given["seed"][row], 0.15, WORDS)
        for one, all_of_them in zip(alone, together, strict=True):
            assert torch.equal(one[0], all_of_them[i, :length])


def test_pieces_by_themselves() -> None:
    ids, numbers = texts(300)
    _, label = hide(ids, torch.arange(1, 13) * (numbers > 0), list(range(300)), 0.15, WORDS)
    split = sum(
        0 < int((row != IGNORED)[words == word].sum()) < int((words == word).sum())
        for row, words in zip(label, numbers, strict=True)
        for word in words.unique().tolist()
        if word
    )
    assert split > 50
    task = Task(model_of(), {"m": objective(whole=False)}, {"m": 1.0})
    features = task.embed(batch())
    asked = torch.randint(1, (6, 12)) + torch.arange(1, 13)
    _, right = hide(batch()["text"], asked * (batch()["words"] > 0), batch()["seed"], 0.15, WORDS)
    assert torch.equal(features["m/label"], right)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_loss_is_the_mean_over_hidden_tokens(dropout: float) -> None:
    model, given = model_of(dropout).eval(), batch()
    outcome = Task(model, {"m": objective()}, {"m": 1.0}).eval()(given)
    losses, hits = [], []
    hidden, label = hide(given["text"], given["words"], given["seed"], 0.15, WORDS)
    for i in range(6):
        joint = model([given["image"][i]], hidden[i : i + 1])
        for place in range(len(joint.words)):
            if label[i, place] != IGNORED:
                scores = model.heads["words"](joint.words[place])
                losses.append(F.cross_entropy(scores, label[i, place]))
                hits.append(float(scores.argmax() == label[i, place]))
    torch.testing.assert_close(outcome.loss, torch.stack(losses).mean())
    assert float(outcome.metrics["m/hits"]) == pytest.approx(sum(hits) / len(hits))


def test_r_drop_compares_what_two_draws_say_of_the_hidden_words() -> None:
    given = batch()
    task = Task(model_of(0.2), {"m": objective()}, {"m": 1.0}).train()
    wrapped = load(ObjectiveConfig, {"kind": "rdrop", "alpha": 2.0, "of": {"kind": "masked_words"}}).build()
    doubled = Task(task.model, {"m": wrapped}, {"m": 1.0}).train()
    torch.manual_seed(0)
    features = doubled.embed(given)
    outcome = doubled.score(features)
    draws = [{"tokens": features[f"m/{half}/tokens"], "label": features["m/label"]} for half in ("one", "two")]
    asked = features["m/label"] != IGNORED
    logits = [task.model.heads["words"](draw["tokens"][asked]).float() for draw in draws]
    label = features["m/label"][asked]
    p, q = (x.log_softmax(1) for x in logits)
    both = F.kl_div(p, q, log_target=True, reduction="batchmean") + F.kl_div(
        q, p, log_target=True, reduction="batchmean"
    )
    right = sum(F.cross_entropy(x, label) for x in logits) / 2 + 2.0 / 4 * both
    torch.testing.assert_close(outcome.loss, right)
    assert float(outcome.metrics["m/kl"]) > 1e-4


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"tasks": ("matching",)}, r"needs a head for words; set model\.tasks to \[matching, words\]"),
        ({"text": replace(WORDS, mask_token=None)}, "needs a token that hides a word; take a tokenizer"),
    ],
)
def test_models_that_cannot(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Task(model_of(**changes), {"m": objective()}, {"m": 1.0})


@pytest.mark.parametrize("share", [0, 1, float("nan"), -0.1])
def test_shares_that_are_none(share: float) -> None:
    with pytest.raises(ValueError, match=r"share: .* must be above 0 and below 1; the paper has 0.15"):
        MaskedWordsConfig(share=share)
