from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor

from pictura.evaluation.pointing import ACROSS, BETA, CAPTION, STEPS, TILE, drawn, word_maps
from tests.data.files import photo
from tests.evaluation.test_questions import joint_model, word_pieces

WORDS = ["is", "there", "a", "hippopotamus", "?"]
TEXT = "Is there a hippopotamus?"


def image() -> Tensor:
    """Neither square nor of the model's size: 3 x 4 patches of 8 pixels."""
    return torch.randint(0, 256, (3, 24, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_each_word_has_a_map_of_the_patches_and_its_pieces_are_joined() -> None:
    tokenizer = word_pieces()
    assert len(tokenizer([WORDS[3]])[0]) > 4, "it is spelled in pieces"
    maps = word_maps(joint_model("matching").eval(), tokenizer, image(), TEXT)
    assert [word for word, _ in maps] == WORDS
    for _, shares in maps:
        assert shares.shape == (3, 4) and shares.dtype == np.float32
        assert shares.max() == 1 and shares.min() >= 0
    assert not np.allclose(maps[0][1], maps[3][1], atol=0.05), "words are told apart"


@pytest.mark.parametrize("pool", ["class", "average"])
def test_maps_are_those_of_a_plain_loop(pool: Any) -> None:
    """Algorithm 1 of Xie et al. (2018) in float64, with a class token before the patches and without."""
    tokenizer, model = word_pieces(), joint_model("matching", pool=pool).eval()
    with torch.no_grad():
        joint = model([image()], tokenizer([TEXT]))
    words = joint.words[1:-1].double().numpy()
    patches = joint.tokens[len(joint.words) + (pool == "class") :].double().numpy()
    plan = transported(words, patches)
    first = 0
    for word, shares in word_maps(model, tokenizer, image(), TEXT):
        pieces = len(tokenizer([word])[0]) - 2
        own = sum(plan[first : first + pieces])
        np.testing.assert_allclose(shares, (own / own.max()).reshape(3, 4), atol=2e-3)
        first += pieces
    assert first == len(words) and patches.shape == (12, 32)


def transported(words: npt.NDArray[Any], patches: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[n d], [m d] -> [n m]."""
    n, m = len(words), len(patches)
    cost = np.array([[1 - w @ p / np.linalg.norm(w) / np.linalg.norm(p) for p in patches] for w in words])
    kernel, plan, scale = np.exp(-cost / BETA), np.ones((n, m)), np.full(n, 1 / n)
    for _ in range(STEPS):
        now = kernel * plan
        other = np.array([1 / m / sum(now[i, j] * scale[i] for i in range(n)) for j in range(m)])
        scale = np.array([1 / n / sum(now[i, j] * other[j] for j in range(m)) for i in range(n)])
        plan = scale[:, None] * now * other[None]
    return plan


def test_normalised_pictures_are_taken_too() -> None:
    model, tokenizer = joint_model("matching").eval(), word_pieces()
    mean, std = (torch.tensor(of)[:, None, None] for of in (model.config.mean, model.config.std))
    maps = [word_maps(model, tokenizer, given, TEXT) for given in (image(), (image() / 255 - mean) / std)]
    for (_, one), (_, two) in zip(*maps, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-3)


@pytest.mark.parametrize(("words", "across", "down"), [(1, 1, 1), (5, 5, 1), (6, 5, 2), (11, 5, 3)])
@pytest.mark.parametrize("size", [(448, 224), (100, 50), (20, 90)])
def test_the_sheet_has_a_tile_for_each_word(words: int, across: int, down: int, size: tuple[int, int]) -> None:
    assert across <= ACROSS
    picture = photo(size)
    shares = np.ones((2, 3), np.float32)
    sheet = drawn(picture, [("word", shares)] * words)
    width, height = (round(side * TILE / max(size)) for side in size)
    assert sheet.mode == "RGB" and sheet.size == (max(width, 64) * across, (height + CAPTION) * down)
    assert picture.size == size, "what is given stays as it is"


def test_a_tile_is_bright_where_the_word_is() -> None:
    """The picture as it is there, a quarter of that far away; the word is written below."""
    picture = Image.new("RGB", (120, 80), (200, 100, 40))
    left, right = np.array([[1, 0]], np.float32), np.array([[0, 1]], np.float32)
    pixels = np.asarray(drawn(picture, [("star", left), ("ring", right)]))
    assert pixels.shape == (149 + CAPTION, 448, 3)
    for tile, bright, dark in ((pixels[:, :224], 2, 221), (pixels[:, 224:], 221, 2)):
        assert tile[40, bright].tolist() == [200, 100, 40] and tile[40, dark].tolist() == [50, 25, 10]
        assert (tile[149:] < 128).any() and (tile[149:, 60:] == 255).all(), "a short word below, on white"


def test_a_grey_picture_is_drawn_in_colours() -> None:
    sheet = drawn(Image.new("L", (64, 64), 100), [("word", np.ones((1, 1), np.float32))])
    assert sheet.getpixel((30, 30)) == (100, 100, 100)
