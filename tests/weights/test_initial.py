"""A known model as the beginning of another."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from pictura.models.captioner import CaptionerConfig, DecoderConfig
from pictura.models.classifier import ClassifierConfig
from pictura.models.clip import CLIP
from pictura.models.mixer import MixerConfig
from pictura.models.vilt import ViLTConfig
from pictura.models.vilt_parts import WordsConfig
from pictura.models.vit import ViTConfig
from pictura.weights.folder import unfit
from pictura.weights.initial import inherited, of_size, started, with_classes

TOWER = ViTConfig(image_size=16, patch_size=8, width=24, depth=1, heads=3)


def test_a_new_head_on_the_tower_of_a_clip(make: Callable[..., CLIP]) -> None:
    clip = make()
    config = started(clip.config, ClassifierConfig(classes=3), 48)
    assert isinstance(config, ClassifierConfig)
    assert config.tower == replace(clip.config.tower, image_size=48)
    assert (config.mean, config.std, config.classes) == (clip.config.mean, clip.config.std, 3)
    fresh = config.build()
    weights = inherited(clip, config, fresh)
    assert weights.keys() == fresh.state_dict().keys()
    assert weights["image.pos_embed"].shape == (1, 37, 64)
    assert torch.equal(weights["image.blocks.1.mlp.fc1.weight"], clip.state_dict()["image.blocks.1.mlp.fc1.weight"])
    assert not weights["head.weight"].any()


def test_a_captioner_begins_with_the_tower_and_the_space_of_a_clip(make: Callable[..., CLIP]) -> None:
    clip = make()
    words = DecoderConfig(vocab_size=300, width=24, depth=1, heads=3)
    config = started(clip.config, CaptionerConfig(text=words), clip.config.tower.image_size)
    assert isinstance(config, CaptionerConfig) and config.text == words
    model = config.build().eval()
    model.load_state_dict(inherited(clip, config, model))
    pictures = torch.randint(0, 256, (2, 3, *(clip.config.tower.image_size,) * 2), dtype=torch.uint8)
    assert torch.equal(model.encode_image(pictures), clip.eval().encode_image(pictures))


def test_the_same_classes_keep_the_head_and_others_get_a_new_one() -> None:
    names = ("cat", "dog")
    old = ClassifierConfig(image=TOWER, classes=2, class_names=names).build()
    torch.nn.init.normal_(old.head.weight)  # type: ignore[union-attr]
    same = with_classes(started(old.config, None, 16), names)
    assert torch.equal(inherited(old, same, same.build())["head.weight"], old.state_dict()["head.weight"])
    other = with_classes(started(old.config, ClassifierConfig(), 16), ("cat", "dog", "cow"))
    assert not inherited(old, other, other.build())["head.weight"].any()
    with pytest.raises(ValueError, match=r"2 classes \(cat, dog\), but the data has 3 .*set model="):
        with_classes(started(old.config, None, 16), ("cat", "dog", "cow"))


def test_the_layer_below_the_head_goes_with_it() -> None:
    old = ClassifierConfig(image=TOWER, classes=2, pre_logits=8).build()
    new = started(old.config, ClassifierConfig(classes=2), 16)
    weights = inherited(old, new, new.build())
    assert "pre_logits.fc.weight" not in weights and weights["head.weight"].shape == (2, 24)


def test_bare_numbers_as_labels_need_to_be_told_how_many_there_are() -> None:
    with pytest.raises(ValueError, match=r"model\.classes: the data has bare numbers"):
        with_classes(ClassifierConfig(image=TOWER), ())
    assert with_classes(ClassifierConfig(image=TOWER, classes=5), ()) == ClassifierConfig(image=TOWER, classes=5)
    with pytest.raises(ValueError, match=r"model\.classes: 1, but the data has 2"):
        with_classes(ClassifierConfig(image=TOWER, classes=1), ("a", "b"))


def test_a_label_beyond_the_classes_is_found_before_training() -> None:
    with pytest.raises(ValueError, match=r"model\.classes: 5, but the data has labels up to 7; set it to 8"):
        with_classes(ClassifierConfig(image=TOWER, classes=5), (), 8)
    with pytest.raises(ValueError, match=r"bare numbers as labels, .*; set it to 8 or more"):
        with_classes(ClassifierConfig(image=TOWER), (), 8)
    assert with_classes(ClassifierConfig(image=TOWER, classes=9), (), 8).classes == 9  # type: ignore[attr-defined]


def test_a_mixer_of_twice_the_size_treats_each_quarter_as_it_treated_a_picture() -> None:
    torch.manual_seed(0)
    small = MixerConfig(image_size=16, patch_size=4, width=12, depth=2, tokens=6, channels=20)
    old = ClassifierConfig(image=small).build().eval()
    for parameter in old.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    config = of_size(old.config, 32)
    assert config.tower.tokens == 24  # type: ignore[attr-defined]
    new = config.build().eval()
    new.load_state_dict(inherited(old, config, new))
    quarters = torch.randn(4, 3, 16, 16)
    rows = [torch.cat([quarters[i], quarters[i + 1]], 2) for i in (0, 2)]
    found = new.encode_image(torch.cat(rows, 1)[None])
    torch.testing.assert_close(found[0], old.encode_image(quarters).mean(0), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"view\.image_size: 24 .*grows to its multiples only, such as 32 or 48"):
        of_size(old.config, 24)


VILT = ViLTConfig(image=replace(TOWER, width=24, heads=3), text=WordsConfig(vocab_size=200, end_token=3, mask_token=4))


def test_a_vilt_begins_with_the_words_of_another() -> None:
    config = started(VILT, ViLTConfig(tasks=("answers",)), 16)
    assert isinstance(config, ViLTConfig)
    assert (config.text, config.image, config.tasks) == (VILT.text, VILT.image, ("answers",))
    assert started(VILT, ViLTConfig(text=VILT.text), 16) == VILT, "the same words, given"


def test_an_epsilon_of_the_words_has_no_weights_and_is_kept() -> None:
    config = started(VILT, ViLTConfig(text=WordsConfig(eps=1e-6)), 16)
    assert isinstance(config, ViLTConfig)
    assert config.text == replace(VILT.text, eps=1e-6)
    old = replace(VILT, text=replace(VILT.text, eps=1e-5))
    assert started(old, ViLTConfig(), 16) == old, "none given"


@pytest.mark.parametrize(
    ("key", "kept"), [("vocab_size", 200), ("context_length", 40), ("end_token", 3), ("mask_token", 4)]
)
def test_other_words_than_there_are_weights_for_are_refused(key: str, kept: int) -> None:
    wanted = ViLTConfig(text=WordsConfig(**{key: 77}))
    with pytest.raises(
        ValueError, match=rf"^model\.text\.{key}: 77, but the `initial` model's is {kept}; leave it out"
    ):
        started(VILT, wanted, 16)


def test_a_longest_side_is_begun_with_unless_another_is_given() -> None:
    old = replace(VILT, longest=40)
    assert [started(old, ViLTConfig(longest=given), 16).longest for given in (None, 24)] == [40, 24]  # type: ignore[attr-defined]
    assert started(old, ViLTConfig(), 32).longest is None, "of pictures of another size it is not known"  # type: ignore[attr-defined]


def test_a_tower_of_another_kind_or_of_a_size_that_cannot_be_is_no_crash() -> None:
    """Whoever loads the weights then says what does not fit."""
    mixer = ClassifierConfig(image=MixerConfig(image_size=16, patch_size=4, width=24, depth=1, tokens=6), classes=2)
    vit = ClassifierConfig(image=replace(TOWER, image_size=32), classes=2)
    for old, new in ((mixer, vit), (vit, mixer)):
        fresh = new.build()
        assert unfit(inherited(old.build(), new, fresh), fresh.state_dict()).startswith("missing: image.")
    for size in (8, 24):
        other = replace(mixer, image=replace(mixer.tower, image_size=size))
        with pytest.raises(ValueError, match=r"^model\.image\.image_size: a Mixer of 16 grows to its multiples only"):
            inherited(mixer.build(), other, other.build())
