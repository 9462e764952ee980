import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pictura.evaluation import phrases
from pictura.evaluation.embed import Embedder
from pictura.evaluation.phrases import LARGEST, nearest, phrases_of, ranked
from pictura.models.classifier import ClassifierConfig
from pictura.models.clip import CLIP
from pictura.models.vit import ViTConfig
from tests.evaluation.conftest import WORDS, Largest, Made

BANK = [f"a {colour} {thing}" for colour in WORDS.split() for thing in ("dog", "cat", "tree")]


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("top", [1, 4, 500])
def test_in_blocks_it_is_a_sort_of_all_cosines(
    embedder: Embedder, size: int, top: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phrases, "PICTURES", 2)
    images, texts = embedder.images(Made(5)), embedder.texts(BANK)
    scores, places = nearest(images, texts.split(size), top)
    for row, found, where in zip((images @ texts.T).tolist(), scores.tolist(), places.tolist(), strict=True):
        order = sorted(range(len(BANK)), key=lambda i: -row[i])[:top]
        assert found == pytest.approx([row[i] for i in order], abs=1e-6)
        assert [row[i] for i in where] == pytest.approx(found, abs=1e-6) and len(set(where)) == len(where)


def test_equal_ones_come_in_the_order_of_the_bank_and_no_number_comes_last() -> None:
    images = torch.tensor([[1.0, 0.0]])
    texts = torch.tensor([[torch.nan, 0], [0.5, 0], [1, 0], [0.5, 0], [1, 0], [-1, 0]])
    for size in (1, 2, 6):
        scores, places = nearest(images, texts.split(size), 6)
        assert places.tolist() == [[2, 4, 1, 3, 5, 0]]
        assert scores.tolist() == [[1, 1, 0.5, 0.5, -1, -torch.inf]]


def test_a_picture_s_phrases_by_their_words(embedder: Embedder) -> None:
    source = Made(3)
    found = ranked(embedder, source, BANK, top=3)
    vectors = embedder.texts(BANK)
    for i, told in enumerate(found):
        image = source[i]["image"]
        (alone,) = ranked(embedder, [image], BANK, top=3)
        assert [phrase for phrase, _ in alone] == [phrase for phrase, _ in told]
        assert told[0][1] == pytest.approx(float((embedder.images([image]) @ vectors.T).max()), abs=1e-5)
        assert told[0][1] >= told[1][1] >= told[2][1]
    assert ranked(embedder, [], BANK) == []
    assert len(ranked(embedder, source, BANK[:2], top=9)[0]) == 2


def test_memory_does_not_grow_with_the_bank() -> None:
    """Blocks are made as they are asked for, and none is larger than a block of scores."""
    generator = torch.Generator().manual_seed(0)
    images = F.normalize(torch.randn(3, 8, generator=generator), dim=1)
    with Largest() as seen:
        scores, places = nearest(images, (torch.randn(1000, 8, generator=generator) for _ in range(50)), 5)
    assert scores.shape == places.shape == (3, 5) and places.max() > 1000
    assert seen.numbers <= 1000 * 8


def test_a_bank_from_a_file_or_from_captions(tmp_path: Path) -> None:
    path = tmp_path / "bank.txt"
    path.write_text("﻿a red dog\r\n\n  a  blue\tcat \na red dog\nein Mädchen", encoding="utf-8")
    assert phrases_of(path) == phrases_of(str(path)) == ["a red dog", "a blue cat", "ein Mädchen"]
    assert phrases_of(Made(3, [["a", "b"], ["b "], ["c"]], broken=[2])) == ["a", "b"]


def test_banks_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "bank.txt"
    with pytest.raises(ValueError, match=r"bank\.txt: no bank of phrases there \(No such file"):
        phrases_of(path)
    path.write_text("\n \n")
    with pytest.raises(ValueError, match=r"bank\.txt: no phrase in it; give a text file"):
        phrases_of(path)
    path.write_bytes(b"a dog\n\xff\xfe")
    with pytest.raises(ValueError, match=r"bank\.txt: is no UTF-8 text"):
        phrases_of(path)
    with path.open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(ValueError, match=r"268,435,457 bytes, more than the 268,435,456"):
        phrases_of(path)
    with pytest.raises(ValueError, match="the data: no phrase in it"):
        phrases_of(Made(2, [[], []]))


def test_what_cannot_be_ranked(embedder: Embedder, tmp_path: Path) -> None:
    for bank in ("a dog", []):
        with pytest.raises(ValueError, match=r"^bank: .* is no list of phrases"):
            ranked(embedder, Made(1), bank)
    with pytest.raises(ValueError, match="top: 0 is below 1; try 5"):
        ranked(embedder, Made(1), BANK, top=0)
    with pytest.raises(ValueError, match="nowhere"):
        ranked(embedder, [tmp_path / "nowhere.png"], BANK)
    tower = ViTConfig(image_size=16, patch_size=8, width=24, depth=1, heads=3)
    other: nn.Module = ClassifierConfig(image=tower).build()
    with pytest.raises(ValueError, match=r"this model \(classifier\) reads no texts alone"):
        ranked(Embedder(other, None), Made(1), BANK)


def test_a_model_whose_vectors_are_no_numbers_is_told_of(model: CLIP, embedder: Embedder) -> None:
    broken = Embedder(CLIP(model.config), embedder.tokenizer, batch_size=4)
    broken.model.image_projection.weight.data.fill_(torch.nan)
    with warnings.catch_warnings():
        ((_, score), *_), *_ = ranked(broken, Made(1), BANK, top=2)
    assert score == -torch.inf
