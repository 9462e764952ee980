from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pictura.evaluation.adapters import prompt_logistic
from pictura.evaluation.embed import Embedder
from pictura.evaluation.few_shot import draw
from pictura.evaluation.fitted import (
    FORMAT,
    METHODS,
    FitMethod,
    Fitted,
    as_sure,
    fit_classifier,
    look,
    parts,
    read_fitted,
)
from pictura.evaluation.prompts import Prompts
from pictura.evaluation.zeroshot import Classifier
from pictura.models.clip import CLIP
from pictura.verbs import fit as verb
from tests.evaluation.conftest import Made

NAMES = ("dog", "cat", "house")
PROMPTS = Prompts(templates=("a {}", "the {}"))


def made(n: int = 21, broken: tuple[int, ...] = ()) -> Made:
    return Made(n, labels=[i * 2 % 3 for i in range(n)], names=NAMES, broken=broken)


def test_it_is_the_methods_own_classifier_and_asks_each_picture_when_it_was_not_learnt_from(embedder: Embedder) -> None:
    found = fit_classifier(embedder, made(21, (5,)), NAMES, shots=6, prompts=PROMPTS, seed=3)
    places = [i for i in range(21) if i != 5]
    x, label = embedder.images(made(21, (5,))), torch.tensor([i * 2 % 3 for i in places])
    some = draw(label, 6, 3, 0)
    x, label = x[some], label[some]
    own = Classifier.of(embedder, NAMES, PROMPTS)
    by_hand = prompt_logistic(x, label, own.vectors[0], own.scale)
    torch.testing.assert_close(found.fitted.weight, by_hand.weight.float())
    logits = found.fitted.scale * by_hand(x)
    torch.testing.assert_close(found.fitted.probabilities(x), logits.softmax(1), rtol=1e-3, atol=1e-4)
    right = []
    for i in range(len(x)):
        of_class = [j for j in range(len(x)) if label[j] == label[i]]
        part = of_class.index(i) % 5
        rest = [j for j in range(len(x)) if [m for m in range(len(x)) if label[m] == label[j]].index(j) % 5 != part]
        answer = prompt_logistic(x[rest], label[rest], own.vectors[0], own.scale)(x[i : i + 1])
        right.append(int(answer.argmax()) == int(label[i]))
    assert found.right.tolist() == right
    assert found.zeroshot is not None
    assert found.zeroshot.tolist() == (own.scores(x).argmax(1) == label).tolist()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_written_and_read(method: FitMethod, embedder: Embedder, tmp_path: Path) -> None:
    fitted = fit_classifier(embedder, made(), NAMES, method).fitted
    path = tmp_path / "c.safetensors"
    fitted.save(path)
    again = read_fitted(path)
    assert again.names == NAMES and [*tmp_path.iterdir()] == [path]
    again.check(embedder)
    x = embedder.images(made())
    torch.testing.assert_close(again.probabilities(x), fitted.probabilities(x), rtol=0, atol=0)
    torch.testing.assert_close(again.probabilities(x).sum(1), torch.ones(21))


def test_answers_are_as_sure_as_they_are_right() -> None:
    scores = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    for share in (0.4, 0.8, 0.99):
        scale = as_sure(scores, share)
        assert float((scale * scores).softmax(1).amax(1).mean()) == pytest.approx(share, abs=1e-4)
    assert as_sure(scores, 0.1) < 1e-3, "below chance, all classes are alike"


def test_parts_share_out_each_class() -> None:
    label = torch.tensor([0, 1, 0, 1, 1, 0, 1, 0, 1, 1])
    assert parts(label, 3).tolist() == [0, 0, 1, 1, 2, 2, 0, 0, 1, 2]


def test_another_model_is_refused(embedder: Embedder, tmp_path: Path) -> None:
    fitted = fit_classifier(embedder, made(), NAMES, "ridge").fitted
    torch.manual_seed(1)
    other = CLIP(embedder.model.config)
    with pytest.raises(ValueError, match="was fitted on another model"):
        fitted.check(Embedder(other, embedder.tokenizer))
    short = Fitted(NAMES, fitted.weight[:5], fitted.bias, 1.0, fitted.probe[:5])
    with pytest.raises(ValueError, match="takes vectors of 5 numbers, and this model's are 24"):
        short.check(embedder)
    assert float(look(embedder) @ fitted.probe) == pytest.approx(1, abs=1e-5)


def test_mistakes_are_named(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="'house' has 1 usable pictures; each class needs two"):
        fit_classifier(embedder, made(7, broken=(1, 7)), NAMES)
    with pytest.raises(ValueError, match="shots: 1 of each class are too few"):
        fit_classifier(embedder, made(), NAMES, shots=1)
    with pytest.raises(ValueError, match="take a set that averages vectors"):
        fit_classifier(embedder, made(), NAMES, prompts=Prompts(average="probabilities"))
    monkeypatch.setattr(embedder.model, "encode_image", lambda image: torch.full((len(image), 24), torch.nan))
    with pytest.raises(ValueError, match="not finite"):
        fit_classifier(embedder, made(), NAMES)


TENSORS = {"weight": torch.ones(2, 3), "bias": torch.zeros(2), "probe": torch.ones(3), "scale": torch.tensor(1.0)}
ABOUT = {"format": FORMAT, "names": '["a", "b"]'}


@pytest.mark.parametrize(
    ("tensors", "about", "said"),
    [
        ({}, {}, "its format is not .pictura classifier 1"),
        ({}, {"format": FORMAT}, "no classifier, or a damaged one"),
        ({}, {"names": "[" * 100_000}, "no classifier, or a damaged one"),
        ({}, {"names": '["a"]'}, "there are not 2 names"),
        ({}, {"names": '{"a": 1, "b": 2}'}, "there are not 2 names"),
        ({}, {"names": '["a", "a"]'}, "'a' names two classes"),
        ({"weight": torch.ones(3, 2)}, ABOUT, "its tensors do not fit together"),
        ({"scale": torch.ones(2)}, ABOUT, "its tensors do not fit together"),
        ({"scale": torch.tensor(0.0)}, ABOUT, "its tensors do not fit together"),
        ({"bias": torch.tensor([0, torch.nan])}, ABOUT, "its tensors do not fit together"),
    ],
)
def test_files_that_are_none(
    tensors: dict[str, torch.Tensor], about: dict[str, str], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "c.safetensors"
    save_file(TENSORS | tensors, path, metadata=ABOUT)
    if not tensors:
        known = about if "format" in about or not about else ABOUT | about
        save_file(TENSORS, path, metadata=known or {"format": "pt"})
    with pytest.raises(ValueError, match=said):
        read_fitted(path)


def test_what_is_no_file_of_tensors(tmp_path: Path) -> None:
    (tmp_path / "c.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    with pytest.raises(ValueError, match="no classifier, or a damaged one"):
        read_fitted(tmp_path / "c.safetensors")
    with pytest.raises(ValueError, match="no such file"):
        read_fitted(tmp_path / "d.safetensors")


def test_the_verb_offers_every_method() -> None:
    assert verb.METHODS == METHODS
