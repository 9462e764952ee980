from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pictura.config import load
from pictura.layers.once import reading_once
from pictura.layers.stems import ConvStemConfig
from pictura.models.pictures import normalise
from pictura.models.vilt import ViLT, ViLTConfig
from pictura.models.vit import ViTConfig
from pictura.objectives.base import Objective, ObjectiveConfig, Task
from pictura.objectives.masked_patches import MaskedPatchesConfig, colours, hide, measured
from pictura.weights.initial import inherited
from tests.objectives.test_masked_words import batch, model_of

SHARE = 0.4  # of two, four or six patches
VIT = ViTConfig(image_size=32, patch_size=16, width=24, depth=2, heads=3)
SHAPES: dict[str, dict[str, Any]] = {"class": {}, "average": {"pool": "average"}, "norm": {"pre_norm": True}}


def predicting(dropout: float = 0.0, **image: Any) -> ViLT:
    return model_of(tasks=("words", "patches"), image=replace(VIT, dropout=dropout, **image))


def objective(**options: Any) -> Objective:
    return load(ObjectiveConfig, {"kind": "masked_patches", "share": SHARE} | options).build()


def hidden_in(given: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    return hide([one[0].numel() // 16**2 for one in given["image"]], given["seed"], SHARE)


def seen_alone(model: ViLT, picture: Tensor, text: Tensor, masked: Tensor) -> Tensor:
    """[3 y x], [t] -> [n d], the patches of the last layer: one after the other made, nothing packed."""
    vit, patch = model.image, 16
    text = text[: int(text.eq(3).nonzero()[0]) + 1]
    pixels = normalise(picture[None], model.config.mean, model.config.std)
    y, x = picture.shape[1] // patch, picture.shape[2] // patch
    extra = int(vit.cls_token is not None)
    table = vit.pos_embed[0, extra:].T.reshape(1, -1, 2, 2)
    table = F.interpolate(table, (y, x), mode="bilinear", align_corners=True)[0]
    tokens = [] if vit.cls_token is None else [vit.cls_token[0, 0] + vit.pos_embed[0, 0]]
    for i in range(y):
        for j in range(x):
            square = pixels[:, :, patch * i : patch * (i + 1), patch * j : patch * (j + 1)]
            token = model.heads["patches"].mask_token if masked[i * x + j] else vit.patch_embed(square)[0, 0]
            tokens.append(token + table[:, i, j])
    words = model.text(text[None], torch.ones(1, len(text), dtype=torch.bool)) + model.type_embed[0]
    joint = torch.cat([words, vit.norm_pre(torch.stack(tokens) + model.type_embed[1])])[None]
    for block in vit.blocks:
        joint = block(joint)
    return vit.norm(joint)[0, len(words) + extra :]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_loss_is_the_mean_over_hidden_patches(shape: str) -> None:
    """And all gradients, against a loop over pictures and their patches."""
    model, given = predicting(**SHAPES[shape]).eval(), batch()
    task = Task(model, {"p": objective()}, {"p": 1.0}).eval()
    outcome = task(given)
    losses, hits, errors = list[Tensor](), list[float](), list[float]()
    for picture, text, asked, masked in zip(given["image"], given["text"], *hidden_in(given), strict=True):
        tokens = seen_alone(model, picture, text, masked)
        for n in asked.nonzero()[:, 0].tolist():
            y, x = divmod(n, picture.shape[2] // 16)
            square = picture[:, 16 * y : 16 * (y + 1), 16 * x : 16 * (x + 1)].double()
            scores = model.heads["patches"](tokens[n : n + 1])[0]
            for k in range(3):
                colour = round(float(square[k].mean()))
                losses.append(-scores[k].log_softmax(0)[colour])
                hits.append(float(scores[k].argmax() == colour))
                errors.append(abs((scores[k].softmax(0) @ torch.arange(256.0)).item() - colour))
    right = torch.stack(losses).mean()
    torch.testing.assert_close(outcome.loss, right)
    assert float(outcome.metrics["p/hits"]) == pytest.approx(sum(hits) / len(hits))
    assert float(outcome.metrics["p/error"]) == pytest.approx(sum(errors) / len(errors), rel=1e-4)
    leaves = {n: p for n, p in model.named_parameters() if not n.startswith(("heads.words", "pooler"))}
    ours = torch.autograd.grad(outcome.loss, list(leaves.values()))
    theirs = torch.autograd.grad(right, list(leaves.values()))
    for name, a, b in zip(leaves, ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")
    assert ours[list(leaves).index("heads.patches.mask_token")].abs().max() > 1e-4


@pytest.mark.parametrize("stem", ["patch", "conv"])
def test_what_lies_behind_a_mask_is_not_seen(stem: str) -> None:
    """Nor from the patches around it, by a stem that reads across; a hidden patch that stays is seen."""
    model = predicting(stem=ConvStemConfig(channels=16)) if stem == "conv" else predicting()
    task, given, said = Task(model, {"p": objective()}, {"p": 1.0}).eval(), batch(), list[Tensor]()
    model.heads["patches"].register_forward_hook(lambda _, __, out: said.append(out))
    hidden, masked = hidden_in(given)
    stays = [asked & ~gone for asked, gone in zip(hidden, masked, strict=True)]
    assert any(one.any() for one in stays) and any(one.any() for one in masked)
    others = {"nothing": [torch.zeros_like(one) for one in masked], "masked": masked, "stays": stays}
    for places in others.values():
        changed = []
        for picture, where in zip(given["image"], places, strict=True):
            grid = where.view(picture.shape[1] // 16, picture.shape[2] // 16).float()[None, None]
            pixels = F.interpolate(grid, scale_factor=16)[0, 0].bool()
            changed.append(torch.where(pixels, 255 - picture, picture))
        task(given | {"image": changed})
    assert torch.equal(said[0], said[1])
    assert (said[0] - said[2]).abs().max() > 1e-3


def test_how_many_and_how() -> None:
    counts = [10, 1, 240] * 2000
    hidden, masked = hide(counts, list(range(6000)), 0.15)
    assert all(len(one) == n and one.any() for one, n in zip(hidden, counts, strict=True))
    assert not any((gone & ~one).any() for one, gone in zip(hidden, masked, strict=True))
    few, many = (torch.stack(hidden[i::3]).float().mean().item() for i in (0, 2))
    assert few == pytest.approx(0.15 + 0.85**10 / 10, abs=0.01) and many == pytest.approx(0.15, abs=0.003)
    assert float(torch.cat(masked).sum() / torch.cat(hidden).sum()) == pytest.approx(0.8, abs=0.01)
    where = torch.stack(hidden[2::3]).float().mean(0)
    assert where.min() > 0.15 - 0.04 and where.max() < 0.15 + 0.04, "any patch as often as any other"


def test_a_picture_s_patches_are_hidden_the_same_whatever_stands_beside_it() -> None:
    together = hide([4, 9, 30], [5, 6, 7], 0.3)
    for i, n in enumerate([4, 9, 30]):
        for one, everyone in zip(hide([n], [5 + i], 0.3), together, strict=True):
            assert torch.equal(one[0], everyone[i])
    assert not torch.equal(hide([30], [8], 0.3)[0][0], together[0][2])


def test_pictures_that_are_normalised_already_have_the_same_colours() -> None:
    config = ViLTConfig(image=VIT, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    given = batch()["image"]
    plain = colours(given, 16, config)
    for one, picture in zip(plain, given, strict=True):
        means = F.avg_pool2d(picture.double(), 16).flatten(1).T
        assert one.shape == (picture[0].numel() // 256, 3) and (one - means).abs().max() <= 0.5
    floating = colours([normalise(one[None], config.mean, config.std)[0] for one in given], 16, config)
    near = [(a - b).abs().max() for a, b in zip(plain, floating, strict=True)]
    assert max(near) <= 1 and sum(torch.equal(a, b) for a, b in zip(plain, floating, strict=True)) >= 5
    square = torch.stack([given[1], given[4]])
    assert all(torch.equal(a, b) for a, b in zip(colours(square, 16, config), (plain[1], plain[4]), strict=True))
    beyond = torch.stack([torch.full((16, 16), value) for value in (-9.0, 0.0, 9.0)])
    assert colours([beyond], 16, config)[0].tolist() == [[0, 128, 255]]


def test_hits_and_error_by_hand() -> None:
    logits = torch.full((1, 3, 256), -1e4)
    logits[0, 0, 100] = logits[0, 1, [50, 60]] = logits[0, 2, 9] = 0
    logits[0, 1, 60] = -1e-3
    found = measured(logits, torch.tensor([[100, 50, 30]]))
    assert found["hits"].tolist() == pytest.approx([2 / 3])
    assert found["error"].tolist() == pytest.approx([(0 + 5 + 21) / 3], abs=1e-2)


def test_r_drop_compares_what_two_draws_say_of_the_hidden_patches() -> None:
    wrapped = load(ObjectiveConfig, {"kind": "rdrop", "alpha": 2.0, "of": {"kind": "masked_patches", "share": SHARE}})
    model, given, said = predicting(0.2), batch(), list[Tensor]()
    task = Task(model, {"p": wrapped.build()}, {"p": 1.0}).train()
    model.heads["patches"].register_forward_hook(lambda _, __, out: said.append(out))
    outcome = task(given)
    asked = torch.cat(hidden_in(given)[0])
    right = torch.cat(colours(given["image"], 16, model.config))[asked].flatten()
    one, two = (draw.flatten(0, 1) for draw in said[0].split(int(asked.sum())))
    p, q = one.log_softmax(1), two.log_softmax(1)
    both = ((p.exp() - q.exp()) * (p - q)).sum(1).mean()
    assert both > 1e-3
    expected = (F.cross_entropy(one, right) + F.cross_entropy(two, right)) / 2 + 2.0 / 4 * both
    torch.testing.assert_close(outcome.loss, expected)
    assert float(outcome.metrics["p/kl"]) == pytest.approx(both.item() / 2, rel=1e-4)
    parts = [task.eval()(given).loss, Task(model, {"p": objective()}, {"p": 1.0}).eval()(given).loss]
    torch.testing.assert_close(*parts)


def test_beside_masked_words_patches_are_embedded_once() -> None:
    model, given, seen = predicting(), batch(), list[int]()
    words = load(ObjectiveConfig, {"kind": "masked_words"}).build()
    both = Task(model, {"w": words, "p": objective()}, {"w": 1.0, "p": 1.0})
    apart = [Task(model, {"o": one}, {"o": 1.0})(given).loss for one in both.named.values()]
    model.image.patch_embed.register_forward_hook(lambda *_: seen.append(1))
    torch.testing.assert_close(both(given).loss, apart[0] + apart[1])
    assert len(seen) == 3, "once for each of three sizes"
    with reading_once(model):
        hiding = [torch.ones(one[0].numel() // 256, dtype=torch.bool) for one in given["image"]]
        unmasked = model(given["image"], given["text"]).tokens
        assert (model(given["image"], given["text"], hiding).tokens - unmasked).abs().max() > 1e-3
        assert torch.equal(model(given["image"], given["text"]).tokens, unmasked), "what is shared stays as it was"


def test_a_model_without_it_lends_all_else() -> None:
    old, new = model_of(tasks=("words",)), predicting()
    found = inherited(old, new.config, new)
    assert found.keys() == new.state_dict().keys()
    for name, tensor in found.items():
        source = new if name.startswith("heads.patches.") else old
        assert torch.equal(tensor, source.state_dict()[name]), name


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"tasks": ("words",)}, r"needs a head for patches; set model\.tasks to \[words, patches\]"),
        ({"tasks": ("patches",), "max_patches": 9}, "max_patches: 9: patches that are left out cannot be asked for"),
    ],
)
def test_models_that_cannot(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=f"objectives.p: .*{complaint}"):
        Task(model_of(**changes), {"p": objective()}, {"p": 1.0})


def test_what_cannot_be_hidden() -> None:
    model, given = predicting(), batch(2)
    two = [torch.ones(n, dtype=torch.bool) for n in (2, 5)]
    with pytest.raises(ValueError, match=r"hidden: of pictures of \[2, 5\] patches, but these have \[2, 4\]"):
        model(given["image"], given["text"], two)
    with pytest.raises(ValueError, match="no head for patches; it has words"):
        model_of(tasks=("words",))(given["image"][:1], given["text"][:1], two[:1])
    task = Task(model, {"p": objective()}, {"p": 1.0})
    with pytest.raises(ValueError, match="both sides must be multiples of patch_size 16"):
        task(given | {"image": [picture[:, :1] for picture in given["image"]]})
    with pytest.raises(ValueError, match="give uint8, from 0 to 255"):
        task(given | {"image": [picture.int() for picture in given["image"]]})


@pytest.mark.parametrize("share", [0, 1, float("nan"), -0.1])
def test_shares_that_are_none(share: float) -> None:
    with pytest.raises(ValueError, match=r"share: .* must be above 0 and below 1; the paper has 0.15"):
        MaskedPatchesConfig(share=share)
