"""CLIP's cases: both sides hold the same model and are given the same work; the FLOPs are those that run."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import clip, embed, flops, loss
from benchmarks.captions import CAPTIONS
from pictura.config import sized
from pictura.models.clip import CLIPConfig
from pictura.training.flops import unknown_to_torch

needs_open_clip = pytest.mark.skipif(importlib.util.find_spec("open_clip") is None, reason="open_clip is not installed")


def small() -> CLIPConfig:
    """ViT-B/32's form, two layers deep and 32 wide."""
    config = sized(CLIPConfig, "ViT-B/32")
    image = replace(config.image, width=32, heads=2, depth=2, image_size=64, activation="gelu")
    text = replace(config.text, width=32, heads=2, depth=2, activation="gelu")
    return replace(config, image=image, text=text, embed_dim=16)


@dataclass(frozen=True, kw_only=True)
class SmallStep(clip.TrainStep):
    def config(self) -> CLIPConfig:
        return small()


@dataclass(frozen=True, kw_only=True)
class SmallImages(embed.EmbedImages):
    def config(self) -> CLIPConfig:
        return small()


@dataclass(frozen=True, kw_only=True)
class SmallTexts(embed.EmbedTexts):
    def config(self) -> CLIPConfig:
        return small()


COMMON = {"name": "toy", "case": "small", "batch": 6, "peer_setting": "as in the real case"}


def test_flops_are_those_that_run() -> None:
    config = small()
    model = config.build()
    image, text = torch.rand(3, 3, 64, 64), torch.randint(1, 100, (3, 9))
    text[:, -1] = 101  # the end, which has the highest id
    with FlopCounterMode(display=False, custom_mapping=unknown_to_torch()) as counter:
        model.encode_image(image).sum().backward()
    assert counter.get_total_flops() == pytest.approx(3 * flops.image(config, training=True), rel=0.02)
    with FlopCounterMode(display=False, custom_mapping=unknown_to_torch()) as counter, torch.no_grad():
        model.encode_image(image)
    assert counter.get_total_flops() == 3 * flops.image(config)
    with FlopCounterMode(display=False, custom_mapping=unknown_to_torch()) as counter:
        model.encode_text(text).sum().backward()
    assert counter.get_total_flops() == pytest.approx(3 * flops.text(config, 9, training=True), rel=0.02)


def test_vit_b32_needs_what_is_published() -> None:
    """open_clip's model_profile.csv: 14.78 GFLOP for one pair of 77 tokens, 4.4 G multiply-adds for the picture."""
    config = sized(CLIPConfig, "ViT-B/32")
    assert flops.image(config) + flops.text(config, 77) == pytest.approx(14.78e9, rel=0.09)
    assert flops.image(config) < 8.82e9


@needs_open_clip
def test_both_sides_of_a_training_step_have_one_first_loss() -> None:
    case = SmallStep(**COMMON)
    ours, peer = case.ours("cpu"), case.peer("cpu")
    first = ours()
    torch.testing.assert_close(first.detach(), peer().detach().float(), rtol=0.01, atol=0.01)
    assert ours() < first  # it learns the batch


@needs_open_clip
@pytest.mark.parametrize("kind", [SmallImages, SmallTexts])
@pytest.mark.parametrize("precision", sorted(embed.SETTINGS))
def test_both_sides_embed_alike(kind: type[embed.Embed], precision: str) -> None:
    case = kind(**COMMON, precision=precision)
    ours, peer = case.ours("cpu")(), case.peer("cpu")()
    assert ours.shape == (6, 16)
    torch.testing.assert_close(ours, peer.float(), rtol=0.05, atol=0.05)


@needs_open_clip  # it brings CLIP's vocabulary
def test_sorted_pieces_hold_every_caption_once_and_whole() -> None:
    case = SmallTexts(**(COMMON | {"batch": 30}), precision="amp_bf16")
    ids, pieces = case.text(), case.sorted_text()
    assert [piece.shape[1] for piece in pieces] == sorted(piece.shape[1] for piece in pieces)
    rows = [tuple(row[row > 0].tolist()) for piece in pieces for row in piece]
    assert sorted(rows) == sorted(tuple(row[row > 0].tolist()) for row in ids)


@needs_open_clip
def test_both_losses_are_one() -> None:
    torch.testing.assert_close(loss.our_step(48, 8, "cpu")(), loss.their_step(48, 8, "cpu")())


def test_captions_are_as_long_as_they_say() -> None:
    words = [len(caption.split()) for caption in CAPTIONS]
    assert (len(set(CAPTIONS)), min(words), max(words)) == (64, 7, 19)
    assert sum(words) / 64 == pytest.approx(11.2, abs=0.05)
