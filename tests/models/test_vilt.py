from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from pictura.config import load, sized
from pictura.layers.draws import two_draws
from pictura.layers.once import reading_once
from pictura.models.base import ModelConfig
from pictura.models.vilt import JointTask, ViLT, ViLTConfig
from pictura.models.vilt_parts import WordsConfig
from pictura.models.vit import ViTConfig
from pictura.weights.folder import empty
from tests.models.small import BY_KIND, built

TEXT = torch.tensor([[1, 5, 6, 2, 0], [1, 2, 0, 0, 0], [1, 7, 7, 7, 2]])
SIDES = [(64, 32), (32, 96), (64, 64)]


def small(**changes: Any) -> ViLTConfig:
    image = ViTConfig(image_size=64, patch_size=16, width=24, depth=3, heads=3)
    config = ViLTConfig(image=image, text=WordsConfig(vocab_size=40, context_length=6, end_token=2))
    return replace(config, **changes)


def model_of(config: ViLTConfig) -> ViLT:
    torch.manual_seed(0)
    return config.build().eval()


def pictures(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, *sides, generator=generator).to(dtype) for sides in SIDES]


@pytest.mark.parametrize("image", [{}, {"pre_norm": True}, {"pool": "average"}])
def test_a_batch_of_many_sizes_gives_what_each_pair_gives_alone(image: dict[str, Any]) -> None:
    """Values and gradients: nothing of one example, and no padding, reaches another."""
    config = small()
    model = model_of(replace(config, image=replace(config.vit, **image)))
    images = [picture.requires_grad_() for picture in pictures()]
    together = model.read(images, TEXT)
    alone = torch.cat([model.read([one], text[None]) for one, text in zip(images, TEXT, strict=True)])
    torch.testing.assert_close(together, alone)
    leaves = [*images, *(p for name, p in model.named_parameters() if not name.startswith("heads."))]
    ours = torch.autograd.grad(together.square().sum(), leaves)
    theirs = torch.autograd.grad(alone.square().sum(), leaves)
    torch.testing.assert_close(ours, theirs)


def test_the_token_that_is_read_is_the_first_of_all_tokens() -> None:
    model, images = model_of(small()), pictures()
    joint = model(images, TEXT)
    lengths = joint.inside.sum(1)
    assert lengths.tolist() == [4, 2, 5] and joint.grids == [(4, 2), (2, 6), (4, 4)]
    assert len(joint.tokens) == 11 + 3 + 8 + 12 + 16
    first = joint.words[lengths.cumsum(0) - lengths]
    torch.testing.assert_close(model.pooler(first).tanh(), model.read(images, TEXT))


def test_what_follows_the_end_of_a_text_is_not_read() -> None:
    model, images = model_of(small()), pictures()
    other = TEXT.clone()
    other[0, 4], other[1, 2:] = 9, 9
    assert torch.equal(model.read(images, other), model.read(images, TEXT))


def test_a_picture_and_a_text_both_count() -> None:
    model, images = model_of(small()), pictures()
    expected = model.read(images, TEXT)
    changed = TEXT.clone()
    changed[0, 1] = 8
    assert (model.read(images, changed) - expected).abs().amax(1).tolist()[0] > 1e-4
    turned = [images[0].flip(2), *images[1:]]
    moved = (model.read(turned, TEXT) - expected).abs().amax(1)
    assert moved[0] > 1e-5 and torch.equal(moved[1:], torch.zeros(2))


def test_several_texts_beside_one_picture_are_what_they_are_beside_copies_of_it() -> None:
    model, images = model_of(small(tasks=("matching",))), [picture.requires_grad_() for picture in pictures()]
    which, text = torch.tensor([0, 0, 2, 1, 2]), TEXT[[0, 1, 2, 2, 0]]
    shared, copied = model.match(images, text, which), model.match([images[i] for i in which], text)
    torch.testing.assert_close(shared, copied)
    weights = torch.arange(1.0, 6)
    ours = torch.autograd.grad(shared @ weights, images)
    torch.testing.assert_close(ours, torch.autograd.grad(copied @ weights, images))


def test_two_readings_of_the_same_pictures_share_their_patches() -> None:
    model, images, text = model_of(small()), pictures(), TEXT.roll(1, 0)
    seen = list[int]()
    model.image.patch_embed.register_forward_hook(lambda *_: seen.append(1))

    def gradients() -> list[Tensor]:
        model.zero_grad()
        (model.read(images, TEXT).sum() + model(images, text).tokens.square().sum()).backward()
        return [p.grad for name, p in model.named_parameters() if not name.startswith("heads.") and p.grad is not None]

    apart = gradients()
    assert len(seen) == 2 * len(images)
    with reading_once(model):
        torch.testing.assert_close(gradients(), apart)
        model.read([picture + 1 for picture in images], TEXT)
    assert len(seen) == 4 * len(images), "once for both, and again for other pictures"
    model.read(images, TEXT)
    assert len(seen) == 5 * len(images) and model.kept is None


def test_more_patches_than_wanted_are_drawn_in_training_and_keep_their_order() -> None:
    model = model_of(small(max_patches=5))
    x = torch.arange(16.0)[:, None].expand(200, 16, 24)
    assert model._sampled(x) is x
    model.train()
    torch.manual_seed(0)
    some = model._sampled(x)[:, :, 0].tolist()
    assert all(len(set(one)) == 5 and one == sorted(one) for one in some)
    assert len({place for one in some for place in one}) == 16
    assert model._sampled(x[:, :5]) is not x and torch.equal(model._sampled(x[:, :5]), x[:, :5])
    assert len(model(pictures(), TEXT).tokens) == 11 + 3 + 5 + 5 + 5


@pytest.mark.parametrize("change", [{"dropout": 0.3}, {"drop_path": 0.5}])
def test_two_draws_are_side_by_side(change: dict[str, float]) -> None:
    config = small(tasks=("words", "matching", "pair"))
    model = model_of(replace(config, image=replace(config.vit, **change))).train()
    images = pictures()
    torch.manual_seed(0)
    with two_draws(model):
        both, joint, pairs = model.read(images, TEXT), model(images, TEXT), model.compare(images, images[::-1], TEXT)
    one, two = both.chunk(2)
    assert one.shape == (3, 24) and (one - two).abs().max() > 1e-3
    assert len(joint.inside) == 6 and pairs.shape == (6, 2)
    plain = model_of(config).train()
    with two_draws(plain):
        assert len(plain.read(images, TEXT)) == 3, "without chance there is one draw"


def test_pairs_of_two_draws_stay_together() -> None:
    """With chance taken away again, both draws give what there is without drawing."""
    config = small(tasks=("pair",))
    model = model_of(replace(config, image=replace(config.vit, dropout=1e-7))).train()
    left, right = pictures(), pictures()[::-1]
    expected = model_of(config).compare(left, right, TEXT)
    with two_draws(model):
        found = model.compare(left, right, TEXT)
    torch.testing.assert_close(found, torch.cat([expected, expected]))


def test_published_size() -> None:
    """Millions of parameters, counted in the released weights too: without the words, and the words alone."""
    model = empty(sized(ViLTConfig, "B/32"))
    count = sum(p.numel() for name, p in model.named_parameters() if not name.startswith(("text.", "heads.")))
    words = sum(p.numel() for name, p in model.named_parameters() if name.startswith("text."))
    assert (round(count / 1e6, 1), round(words / 1e6, 1)) == (88.1, 23.5)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"tasks": ["words", "words"]}, "each only once"),
        ({"max_patches": 0}, "max_patches: 0 is below 1; the paper has 200"),
        ({"image": {"kind": "vit", "size": "S/16", "patch_dropout": 0.5}}, "max_patches; set patch_dropout to 0"),
        ({"image": {"kind": "mixer", "size": "S/16"}}, "image.kind: mixer: ViLT's Transformer is a vit"),
    ],
)
def test_configurations_that_cannot_be(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load(ModelConfig, {"kind": "vilt"} | change).build()


@pytest.mark.parametrize(
    ("images", "text", "complaint"),
    [
        (pictures()[:2], TEXT, "2 pictures and 3 texts: they are read in pairs"),
        ([], TEXT[:0], "0 pictures and 0 texts"),
        (pictures(), torch.ones(3, 7, dtype=torch.long), "text of 7 tokens: this model reads at most 6"),
        ([torch.zeros(3, 40, 64)] * 3, TEXT, "40 x 64 pixels: both sides must be multiples of patch_size 16"),
        ([torch.zeros(3, 0, 64)] * 3, TEXT, "at least one pixel"),
        ([torch.zeros(64, 64, 3)] * 3, TEXT, r"\[b 3 y x\] is expected"),
    ],
)
def test_what_cannot_be_read(images: list[Tensor], text: Tensor, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        model_of(small()).read(images, text)


def test_a_task_that_the_model_has_no_head_for() -> None:
    with pytest.raises(ValueError, match="no head for answers; it has words, matching"):
        model_of(small()).answer(pictures(), TEXT)


def test_a_match_is_scored_by_the_matching_head_where_there_is_no_rank() -> None:
    model, images = model_of(small()), pictures()
    torch.testing.assert_close(model.match(images, TEXT), model.heads["matching"](model.read(images, TEXT))[:, 1])


def test_dropout_reaches_a_tower_that_comes_later() -> None:
    waiting = ViLTConfig(dropout=0.2)
    assert waiting.image is None and waiting.dropout == 0.2
    config = replace(waiting, image=small().image)
    assert config.vit.dropout == 0.2 and config.dropout is None
    assert replace(config, image=small().image).vit.dropout == 0.0, "it has been given"
    assert small(dropout=0.1).vit.dropout == 0.1
    with pytest.raises(ValueError, match="dropout"):
        small(dropout=1.5)


def test_the_small_one_of_the_registry_is_built_with_all_heads() -> None:
    assert set(built(BY_KIND["vilt"]).heads) == set(get_args(JointTask))
