from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch

from pictura.config import load
from pictura.data.batches import Batches, LoaderConfig
from pictura.data.scenes import ScenesConfig
from pictura.data.wordpiece import WordPieceTokenizerConfig
from pictura.evaluation.base import EvaluatorConfig
from pictura.evaluation.embed import Embedder
from pictura.evaluation.held_out import HeldOut
from pictura.models.classifier import ClassifierConfig
from pictura.models.vilt import ViLTConfig
from pictura.models.vilt_parts import WordsConfig
from pictura.models.vit import ViTConfig
from pictura.objectives.base import Task
from pictura.objectives.classification import ClassificationConfig
from pictura.objectives.masked_words import MaskedWordsConfig
from pictura.objectives.simclr import SimCLRConfig
from tests.evaluation.conftest import Made
from tests.models.small import BY_KIND, built

SCENES = {"kind": "scenes", "count": 10, "image_size": 32, "objects": [1, 2]}


@pytest.fixture(scope="module")
def vilt() -> Embedder:
    source = ScenesConfig(count=10).build()
    words = WordPieceTokenizerConfig(vocab_size=120).build(source.all_captions)
    text = WordsConfig(vocab_size=words.vocab_size, end_token=words.end, mask_token=words.mask)
    image = ViTConfig(image_size=32, patch_size=16, width=24, depth=2, heads=3, dropout=0.5)
    torch.manual_seed(0)
    return Embedder(ViLTConfig(image=image, text=text, tasks=("words", "matching")).build(), words, batch_size=4)


def evaluator(objective: dict[str, Any], **changes: Any) -> HeldOut:
    given = {"kind": "held_out", "objective": objective, "data": SCENES, "batch_size": 4}
    built = load(EvaluatorConfig, given | changes).build()
    assert isinstance(built, HeldOut)
    return built


def test_it_is_the_task_s_own_loss_over_whole_batches(vilt: Embedder) -> None:
    found = dict(evaluator({"kind": "masked_words"}).run(vilt))
    assert vilt.model.training, "as it was"
    source = ScenesConfig(count=10, image_size=32, objects=(1, 2)).build()
    task = Task(vilt.model, {"o": MaskedWordsConfig().build()}, {"o": 1.0}).eval()
    batches = Batches(source, vilt.view, vilt.tokenizer, LoaderConfig(batch_size=3), seed=0, needs=task.needs).iterate()
    with torch.inference_mode():
        outcomes = [task(next(batches)) for _ in range(3)]
    task.train()
    assert found["held_out/masked_words/loss"] == pytest.approx(float(sum(o.loss for o in outcomes)) / 3, rel=1e-5)
    hits = float(sum(o.metrics["o/hits"] for o in outcomes)) / 3
    assert found["held_out/masked_words/hits"] == pytest.approx(hits)


def test_again_it_gives_the_same_and_shows_it(vilt: Embedder) -> None:
    measure = evaluator({"kind": "matching", "alignment": 0.1}, name="pairs")
    assert measure.panels() == []
    first = dict(measure.run(vilt))
    assert first.keys() == {f"held_out/pairs/{name}" for name in ("loss", "hits", "apart")}
    assert dict(measure.run(vilt)) == first
    (panel,) = measure.panels()
    assert panel.title.startswith("held_out/pairs") and "apart" in panel.html()


def test_what_cannot_be_measured(vilt: Embedder) -> None:
    with pytest.raises(ValueError, match="held_out/questions: the data has no answers and no question"):
        evaluator({"kind": "questions"})
    masked, classifier = evaluator({"kind": "masked_words"}), built(BY_KIND["classifier"])
    with pytest.raises(ValueError, match="needs a model of kind vilt, not classifier"):
        masked.check(classifier)
    simclr = HeldOut(ScenesConfig(count=10).build(), SimCLRConfig().build(), "s")
    with pytest.raises(ValueError, match="has a head of its own, which a model does not keep"):
        simclr.check(classifier)
    with pytest.raises(ValueError, match="a loss by itself has no weight"):
        evaluator({"kind": "masked_words", "weight": 0.5})


def test_classes_in_another_order_are_refused() -> None:
    """Their labels would be taken for others'."""
    made = Made(4, labels=[0, 1, 0, 1], names=("dog", "cat"))
    config = ClassifierConfig(image=ViTConfig(image_size=32, patch_size=16, width=24, depth=1, heads=3), classes=2)
    for names, fits in ((("dog", "cat"), True), (("cat", "dog"), False)):
        measure = HeldOut(made, ClassificationConfig().build(), "c")
        with (
            nullcontext() if fits else pytest.raises(ValueError, match="the model's classes are not those of the data")
        ):
            measure.check(replace(config, class_names=names).build())


def test_what_cannot_be_read_is_told(vilt: Embedder) -> None:
    embedder = Embedder(vilt.model, vilt.tokenizer, batch_size=4)
    made = Made(8, captions=[[f"a red star {i}"] for i in range(8)], broken=(3,))
    dict(HeldOut(made, MaskedWordsConfig().build(), "w", 4).run(embedder))
    assert [key for key, _ in embedder.bad.rows()] == ["made/3"]
