"""What every tower and every model must be able to do: a new file in `models/` is tested here by being there.

Where it has sizes that `SMALL` does not know, or computes what `VERBS` does not, the first two tests ask for them.
"""

import pickle
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pictura.config import load, to_dict
from pictura.data.bpe import TrainTokenizerConfig
from pictura.data.text import Tokenizer
from pictura.models.base import ImageTower, ImageTowerConfig, ModelConfig, TextConfig, TextTowerConfig
from pictura.models.pictures import PictureModelConfig
from pictura.models.vild import ViLDConfig
from pictura.models.vilt import ViLTConfig
from pictura.training.parts import compile_blocks, recompute
from pictura.training.precision import Masters
from pictura.weights.folder import empty, load_folder, save_folder
from tests.models.small import (
    ALL,
    BY_KIND,
    IMAGE,
    IMAGE_TOWERS,
    PICTURES,
    SMALL,
    TEXT_TOWERS,
    VERBS,
    WHOLES,
    built,
    calls,
    label,
    outputs,
    seen,
)

MOST = 5_000_000  # parameters of a small one
UNFELT = ("pool.k.bias",)  # changes nothing, so that its gradient is zero: see AttentionPool
DROPS = [
    pytest.param(config, field.name, id=f"{label(config)}-{field.name}")
    for config in (*IMAGE_TOWERS, *TEXT_TOWERS)
    for field in fields(config)
    if field.name in ("dropout", "drop_path", "patch_dropout")
]
each = pytest.mark.parametrize("config", ALL, ids=label)
each_tower = pytest.mark.parametrize("config", IMAGE_TOWERS, ids=label)
each_whole = pytest.mark.parametrize("config", WHOLES, ids=label)
each_with_pictures = pytest.mark.parametrize(
    "config", [c for c in WHOLES if isinstance(c, PictureModelConfig)], ids=label
)


def loss(model: nn.Module) -> Tensor:
    weights = torch.Generator().manual_seed(2)
    found = outputs(model).values()
    return torch.stack([(torch.randn(out.shape, generator=weights) * out).square().sum() for out in found]).sum()


def attempt(call: Callable[[Any], Any], given: Any) -> Any:
    """What comes of it, or what a user is told instead."""
    try:
        return call(given)
    except ValueError as error:
        return str(error)


def same(one: nn.Module, two: nn.Module) -> bool:
    """All tensors, buffers too, and all that is made of them, bit for bit."""
    for a, b in ((one.state_dict(), two.state_dict()), (outputs(one), outputs(two))):
        if list(a) != list(b) or not all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a):
            return False
    return True


@each
def test_it_is_small(config: Any) -> None:
    count = sum(p.numel() for p in empty(config).parameters())
    names = ", ".join(field.name for field in fields(config) if field.name not in SMALL)
    assert count <= MOST, f"{count} parameters are slow to test: give SMALL a size of {type(config).__name__} ({names})"


def width_of(config: Any, verb: str) -> int:
    if verb in (known := {"matching": 2, "rank": 1, "pair": 2, "patches": 3 * 256, "box": 4, "mask": 28 * 28}):
        return known[verb]
    if verb in (anchors := {"objectness": 1, "proposals": 4}):
        return anchors[verb] * 3 * sum(side**2 for side in (16, 8, 4, 2, 1))
    if verb == "names":
        return 1 + len(config.class_names)
    if verb in ("answers", "words", "next"):
        return len(config.answers) if verb == "answers" else int(config.text.vocab_size)
    width = {"image": "features", "text": "width", "classify": "classes"}.get(verb, "embed_dim")
    return int(getattr(config, width))


@each
@pytest.mark.parametrize("training", [False, True])
def test_shapes(config: Any, training: bool) -> None:
    found = outputs(built(config).train(training))
    assert found, f"{type(config).__name__} has none of {', '.join(VERBS)}: add what it does to VERBS"
    for verb, out in found.items():
        assert out.shape == (3, width_of(config, verb)), verb
        assert out.dtype == torch.float32 and out.isfinite().all(), verb
        assert (out[0] - out[1]).norm() > 1e-3 * out[0].norm(), f"{verb}: examples are told apart"


@each
def test_every_parameter_gets_a_gradient(config: Any) -> None:
    model = built(config).train()
    loss(model).backward()
    for name, parameter in model.named_parameters():
        if not name.startswith("logit_"):  # the objective's
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert parameter.grad.any() or name.endswith(UNFELT), name


@each
def test_recomputed_blocks_give_the_same(config: Any) -> None:
    """Gradients, and running statistics too."""
    plain, again = built(config).train(), built(config).train()
    recompute(again)
    for model in (plain, again):
        loss(model).backward()
    for (name, a), (_, b) in zip(plain.named_parameters(), again.named_parameters(), strict=True):
        assert (a.grad is None and b.grad is None) or torch.equal(a.grad, b.grad), name
    assert same(plain.eval(), again.eval())


@each
def test_the_seed_decides(config: Any) -> None:
    models = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        models.append(config.build().eval())
    assert same(models[0], models[1])
    assert not same(models[0], models[2])


@each
def test_every_tensor_is_initialised(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory begins as NaN here: what no rule fills would show."""
    given = torch.empty

    def full_of_nan(*sizes: Any, **options: Any) -> Tensor:
        out: Tensor = given(*sizes, **options)
        return out.fill_(torch.nan) if out.is_floating_point() else out

    monkeypatch.setattr(torch, "empty", full_of_nan)
    assert nn.Conv2d(3, 4, 2).weight.isfinite().all() and nn.Parameter(torch.empty(2)).isnan().all()
    for name, tensor in config.build().state_dict().items():
        assert tensor.isfinite().all(), name


@each
def test_each_example_is_seen_alone(config: Any) -> None:
    """What gradient caching and several processes rely on; and the same again, bit for bit."""
    model = built(config)
    for verb, (call, given) in calls(model).items():
        expected = call(given)
        assert torch.equal(call(given), expected), verb
        torch.testing.assert_close(torch.cat([call(row[None]) for row in given]), expected)
        torch.testing.assert_close(call(given.flip(0)), expected.flip(0))


@each_whole
def test_a_folder_keeps_it(config: Any, tmp_path: Path) -> None:
    model = built(config)
    words = tokenizer() if isinstance(getattr(config, "text", None), TextConfig) else None
    save_folder(tmp_path / "model", model, words)
    again, _ = load_folder(tmp_path / "model")
    assert again.config == config
    assert same(again.eval(), model)


@cache
def tokenizer() -> Tokenizer:
    return TrainTokenizerConfig(vocab_size=540, context_length=12).build(lambda: ["a red dog runs near the old house"])


@each
def test_its_configuration_can_be_written(config: Any) -> None:
    base = next(base for base in (ImageTowerConfig, TextTowerConfig, ModelConfig) if isinstance(config, base))
    assert load(base, to_dict(config)) == config


@each
def test_copies_stand_alone(config: Any) -> None:
    model = built(config)
    for copy in (deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(copy) is type(model) and same(copy, model)
        with torch.no_grad():
            for tensor in copy.state_dict().values():
                tensor.zero_()
        assert all(tensor.any() for tensor in model.state_dict().values())


@each
def test_bf16_is_near_float32(config: Any) -> None:
    """Within 5 % of the length of each verb's output: all of it in bf16, as a folder is loaded, and weights alone, as
    it is trained."""
    expected, trained = outputs(built(config)), built(config)
    Masters(trained, torch.bfloat16)
    for model in (built(config).bfloat16(), trained):
        for verb, out in outputs(model, torch.bfloat16).items():
            scores = verb in ("classify", "rank", "answers", "pair", "names", "objectness", "proposals", "next")
            assert out.dtype == (torch.float32 if scores else torch.bfloat16)
            assert (out.float() - expected[verb]).norm() < 0.05 * expected[verb].norm(), verb


@pytest.mark.parametrize("config", [c for c in ALL if not isinstance(c, ViLTConfig | ViLDConfig)], ids=label)
def test_compile_takes_it_whole(config: Any) -> None:
    """In one graph; the code that a compiler makes of the graph is not what is tested. Not what counts tokens or
    boxes."""
    model = built(config)
    torch.compiler.reset()
    compiled = torch.compile(lambda: outputs(model), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(), outputs(model))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch asks for it itself, where a block begins
@pytest.mark.parametrize("config", BY_KIND.values(), ids=label)
def test_compiled_it_trains_the_same(config: Any) -> None:
    """Outputs, gradients and running statistics, compiled as they are for training."""
    model, peer = built(config).train(), built(config).train()
    torch.compiler.reset()
    compile_blocks(model)
    torch.testing.assert_close(outputs(model), outputs(peer), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.state_dict(), peer.state_dict(), rtol=1e-4, atol=1e-4)
    for one in (model, peer):
        loss(one).backward()
    for (name, a), (_, b) in zip(model.named_parameters(), peer.named_parameters(), strict=True):
        if b.grad is not None:
            assert a.grad is not None and (a.grad - b.grad).norm() <= 1e-3 * b.grad.norm() + 1e-4, name


@pytest.mark.parametrize("sides", [(64, 96), (96, 32), (65, 64), (63, 97), (16, 16), (1, 1)])
@each_tower
def test_pictures_of_other_sides(config: Any, sides: tuple[int, int]) -> None:
    """Are taken, or what would be taken is said."""
    model, image = built(config), torch.randn(2, 3, *sides)
    out = attempt(model, image)
    if isinstance(out, str):
        before, given, after = out.partition(f"{sides[0]} x {sides[1]}")
        assert given and re.search(r"\d", before + after), f"{out}: which sides were given, and which would work?"
    else:
        assert out.shape == (2, config.features) and out.isfinite().all()
        torch.testing.assert_close(torch.cat([model(image[:1]), model(image[1:])]), out)


@each_tower
def test_at_another_size(config: Any) -> None:
    larger, model, image = config.at(2 * config.image_size), built(config), torch.randn(2, 3, 128, 128)
    state = model.state_dict()
    before = deepcopy(state)
    again = larger.build().eval()
    again.load_state_dict(larger.adapted(state, config))
    out = again(image)
    assert out.shape == (2, larger.features) == (2, config.features)
    assert all(torch.equal(state[name], before[name]) for name in before), "what was given is as it was"
    expected = attempt(model, image)
    if isinstance(expected, str):
        assert out.isfinite().all(), "there is nothing to compare with"
    else:
        torch.testing.assert_close(out, expected)


@each_tower
def test_at_its_own_size_it_is_the_same(config: Any) -> None:
    state = built(config).state_dict()
    found = config.at(config.image_size).adapted(state, config)
    assert config.at(config.image_size) == config
    assert list(found) == list(state) and all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("image_size", [65, 0])
@each_tower
def test_at_a_size_that_cannot_be(config: Any, image_size: int) -> None:
    other = attempt(config.at, image_size)
    if isinstance(other, str):
        assert re.match(r"image_size: .*\d", other)
    else:
        assert other.build().eval()(torch.randn(1, 3, image_size, image_size)).isfinite().all()


@each_tower
def test_stages(config: Any) -> None:
    """First to last, each once, tokens [b n d] or maps [b c y x]."""
    model, seen = built(config), list[nn.Module]()
    assert isinstance(model, ImageTower) and len(model.stages) > 0
    shapes: list[torch.Size] = []

    def look(stage: nn.Module, _: Any, out: Tensor) -> None:
        seen.append(stage)
        shapes.append(out.shape)

    for stage in model.stages:
        assert stage in list(model.modules())
        stage.register_forward_hook(look)
    model(IMAGE)
    assert len(seen) == len(model.stages) and all(a is b for a, b in zip(seen, model.stages, strict=True))
    assert {(shape[0], len(shape)) for shape in shapes} in ({(3, 3)}, {(3, 4)})


@each_with_pictures
def test_decoded_pictures_are_normalised(config: Any) -> None:
    """However they lie in memory."""
    model = built(config)
    mean, std = (torch.tensor(of).view(3, 1, 1) for of in (config.mean, config.std))
    expected = seen(model, (PICTURES.float() / 255 - mean) / std)
    for pictures in (PICTURES, PICTURES.to(memory_format=torch.channels_last)):
        torch.testing.assert_close(seen(model, pictures), expected)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (torch.zeros(0, 3, 64, 64), r"pictures of shape \[0, 3, 64, 64\]: at least one picture"),
        (torch.zeros(2, 3, 0, 64), r"pictures of shape \[2, 3, 0, 64\]: at least one picture of at least one pixel"),
        (torch.zeros(3, 64, 64), r"pictures of shape \[3, 64, 64\]: \[b 3 y x\] is expected"),
        (torch.zeros(2, 1, 64, 64), r"pictures of shape \[2, 1, 64, 64\]: \[b 3 y x\] is expected"),
        (torch.zeros(2, 3, 64, 64, dtype=torch.int64), r"pictures of int64: give uint8, .*, or floating point"),
    ],
)
@each_with_pictures
def test_what_are_no_pictures_is_refused(config: Any, given: Tensor, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        seen(built(config), given)


@pytest.mark.parametrize(("config", "drop"), DROPS)
def test_what_is_dropped_is_dropped_in_training_only(config: Any, drop: str) -> None:
    model, plain = replace(config, **{drop: 0.5}).build(), built(config)
    model.load_state_dict(plain.state_dict())
    assert same(model.eval(), plain)
    model.train()
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(torch.cat([*outputs(model).values()]))
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])
