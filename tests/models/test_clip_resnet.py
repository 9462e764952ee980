import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pictura.config import load, sized, to_dict
from pictura.layers.positions import resize_positions
from pictura.models.base import ImageTowerConfig
from pictura.models.clip_resnet import AttentionPool, Bottleneck, CLIPResNet, CLIPResNetConfig

TINY = CLIPResNetConfig(image_size=64, layers=(1, 2, 1, 2), width=16, heads=8)


def stirred(config: CLIPResNetConfig = TINY) -> CLIPResNet:
    """A model no tensor of which is zero or one throughout, statistics neither."""
    torch.manual_seed(0)
    model = config.build()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and tensor.dim() < 4:
                tensor.add_(torch.rand_like(tensor), alpha=0.3)
            if name.endswith("num_batches_tracked"):
                tensor.fill_(7)
    return model.eval()


def theirs(name: str) -> str:
    """Our name -> open_clip's."""
    name = re.sub(r"^pool\.([qkv])\.", r"attnpool.\1_proj.", name)
    return name.replace("pool.pos_embed", "attnpool.positional_embedding")


def peer_of(model: CLIPResNet, embed_dim: int = 24) -> ModifiedResNet:
    """open_clip's, with the weights of ours, and a last projection that changes nothing."""
    c = model.config
    peer = ModifiedResNet(c.layers, embed_dim, c.heads or c.width // 2, c.image_size, c.width)
    state = {theirs(name): tensor.clone() for name, tensor in model.state_dict().items()}
    state["attnpool.positional_embedding"].squeeze_(0)
    projection = {f"attnpool.c_proj.{name}": tensor for name, tensor in peer.attnpool.c_proj.state_dict().items()}
    peer.load_state_dict(state | projection)
    return peer.train(model.training)


@pytest.mark.parametrize("heads", [8, 2, None])
def test_against_open_clips(heads: int | None) -> None:
    model = stirred(replace(TINY, heads=heads))
    peer, image = peer_of(model), torch.randn(3, 3, 64, 64)
    expected = peer(image)
    assert expected.std() > 0.01
    largest = float(expected.detach().abs().max())
    torch.testing.assert_close(peer.attnpool.c_proj(model(image)), expected, rtol=1e-5, atol=1e-5 * largest)


def test_a_step_of_training_against_open_clips() -> None:
    """Batch norm by the batch; the same gradients, and the same statistics left behind. In float64, so that only what
    is wrong differs: the batch's statistics make much of what is rounded."""
    model = stirred().train()
    peer, image = peer_of(model).double(), torch.randn(4, 3, 64, 64).double()
    before = model.eval().double()(image)
    model.train()
    found, expected = model(image), peer(image)
    assert not torch.allclose(found, before, atol=1e-2)
    projected, weights = peer.attnpool.c_proj(found), torch.randn(4, 24)
    torch.testing.assert_close(projected, expected, rtol=1e-9, atol=1e-9)
    (expected * weights).sum().backward()
    (projected * weights).sum().backward(inputs=list(model.parameters()))
    parameters = dict(peer.named_parameters())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        other = parameters[theirs(name)].grad
        torch.testing.assert_close(parameter.grad.view_as(other), other, rtol=1e-7, atol=1e-9, msg=name)
    buffers = dict(peer.named_buffers())
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, buffers[theirs(name)], msg=name)
    assert int(model.layer4[1].bn3.num_batches_tracked) == 8


@pytest.mark.parametrize("size", CLIPResNetConfig.sizes)
def test_published_sizes(size: str) -> None:
    config = sized(CLIPResNetConfig, size)
    assert config.heads == config.features // 64
    with torch.device("meta"):
        model = config.build()
        peer = ModifiedResNet(config.layers, 512, config.features // 64, config.image_size, config.width)
    expected = {name: t.shape for name, t in peer.state_dict().items() if "c_proj" not in name}
    found = {theirs(name): t.shape for name, t in model.state_dict().items()}
    found["attnpool.positional_embedding"] = found["attnpool.positional_embedding"][1:]
    assert found == expected
    assert model.pool.heads == peer.attnpool.num_heads
    assert load(ImageTowerConfig, to_dict(config)) == config


def pooled(pool: AttentionPool, x: Tensor) -> Tensor:
    """As it is written in the paper: a key and a value for each token, then heads one after the other."""
    _, d, rows, columns = x.shape
    tokens = x.flatten(2).mT
    tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1)
    tokens = tokens + resize_positions(pool.pos_embed, (pool.grid, pool.grid), (rows, columns))
    q, k, v = pool.q(tokens[:, :1]), pool.k(tokens), pool.v(tokens)
    e = d // pool.heads
    heads = []
    for h in range(pool.heads):
        part = slice(h * e, (h + 1) * e)
        scores = q[..., part] @ k[..., part].mT / e**0.5
        heads.append(scores.softmax(2) @ v[..., part])
    return torch.cat(heads, 2).squeeze(1)


@pytest.mark.parametrize("shape", [(2, 2), (3, 5), (1, 1)])
def test_attention_without_keys_and_values(shape: tuple[int, int]) -> None:
    pool, x = stirred().pool, 2 * torch.randn(2, 512, *shape)
    expected = pooled(pool, x)
    torch.testing.assert_close(pool(x), expected)
    for memory in (x.to(memory_format=torch.channels_last), x.mT.contiguous().mT):
        torch.testing.assert_close(pool(memory), expected)


def test_the_bias_of_the_keys_changes_nothing() -> None:
    pool, x = stirred().pool, torch.randn(2, 512, 2, 2)
    before = pool(x)
    with torch.no_grad():
        pool.k.bias.add_(torch.randn(512))
    torch.testing.assert_close(pool(x), before)


@pytest.mark.parametrize("size", CLIPResNetConfig.sizes)
def test_attention_is_far_less_arithmetic_than_open_clips(size: str) -> None:
    config = sized(CLIPResNetConfig, size)
    d, heads, grid = config.features, config.features // 64, config.image_size // 32
    with torch.device("meta"):
        x, ours, peer = torch.empty(1, d, grid, grid), AttentionPool(d, heads, grid), AttentionPool2d(grid, d, heads, d)
    counts = []
    for pool in (ours, peer):
        with FlopCounterMode(display=False) as counter:
            pool(x)
        counts.append(counter.get_total_flops())
    tokens = grid**2 + 1
    assert counts[0] == 2 * (3 * d * d + 2 * heads * tokens * d)
    # theirs ends in a projection, which is one of ours for the whole model
    assert counts[1] >= 35 * (counts[0] + 2 * d * d)


def test_larger_pictures() -> None:
    """Positions are resized on the way; a model built for that size, with its weights adapted, gives the same."""
    model, image = stirred(), torch.randn(2, 3, 96, 96)
    config = TINY.at(96)
    larger = config.build().eval()
    larger.load_state_dict(config.adapted(model.state_dict(), TINY))
    assert larger.pool.pos_embed.shape == (1, 10, 512)
    torch.testing.assert_close(model(image), larger(image))
    assert model(torch.randn(2, 3, 32, 160)).shape == (2, 512)
    assert not torch.allclose(larger(image), larger(image.flip(3)), atol=1e-3)
    with pytest.raises(ValueError, match=r"^picture of 64 x 31 pixels: a ResNet needs 32 or more, both ways$"):
        model(torch.zeros(1, 3, 64, 31))


def test_stages_are_maps() -> None:
    model, shapes = stirred(), []
    for stage in model.stages:
        stage.register_forward_hook(lambda module, given, out: shapes.append(tuple(out.shape)))
    model(torch.randn(1, 3, 64, 96))
    assert shapes == [(1, 64, 16, 24), (1, 128, 8, 12), (1, 256, 4, 6), (1, 512, 2, 3)]


def test_every_parameter_is_initialised(monkeypatch: pytest.MonkeyPatch) -> None:
    given = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: given(*a, **k).fill_(torch.nan))
    for name, tensor in TINY.build().state_dict().items():
        assert tensor.isfinite().all(), name


def test_fresh_weights() -> None:
    torch.manual_seed(0)
    model = TINY.build()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(5)
        model.reset_parameters()
    x = torch.rand(2, 128, 4, 4)
    for module in model.modules():
        if isinstance(module, Bottleneck):
            assert not module.bn3.weight.any()
            assert (module.bn2.weight == 1).all()
        if isinstance(module, nn.BatchNorm2d):
            assert int(module.num_batches_tracked) == 0
    torch.testing.assert_close(model.layer2[1](x), x, msg="a block begins as its shortcut")
    for weight in (model.pool.q.weight, model.pool.k.weight, model.pool.v.weight, model.pool.pos_embed):
        assert float(weight.detach().std()) == pytest.approx(512**-0.5, rel=0.06)
    bound = model.layer4[1].conv2.weight[0].numel() ** -0.5
    assert float(model.layer4[1].conv2.weight.detach().abs().max()) == pytest.approx(bound, rel=0.01)


def test_every_parameter_gets_a_gradient() -> None:
    model = stirred().train()
    model(torch.randn(4, 3, 64, 64)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0 or name == "pool.k.bias", name


def test_given_pictures_are_not_changed() -> None:
    """Nor what a stage is given: activations are written over only where nobody else reads them."""
    model, image = stirred(), torch.randn(2, 3, 64, 64)
    kept, given = image.clone(), F.relu(torch.randn(2, 64, 16, 16))
    before = given.clone()
    model(image)
    model.layer2(given)
    assert torch.equal(image, kept)
    assert torch.equal(given, before)


NAMES = """
bn{}.bias [n]
bn{}.num_batches_tracked []
bn{}.running_mean [n]
bn{}.running_var [n]
bn{}.weight [n]
conv{}.weight [n, n, 3, 3]
layer{}.bn{}.bias [n]
layer{}.bn{}.num_batches_tracked []
layer{}.bn{}.running_mean [n]
layer{}.bn{}.running_var [n]
layer{}.bn{}.weight [n]
layer{}.conv{}.weight [n, n, 1, 1]
layer{}.conv{}.weight [n, n, 3, 3]
layer{}.downsample.0.weight [n, n, 1, 1]
layer{}.downsample.1.bias [n]
layer{}.downsample.1.num_batches_tracked []
layer{}.downsample.1.running_mean [n]
layer{}.downsample.1.running_var [n]
layer{}.downsample.1.weight [n]
pool.k.bias [n]
pool.k.weight [n, n]
pool.pos_embed [1, 5, n]
pool.q.bias [n]
pool.q.weight [n, n]
pool.v.bias [n]
pool.v.weight [n, n]
"""


def test_names_are_an_interface() -> None:
    """Model folders hold these names: renaming one makes every folder unreadable. n is any number of channels."""
    found = set()
    for name, tensor in TINY.build().state_dict().items():
        name = re.sub(r"layer\d\.\d", "layer{}", re.sub(r"(conv|bn)\d", r"\1{}", name))
        shape = ["n" if n > 5 or (n == 3 and at == 1) else str(n) for at, n in enumerate(tensor.shape)]
        found.add(f"{name} [{', '.join(shape)}]")
    assert "\n".join(sorted(found)) == NAMES.strip()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"image_size": 225}, "^image_size: 225 is no multiple of the stride 32; try 224$"),
        ({"image_size": 16}, "^image_size: 16 is no multiple of the stride 32; try 32$"),
        ({"layers": [3, 0, 6, 3]}, r"^layers: \(3, 0, 6, 3\) must be 4 numbers above zero, the blocks of each stage$"),
        ({"layers": [3, 4, 6]}, "^layers: "),
        ({"width": 0}, "^width: 0 must be above zero$"),
        ({"width": 63}, "^width: 63 is odd, and the stem begins with half of it; try 64$"),
        ({"heads": 7}, "^heads: 7 does not divide width 2048; try 4$"),
        ({"size": "RN500"}, "RN50"),
    ],
)
def test_mistakes_are_named(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load(ImageTowerConfig, {"kind": "clip_resnet"} | change)
