import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pictura.config import load
from pictura.models.clip import CLIPConfig
from pictura.models.text import TextTransformerConfig
from pictura.models.vit import ViTConfig
from pictura.training import optimizers
from pictura.training.optimizers import (
    AdamWConfig,
    MuonConfig,
    OptimizerConfig,
    SGDConfig,
    Together,
    decay_groups,
    layer_rates,
    owned,
    pieces,
)

CONFIGS = [AdamWConfig(lr=0.1), MuonConfig(lr=0.1)]


def clip(depth: int = 1) -> nn.Module:
    image = ViTConfig(image_size=8, patch_size=4, width=16, depth=depth, heads=2, pre_norm=True)
    text = TextTransformerConfig(vocab_size=20, context_length=6, width=16, depth=1, heads=2)
    return CLIPConfig(image=image, text=text, embed_dim=8, logit_bias=-10.0).build()


def named(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "image.blocks.0.proj.weight": (6, 4),
        "image.blocks.0.proj.bias": (6,),
        "head.weight": (4, 3),
        "scale": (),
    }
    return {n: torch.randn(shape, generator=generator).requires_grad_() for n, shape in shapes.items()}


def test_what_decays_is_what_open_clip_lets_decay() -> None:
    """open_clip's `training/main.py`: no decay where ndim < 2, or "bn", "ln", "bias" or "logit_scale" is in the name.
    Of the same parameters under its names, the class token, [d] there and [1 1 d] here, does not decay either."""
    parameters = dict(clip().named_parameters())
    decay, rest = (group["params"] for group in decay_groups(((n, p, 0.1) for n, p in parameters.items()), 0.2))
    names = {id(p): name for name, p in parameters.items()}
    assert isinstance(decay, list) and isinstance(rest, list)
    assert {names[id(p)] for p in decay} == {
        *("image.patch_embed.proj.weight", "image.pos_embed", "text.token_embedding.weight", "text.pos_embed"),
        *("image_projection.weight", "text_projection.weight"),
        *(
            f"{tower}.blocks.0.{part}.weight"
            for tower in ("image", "text")
            for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
        ),
    }
    assert {"image.cls_token", "logit_scale", "logit_bias", "text.norm.weight"} <= {names[id(p)] for p in rest}
    assert len(decay) + len(rest) == len(parameters)


@pytest.mark.parametrize("piece", [1, 5, 2**20])
def test_adamw_is_torch_s(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizers, "PIECE", piece)
    ours, theirs = named(), named()
    optimizer = AdamWConfig(lr=0.1, weight_decay=0.3, betas=(0.8, 0.9), eps=1e-4).build(ours.items())
    decayed = [theirs["image.blocks.0.proj.weight"], theirs["head.weight"]]
    rest = [theirs["image.blocks.0.proj.bias"], theirs["scale"]]
    groups = [{"params": decayed, "weight_decay": 0.3}, {"params": rest, "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.1, betas=(0.8, 0.9), eps=1e-4)
    for step in range(5):
        for a, b, g in zip(ours.values(), theirs.values(), named(step + 1).values(), strict=True):
            a.grad, b.grad = g.detach().clone(), g.detach().clone()
        optimizer.step()
        reference.step()
    torch.testing.assert_close(ours, theirs)


def test_muon_turns_the_matrices_of_blocks_only() -> None:
    """Its update has the singular values of a rotation, scaled; Newton and Schulz bring them to between 0.7 and 1.2."""
    own = named()
    before = {name: p.detach().clone() for name, p in own.items()}
    optimizer = MuonConfig(lr=0.1, weight_decay=0.0, momentum=0.0).build(own.items())
    for p in own.values():
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
    optimizer.step()
    step = {name: before[name] - p.detach() for name, p in own.items()}
    values = torch.linalg.svdvals(step["image.blocks.0.proj.weight"]) / (0.1 * 0.2 * 6**0.5)
    assert float(values.min()) > 0.6 and float(values.max()) < 1.3
    torch.testing.assert_close(step["head.weight"].abs(), torch.full((4, 3), 0.1), rtol=1e-3, atol=1e-5)  # Adam's first


def test_muon_without_blocks() -> None:
    with pytest.raises(ValueError, match="optimizer muon: the model has no matrices in Transformer blocks; use adamw"):
        MuonConfig().build([("head.weight", torch.zeros(2, 2, requires_grad=True))])


@pytest.mark.parametrize("config", CONFIGS)
def test_the_schedule_sets_every_rate_to_its_share(config: AdamWConfig) -> None:
    optimizer = config.build(named().items())
    for factor in (0.5, 0.25, 1.0):
        optimizer.schedule(factor)
        assert {group["lr"] for group in optimizer.param_groups} == {0.1 * factor}


@pytest.mark.parametrize("config", CONFIGS)
def test_what_it_remembers_of_each_parameter(config: AdamWConfig) -> None:
    own = named()
    optimizer = config.build(own.items())
    assert all(optimizer.moments(p) == {} for p in own.values())
    for p in own.values():
        p.grad = torch.ones_like(p)
    optimizer.step()
    optimizer.zero_grad()
    assert all(p.grad is None for p in own.values())
    for name, p in own.items():
        held = optimizer.moments(p)
        assert held, name
        assert all(value.shape in (p.shape, ()) for value in held.values())
        next(iter(held.values())).zero_()  # they are the optimiser's own, so that a checkpoint can fill them
        assert all(float(next(iter(optimizer.moments(p).values())).abs().sum()) == 0 for _ in range(1))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_rate_that_is_no_rate(kind: str) -> None:
    with pytest.raises(ValueError, match=r"^lr: -1\.0 must be above zero$"):
        load(OptimizerConfig, {"kind": kind, "lr": -1})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"lr": float("inf")}, "^lr: inf must be above zero$"),
        ({"weight_decay": -0.1}, "^weight_decay: -0.1 must be at least 0$"),
        ({"betas": [0.9, 1.0]}, r"^betas: \[0.9, 1.0\] must both be at least 0 and below 1$"),
        ({"betas": [-0.1, 0.9]}, r"^betas: \[-0.1, 0.9\] must both be"),
        ({"eps": 0}, "^eps: 0.0 must be above zero$"),
        ({"momentum": 1.0}, "^momentum: 1.0 must be at least 0 and below 1$"),
    ],
)
def test_mistakes_are_named(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load(OptimizerConfig, {"kind": "muon"} | change)


def test_parts_step_together() -> None:
    a, b = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    both = Together(torch.optim.SGD([a], lr=1.0), torch.optim.SGD([b], lr=2.0))
    both.schedule(0.5)
    a.grad = b.grad = torch.ones(1)
    both.step()
    assert (a.item(), b.item()) == (0.5, 0.0)


@settings(deadline=None)
@given(sizes=st.lists(st.integers(0, 9), max_size=12), size=st.integers(1, 20))
def test_pieces_keep_the_order_and_close_when_they_are_full(sizes: list[int], size: int) -> None:
    parameters = [(str(i), torch.zeros(n), 0.1) for i, n in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimizers, "PIECE", size)
        cut = list(pieces(parameters))
    assert [one[0] for piece in cut for one in piece] == [one[0] for one in parameters]
    for i, piece in enumerate(cut):
        held = [p.numel() for _, p, _ in piece]
        assert sum(held[:-1]) < size and (sum(held) >= size or i == len(cut) - 1)


@pytest.mark.parametrize("config", CONFIGS)
def test_every_parameter_is_owned_once(config: AdamWConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizers, "PIECE", 20)
    own = named()
    parts = config.build(own.items()).parts
    assert len(parts) > 1
    assert sorted(id(p) for part in parts for p in owned(part)) == sorted(id(p) for p in own.values())


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_torch_s(nesterov: bool) -> None:
    ours, theirs = named(), named()
    optimizer = SGDConfig(lr=0.1, weight_decay=0.3, nesterov=nesterov).build(ours.items())
    decayed = [p for p in theirs.values() if p.dim() > 1]
    rest = [p for p in theirs.values() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.3}, {"params": rest, "weight_decay": 0.0}]
    reference = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=nesterov)
    for step in range(3):
        for parameters in (ours, theirs):
            for name, parameter in parameters.items():
                parameter.grad = torch.sin(parameter.detach() * (step + 1) + len(name))
        optimizer.step()
        reference.step()
    for name, parameter in ours.items():
        torch.testing.assert_close(parameter, theirs[name])


def test_lower_layers_have_smaller_rates() -> None:
    rates = layer_rates([name for name, _ in clip(depth=3).named_parameters()], 0.5)
    assert rates["image.patch_embed.proj.weight"] == rates["image.cls_token"] == rates["image.pos_embed"] == 0.5**4
    assert [rates[f"image.blocks.{i}.attn.qkv.weight"] for i in range(3)] == [0.5**3, 0.5**2, 0.5]
    assert rates["text.blocks.0.norm1.bias"] == 0.5, "each tower counts its own layers"
    above = ("image.norm.weight", "text.norm.bias", "image_projection.weight", "logit_scale")
    assert {rates[name] for name in above} == {1.0}


def test_a_stem_s_own_blocks_are_no_layers() -> None:
    names = [
        "m.patch_embed.backbone.stages.0.blocks.2.conv1.weight",
        "m.blocks.0.norm1.weight",
        "m.blocks.1.norm1.bias",
    ]
    assert layer_rates(names, 0.5) == dict(zip(names, (0.125, 0.25, 0.5), strict=True))


def test_stages_of_a_resnet_are_layers() -> None:
    names = [
        "m.conv1.weight",
        "m.bn1.bias",
        "m.layer1.0.conv1.weight",
        "m.layer2.1.bn2.weight",
        "m.pool.q.weight",
        "head.bias",
    ]
    assert list(layer_rates(names, 0.5).values()) == [0.125, 0.125, 0.25, 0.5, 1.0, 1.0]


@pytest.mark.parametrize("config", [SGDConfig, AdamWConfig, MuonConfig])
def test_rates_reach_the_optimiser_and_follow_the_schedule(config: type[OptimizerConfig]) -> None:
    own = named()
    optimizer = config(lr=0.2, layer_decay=0.5).build(own.items())
    optimizer.schedule(0.1)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(own["image.blocks.0.proj.weight"])] == pytest.approx(0.2 * 0.5 * 0.1)
    assert rates[id(own["head.weight"])] == pytest.approx(0.2 * 0.1)


@pytest.mark.parametrize("wrong", [0.0, 1.5, -1.0])
def test_layer_decay_is_a_share(wrong: float) -> None:
    with pytest.raises(ValueError, match="layer_decay"):
        SGDConfig(layer_decay=wrong)
