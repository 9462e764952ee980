from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pictura.config import load
from pictura.data.bpe import TrainTokenizerConfig
from pictura.data.text import Tokenizer
from pictura.models.base import ModelConfig
from pictura.models.clip import CLIP
from pictura.weights.folder import load_folder, save_folder
from pictura.weights.interpolate import blend, interpolate
from tests.weights.classifier_peers import stirred

Make = Callable[..., CLIP]
RESNET = {"kind": "resnet", "block": "basic", "layers": [1, 1, 1, 1], "image_size": 32}


def states() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Batch norm of both, with statistics and counts of their own, after a linear layer."""
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        module(torch.randn(5 + seed, 3))
        if seed:
            module(torch.randn(5, 3))
        found.append(module.state_dict())
    return found[0], found[1]


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_every_number_lies_between(share: float) -> None:
    zero, tuned = states()
    found = interpolate(zero, tuned, share)
    assert list(found) == list(zero)
    for name, tensor in found.items():
        if name.endswith("num_batches_tracked"):
            assert tensor == 2
            continue
        assert tensor.dtype == torch.float32
        pairs = zip(zero[name].flatten().tolist(), tuned[name].flatten().tolist(), strict=True)
        expected = [(1 - share) * a + share * b for a, b in pairs]
        assert tensor.flatten().tolist() == pytest.approx(expected, rel=1e-6, abs=1e-7)
    assert not torch.equal(zero["1.running_var"], tuned["1.running_var"])


def test_the_ends_are_exact_and_nothing_shares_memory() -> None:
    zero, tuned = states()
    for share, end in ((0, zero), (0.0, zero), (1, tuned), (1.0, tuned)):
        found = interpolate(zero, tuned, share)
        assert all(torch.equal(found[name], end[name]) for name in zero)
        assert all(found[name].data_ptr() != of[name].data_ptr() for name in zero for of in (zero, tuned))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_sums_are_float32_or_better_and_answers_are_of_the_first_type(dtype: torch.dtype) -> None:
    zero, tuned = torch.full((2,), 1.0, dtype=dtype), torch.full((2,), 1.0 + 2**-9, dtype=torch.float32)
    found = interpolate({"a": zero}, {"a": tuned}, 0.3)["a"]
    assert found.dtype == dtype
    torch.testing.assert_close(found, (0.7 * zero.double() + 0.3 * tuned.double()).to(dtype), atol=1e-9, rtol=0)
    assert interpolate({"a": tuned}, {"a": zero}, 0.3)["a"].dtype == torch.float32


@pytest.mark.parametrize(
    ("zero", "tuned", "share", "said"),
    [
        ({}, {}, 1.5, "^share: 1.5 must be from 0"),
        ({}, {}, float("nan"), "^share: nan must be from 0"),
        ({"a": torch.ones(2), "b": torch.ones(2)}, {"a": torch.ones(2)}, 0.5, "^b: only the zero-shot model has it"),
        ({"a": torch.ones(2)}, {"c": torch.ones(2), "a": torch.ones(2)}, 0.5, "^c: only the tuned model has it"),
        ({"a": torch.ones(2, 3)}, {"a": torch.ones(3, 2)}, 0.5, r"^a: \[2, 3\] in the zero-shot model, \[3, 2\] in"),
        ({"a": torch.ones(1)}, {"a": torch.ones(1).long()}, 0.5, "^a: float32 in the zero-shot model, int64 in the"),
    ],
)
def test_what_does_not_go_together_is_named(
    zero: dict[str, Tensor], tuned: dict[str, Tensor], share: float, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        interpolate(zero, tuned, share)


@pytest.fixture
def folders(tmp_path: Path, make: Make, tokenizer: Tokenizer) -> tuple[Path, Path]:
    for seed, name in enumerate(("zero", "tuned")):
        save_folder(tmp_path / name, make(seed, logit_scale=2.0 + seed), tokenizer)
    return tmp_path / "zero", tmp_path / "tuned"


def test_folders_are_blended(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert blend(*folders, tmp_path / "half") == ()
    (zero, words), (tuned, _), (half, read) = (load_folder(path) for path in (*folders, tmp_path / "half"))
    for name, tensor in half.state_dict().items():
        torch.testing.assert_close(tensor, (zero.state_dict()[name] + tuned.state_dict()[name]) / 2)
    assert half.config == zero.config != tuned.config, "they differ in the temperature to begin with"
    between = [float(model.state_dict()["logit_scale"]) for model in (zero, half, tuned)]
    assert between[0] < between[1] < between[2], "the temperature is one of the numbers"
    assert words is not None and read is not None
    assert torch.equal(words(["a red dog"]), read(["a red dog"]))
    blend(*folders, tmp_path / "all", 1)
    whole = load_folder(tmp_path / "all")[0].state_dict()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in tuned.state_dict().items())


def test_a_blend_is_stored_as_the_first_is(folders: tuple[Path, Path], tmp_path: Path) -> None:
    model, tokenizer = load_folder(folders[0])
    save_folder(tmp_path / "small", model, tokenizer, dtype=torch.bfloat16)
    blend(tmp_path / "small", folders[1], tmp_path / "half", 0.5)
    kinds = {tensor.dtype for tensor in load_folder(tmp_path / "half")[0].state_dict().values() if tensor.dim()}
    assert kinds == {torch.bfloat16}


def test_running_statistics_come_with_a_note(tmp_path: Path) -> None:
    for seed, name in enumerate(("zero", "tuned")):
        config = load(ModelConfig, {"kind": "classifier", "image": RESNET, "classes": 2, "class_names": ["a", "b"]})
        save_folder(tmp_path / name, stirred(config.build(), seed), None)
    (note,) = blend(tmp_path / "zero", tmp_path / "tuned", tmp_path / "half")
    assert "running statistics" in note
    zero, tuned, half = (load_folder(tmp_path / name)[0].state_dict() for name in ("zero", "tuned", "half"))
    name = next(name for name in half if name.endswith("running_var"))
    torch.testing.assert_close(half[name], (zero[name] + tuned[name]) / 2)
    assert not torch.equal(zero[name], tuned[name])


def test_what_differs_between_two_models_is_named(
    folders: tuple[Path, Path], tmp_path: Path, make: Make, tokenizer: Tokenizer
) -> None:
    zero, tuned = folders
    save_folder(tmp_path / "squashed", make(1, resize="squash", mean=(0.5, 0.5, 0.5)), tokenizer)
    said = (
        r"squashed: is no tuned .*zero: mean: \[0.5, 0.5, 0.5\], and there \[0.48.*; resize: squash, and there shortest"
    )
    with pytest.raises(ValueError, match=said):
        blend(zero, tmp_path / "squashed", tmp_path / "half")
    save_folder(tmp_path / "biased", make(1, logit_bias=-3.0), tokenizer)
    with pytest.raises(ValueError, match=r"biased: is no tuned .*zero: logit_bias: only the tuned model has it"):
        blend(zero, tmp_path / "biased", tmp_path / "half")
    save_folder(tmp_path / "resnet", load(ModelConfig, {"kind": "classifier", "image": RESNET}).build(), None)
    with pytest.raises(ValueError, match=r"resnet: is no tuned .*: kind: classifier, and there clip; "):
        blend(zero, tmp_path / "resnet", tmp_path / "half")
    with pytest.raises(ValueError, match=r"^share: 2 must be"):
        blend(zero, tuned, tmp_path / "half", 2)
    assert not (tmp_path / "half").exists()
    with pytest.raises(ValueError, match="zero: is there already"):
        blend(zero, tuned, zero)
    with pytest.raises(ValueError, match="there is no such folder"):
        blend(tmp_path / "nowhere", tuned, tmp_path / "half")


def test_two_vocabularies_are_not_blended(tmp_path: Path, make: Make) -> None:
    small = make().config
    config = replace(small, text=replace(small.text, vocab_size=520))
    for name, caption in (("red", "a red dog"), ("same", "a red dog"), ("green", "some green cat")):
        learnt = TrainTokenizerConfig(vocab_size=520, context_length=12).build(lambda c=caption: [c] * 9)
        assert learnt.vocab_size > 514, "it has learnt something"
        save_folder(tmp_path / name, config.build(), learnt)
    blend(tmp_path / "red", tmp_path / "same", tmp_path / "half")
    with pytest.raises(ValueError, match=r"green: is no tuned .*red: the token '\S+' is (\d+|missing), and there "):
        blend(tmp_path / "red", tmp_path / "green", tmp_path / "other half")
    assert not (tmp_path / "other half").exists()
