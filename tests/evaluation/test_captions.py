import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from pictura.config import load
from pictura.data.scenes import ScenesConfig
from pictura.data.source import Source
from pictura.data.text import Tokenizer
from pictura.evaluation.base import EvaluatorConfig
from pictura.evaluation.captions import Captions, CaptionsConfig, official, told, words_of
from pictura.evaluation.embed import Embedder, Pictures
from pictura.evaluation.panels import Gallery
from pictura.evaluation.report import write_report
from pictura.models.captioner import Captioner, CaptionerConfig, DecoderConfig
from pictura.models.clip import CLIP
from pictura.models.vit import ViTConfig
from tests.evaluation.conftest import Made

DATA = ScenesConfig(count=2)  # what a configuration must name; the tests bring sources of their own
TRUE = [
    ["a red dog runs", "the dog runs near a house", "a red dog"],
    ["a green cat sleeps", "the old cat sleeps"],
    ["a small blue tree", "a tree", "the blue tree near the house"],
    ["an old photo of a house", "a house stands"],
]
METRICS = ["CIDEr", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L"]


@pytest.fixture(scope="module")
def captioner(tokenizer: Tokenizer) -> Captioner:
    torch.manual_seed(0)
    text = DecoderConfig(
        vocab_size=tokenizer.vocab_size, context_length=16, width=32, depth=1, heads=2, end_token=tokenizer.end
    )
    tower = ViTConfig(image_size=32, patch_size=16, width=32, depth=1, heads=2)
    return CaptionerConfig(image=tower, text=text, embed_dim=24, prefix=4).build()


@pytest.fixture(scope="module")
def taught(captioner: Captioner, tokenizer: Tokenizer) -> Embedder:
    """It has learnt the first caption of each of four pictures by heart."""
    embedder = Embedder(captioner, tokenizer, batch_size=3)
    images = torch.stack([embedder.view(dict(Made(4)[i])["image"], None) for i in range(4)])  # type: ignore[arg-type]
    ids = tokenizer([texts[0] for texts in TRUE])
    ends = (ids == tokenizer.end).int().argmax(1)
    optimizer = torch.optim.Adam(captioner.parameters(), 5e-3)
    for _ in range(300):
        optimizer.zero_grad()
        scores = captioner.train()(images, ids).log_softmax(-1)[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
        loss = -(scores * (torch.arange(ids.shape[1] - 1) < ends[:, None])).sum() / ends.sum()
        loss.backward()
        optimizer.step()
        if loss < 0.02:
            break
    assert loss < 0.02
    return embedder


def evaluator(source: Source, **options: Any) -> Captions:
    return Captions(CaptionsConfig(data=DATA, **options), source)


def test_what_is_told_is_measured_and_shown(taught: Embedder, tmp_path: Path) -> None:
    measures = evaluator(Made(4, TRUE), name="made", beams=2)
    assert measures.panels() == []
    taught.model.train()
    values = dict(measures.run(taught))
    assert taught.model.training and list(values) == [f"captions/made/{metric}" for metric in METRICS]
    assert measures.told == [texts[0] for texts in TRUE]
    expected, _ = official([texts[0] for texts in TRUE], TRUE)
    assert {f"captions/made/{metric}": value for metric, value in expected.items()} == values
    assert values["captions/made/BLEU-4"] == pytest.approx(1) and values["captions/made/ROUGE-L"] == pytest.approx(1)
    assert dict(measures.run(taught)) == values, "again"
    (gallery,) = measures.panels()
    assert isinstance(gallery, Gallery)
    ((heading, pictures),) = gallery.rows
    assert heading == "Best by CIDEr" and len(pictures) == 4
    for place, picture in zip(sorted(range(4), key=lambda i: -measures.ciders[i]), pictures, strict=True):
        assert [line.text for line in picture.lines] == [TRUE[place][0], *TRUE[place][:3]]
        assert picture.lines[0].mark and picture.lines[0].value == f"{measures.ciders[place]:.2f}"
    write_report(tmp_path / "r.html", title="t", metrics=values, panels=[gallery])


def test_the_worst_come_in_a_row_of_their_own(taught: Embedder) -> None:
    wrong = [["a photo of the old house"]] * 20
    measures = evaluator(Made(24, TRUE + wrong))
    dict(measures.run(taught))
    (gallery,) = measures.panels()
    assert isinstance(gallery, Gallery)
    (_, best), (heading, worst) = gallery.rows
    assert heading == "Worst by CIDEr" and len(best) == len(worst) == 8
    numbers = [float(picture.lines[0].value) for picture in (*best, *worst[::-1])]
    assert numbers == sorted(numbers, reverse=True) and numbers[0] > numbers[-1]
    assert not worst[0].lines[0].mark


def test_a_picture_that_cannot_be_read_is_left_out_with_its_captions(taught: Embedder) -> None:
    measures, embedder = evaluator(Made(4, TRUE, broken=[1])), Embedder(taught.model, taught.tokenizer, batch_size=3)
    values = dict(measures.run(embedder))
    assert measures.indices == [0, 2, 3] and measures.told == [TRUE[i][0] for i in (0, 2, 3)]
    assert values["captions/BLEU-4"] == pytest.approx(1)
    assert [key for key, _ in embedder.bad.rows()] == ["made/1"]


def test_somebody_s_own_pictures(taught: Embedder, tmp_path: Path) -> None:
    images = [dict(Made(4)[i])["image"] for i in range(4)]
    found = [one for some, _ in told(taught, Pictures(images), beams=3) for one in some]  # type: ignore[arg-type]
    assert [text for text, _ in found] == [texts[0] for texts in TRUE]
    assert all(-0.1 < score < 0 for _, score in found)
    with taught.strict(), pytest.raises(ValueError, match=r"nowhere\.png: No such file"):
        list(told(taught, Pictures([tmp_path / "nowhere.png"])))


def test_closed_forms() -> None:
    """BLEU: clipped precisions and the closest length (Papineni et al. 2002, section 2); ROUGE-L: F of beta 1.2."""
    values, each = official(["The dog runs."], [["the dog runs near a house", "a red dog"]])
    short = torch.tensor(1 - 3 / 3).exp()  # a true caption is as long
    assert values["BLEU-1"] == pytest.approx(float(short)) and values["BLEU-3"] == pytest.approx(1)
    p, r = 1.0, 3 / 6
    assert values["ROUGE-L"] == pytest.approx((1 + 1.2**2) * p * r / (r + 1.2**2 * p))
    assert values["CIDEr"] == 0 and each == [0], "of one picture no word is rare"
    values, _ = official(["dog dog dog", "x"], [["a dog"], ["y"]])
    assert values["BLEU-1"] == pytest.approx(1 / 4)
    values, each = official(["", "a cat"], [["a dog"], ["a cat"]])
    assert each[0] == 0 < each[1] and values["CIDEr"] == pytest.approx(sum(each) / 2)


def test_cider_is_that_of_a_plain_loop() -> None:
    """CIDEr-D (Vedantam et al. 2015, section 6), of single words alone: clipped tf-idf cosines, times a Gaussian of the
    lengths, over the four sizes of n-grams, of which three are empty here, times 10."""
    said, true = ["dog", "cat"], [["dog", "tree"], ["cat"]]
    _, each = official(said, true)
    # log(2 / pictures that have the word) is log 2 for each: the cosine is 1 with the same word, 0 with another.
    assert each == pytest.approx([10 * 0.5 / 4, 10 * 1.0 / 4])


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A dog, a cat; a bird!", "a dog a cat a bird"),
        ("The dog's ball doesn't roll.", "the dog 's ball does n't roll"),
        ("It’s “red” (really)", "it 's red -lrb- really -rrb-"),
        ("a t-shirt, 3.5 m - 10:30 a.m. & $5", "a t-shirt 3.5 m 10:30 a.m. & $ 5"),
        ("two girls' hats...wait", "two girls hats wait"),
        ("Mr. Smith cannot go", "mr. smith can not go"),
        ("1,000 black-and-white 1/2 2nd", "1,000 black-and-white 1/2 2nd"),
        (" ... ", ""),
    ],
)
def test_words_are_those_of_stanfords_tokenizer(caption: str, words: str) -> None:
    assert " ".join(words_of(caption)) == words


def test_on_the_captions_of_scenes_and_of_coco_it_is_stanfords() -> None:
    """Where there is Java, and, for COCO, its captions."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    try:
        subprocess.run(["java", "-version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no Java")
    captions = list(ScenesConfig(count=500, gives=("captions",)).build().all_captions())
    for path in (Path(__file__).parents[3] / "shared" / "data" / "coco-mini").glob("captions_*.json"):
        captions += [one["caption"] for one in json.loads(path.read_text())["annotations"]]
    given = {i: [{"caption": caption}] for i, caption in enumerate(captions)}
    theirs = PTBTokenizer().tokenize(given)
    assert [" ".join(words_of(caption)) for caption in captions] == [theirs[i][0] for i in range(len(captions))]


def test_models_that_tell_nothing_and_data_without_captions(taught: Embedder, model: CLIP) -> None:
    with pytest.raises(ValueError, match=r"this model \(clip\) tells no captions; train one, `pictura train captions`"):
        evaluator(Made(4, TRUE)).check(model)
    with pytest.raises(ValueError, match="longest: 16 tokens; this model says at most 15"):
        evaluator(Made(4, TRUE), longest=16).check(taught.model)
    evaluator(Made(4, TRUE), longest=15).check(taught.model)
    with pytest.raises(ValueError, match="captions: the data has no captions"):
        evaluator(Made(4))
    with pytest.raises(ValueError, match="the data has no usable picture with a caption"):
        dict(evaluator(Made(0, [])).run(taught))


@pytest.mark.parametrize(
    ("options", "told"),
    [({"beams": 0}, "beams: 0 is below 1"), ({"longest": 0}, "longest: 0"), ({"length_penalty": -1}, "length_penalty")],
)
def test_searches_that_cannot_be(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        load(EvaluatorConfig, {"kind": "captions", "data": {"kind": "scenes"}} | options)


def test_a_recipe_names_it_by_kind() -> None:
    data = {"kind": "scenes", "captions": 3, "count": 6}
    built = load(EvaluatorConfig, {"kind": "captions", "data": data, "name": "scenes"}).build()
    assert isinstance(built, Captions) and built.title == "captions/scenes"
