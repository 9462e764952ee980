import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pictura.config import load
from pictura.data.text import Tokenizer
from pictura.evaluation.embed import Embedder
from pictura.evaluation.guided import Drawing, GuidedConfig, draw, looks, places
from pictura.evaluation.report import write_report
from pictura.models.classifier import ClassifierConfig
from pictura.models.clip import CLIP
from pictura.models.pictures import read_pictures

SHORT = {"strokes": 12, "steps": 30, "views": 4, "frames": 3}


@pytest.fixture
def drawing(embedder: Embedder, one_thread: None) -> Drawing:
    return draw(embedder, "a red dog", GuidedConfig(**SHORT))


def test_the_model_sees_more_of_it_at_the_end(embedder: Embedder, drawing: Drawing) -> None:
    assert len(drawing.scores) == 30 and [frame.step for frame in drawing.frames] == [0, 15, 30]
    assert np.mean(drawing.scores[-5:]) > np.mean(drawing.scores[:5]) + 0.1
    assert drawing.frames[-1].cosine > drawing.frames[0].cosine + 0.1
    seen = embedder.images([drawing.image(64)]) @ embedder.texts("a red dog")[0]
    assert drawing.frames[-1].cosine == pytest.approx(float(seen), abs=1e-5)


def test_the_same_seed_gives_the_same_pixels(embedder: Embedder, drawing: Drawing) -> None:
    again, other = (draw(embedder, "a red dog", GuidedConfig(**SHORT, seed=seed)) for seed in (0, 1))
    np.testing.assert_array_equal(drawing.image(64), again.image(64))
    assert drawing.scores == again.scores and drawing.svg() == again.svg()
    assert (drawing.image(64) != other.image(64)).any()


def test_the_model_stays_as_it_is(model: CLIP, tokenizer: Tokenizer) -> None:
    own = copy.deepcopy(model).train()
    own.text.requires_grad_(False)
    before = {name: (w.clone(), w.requires_grad) for name, w in own.named_parameters()}
    draw(Embedder(own, tokenizer), "a red dog", GuidedConfig(strokes=3, steps=2, views=2))
    for name, weight in own.named_parameters():
        assert weight.grad is None and torch.equal(weight, before[name][0]), name
        assert weight.requires_grad == before[name][1], name
    assert own.training and own.image.training


def test_a_bf16_model_guides_too(model: CLIP, tokenizer: Tokenizer) -> None:
    half = copy.deepcopy(model).to(torch.bfloat16)
    scores = draw(Embedder(half, tokenizer), "a red dog", GuidedConfig(**SHORT)).scores
    assert np.mean(scores[-5:]) > np.mean(scores[:5]) + 0.1


class Red(nn.Module):
    """Sees how red, green and blue a picture is, normalised; for every text it wants that of pure red."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.config = model.config

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        return read_pictures(image, self.config, torch.float32).mean((2, 3))

    def encode_text(self, text: torch.Tensor) -> torch.Tensor:
        red = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
        red[:, 0] = 255
        return self.encode_image(red).expand(len(text), 3)


def test_what_it_wants_is_what_it_gets(model: CLIP, tokenizer: Tokenizer) -> None:
    """Colours and the model's own normalisation arrive as they are."""
    drawn = draw(Embedder(Red(model), tokenizer), "a red dog", GuidedConfig(strokes=4, steps=80, views=2))
    red, green, blue = drawn.image(32).mean((0, 1))
    assert red > 200 and green < 60 and blue < 60


def test_negative_texts_are_kept_away(embedder: Embedder, drawing: Drawing) -> None:
    without = draw(embedder, "a red dog", GuidedConfig(**SHORT, negatives=("the old tree",)))
    first, second = embedder.images([drawing.image(64), without.image(64)]) @ embedder.texts("the old tree")[0]
    assert second < first


def test_views_are_squares_within_the_picture_or_near(one_thread: None) -> None:
    maps = places(0, 7, 200)
    corners = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]]) @ maps.transpose(0, 2, 1)
    corners = corners[..., :2] / corners[..., 2:]
    x, y = corners[..., 0], corners[..., 1]
    area = 0.5 * np.abs((x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1)).sum(1)) / 4
    assert 0.75 < area.mean() < 0.85 and area.min() > 0.45 and np.abs(corners).max() < 1.2
    np.testing.assert_array_equal(maps, places(0, 7, 200))
    assert (maps[:4] != places(0, 8, 4)).any() and (maps[:4] != places(1, 7, 4)).any()


def test_a_view_of_all_is_the_picture_and_a_view_of_a_part_that_part() -> None:
    picture = torch.rand(3, 16, 16)
    half = np.diag([0.5, 0.5, 1]).astype(np.float32)
    half[:2, 2] = -0.5  # the upper left quarter
    whole, quarter = looks(picture, 16, np.stack([np.eye(3, dtype=np.float32), half]))
    torch.testing.assert_close(whole, picture)
    wanted = F.interpolate(picture[None], 32, mode="bilinear")[0, :, :15, :15]  # but for where the crop ends
    torch.testing.assert_close(quarter[:, :15, :15], wanted)


def test_a_film_and_a_report(drawing: Drawing, tmp_path: Path) -> None:
    film = drawing.film(20)
    assert [image.size for image in film] == [(20, 20)] * 3
    np.testing.assert_array_equal(np.asarray(film[-1]), drawing.image(20))
    write_report(tmp_path / "r.html", title="drawn", metrics={}, panels=drawing.panels())
    page = (tmp_path / "r.html").read_text()
    assert page.count("<img ") == 3 and "a red dog" in page and "step 15" in page


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"strokes": 0}, "strokes: 0 must be from 1 to 1024"),
        ({"steps": 0}, "steps: 0 must be"),
        ({"views": 65}, "views: 65 must be from 1 to 64"),
        ({"size": 4096}, "size: 4096 must be from 1 to 1024"),
        ({"frames": 1}, "frames: 1 must be 2 or more"),
        ({"lr": 0.0}, "lr: 0.0 must be above zero"),
    ],
)
def test_mistakes_in_a_configuration(given: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load(GuidedConfig, given)


def test_mistakes_and_what_is_told(embedder: Embedder, model: CLIP, tokenizer: Tokenizer) -> None:
    for text, negatives, said in (
        ("", (), "text: it is empty"),
        ("dog " * 30, (), "tokens, and this model reads"),
        ("a dog", (" ",), "negatives: it is empty"),
    ):
        with pytest.raises(ValueError, match=said):
            draw(embedder, text, GuidedConfig(negatives=negatives))
    told: list[tuple[str, int, int]] = []
    draw(embedder, "a dog", GuidedConfig(strokes=1, steps=2, views=1), tell=lambda *seen: told.append(seen))
    assert told == [("steps", 1, 2), ("steps", 2, 2)]
    with pytest.raises(ValueError, match="no tokenizer"):
        draw(Embedder(model, None), "a dog")
    classifier = ClassifierConfig(image=model.config.image, classes=2).build()
    with pytest.raises(ValueError, match="reads no texts alone"):
        draw(Embedder(classifier, None), "a dog")
    broken = copy.deepcopy(model)
    nn.init.constant_(broken.image_projection.weight, float("nan"))
    with pytest.raises(ValueError, match="step 0: the model gives numbers that are not finite"):
        draw(Embedder(broken, tokenizer), "a dog", GuidedConfig(**SHORT))
