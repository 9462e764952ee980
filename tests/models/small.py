"""Every tower and every model that is registered, small enough to test: found by being in `models/`."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import fields, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from pictura.config import Config, kinds, load
from pictura.losses.regions import named
from pictura.models.base import ImageTower, ImageTowerConfig, ModelConfig, TextTowerConfig
from pictura.models.captioner import Captioner
from pictura.models.pictures import PictureModelConfig
from pictura.models.vild import ViLD
from pictura.models.vilt import ViLT

SMALL: dict[str, Any] = {"image_size": 64, "patch_size": 16, "width": 24, "depth": 2, "heads": 3, "embed_dim": 10}
SMALL |= {"layers": (1, 1, 1, 1), "tokens": 16, "channels": 48, "vocab_size": 600, "context_length": 12, "classes": 5}
SMALL |= {
    "end_token": 599,
    "answers": tuple("abcde"),
    "tasks": ("words", "matching", "rank", "answers", "pair", "patches"),
}
SMALL |= {"class_names": tuple("abcde"), "ensemble": True, "masks": True, "anchors": 4.0, "proposals": 30}
SMALL |= {"pre_logits": 7, "logit_bias": -3.0, "projection_bias": True, "prefix": 3}  # what is optional is there

NOISE = torch.Generator().manual_seed(1)
IMAGE = torch.randn(3, 3, 2, 1, 2, 1, generator=NOISE) + torch.randn(3, 3, 2, 32, 2, 32, generator=NOISE) / 2
IMAGE = IMAGE.view(3, 3, 64, 64)  # a colour in each quarter: noise alone is all alike to what averages
PICTURES = (IMAGE * 50 + 128).clamp(0, 255).to(torch.uint8)
TEXT = torch.tensor([[48, 3, 4, 599], [48, 5, 599, 0], [48, 7, 6, 599]])
VERBS = {"encode_image": IMAGE, "classify": IMAGE, "encode_text": TEXT}


def small(config: Any) -> Any:
    """The same, with every size that it has made small, towers too."""
    changes: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in SMALL:
            changes[field.name] = SMALL[field.name]
        elif isinstance(value, Config):
            changes[field.name] = small(value)
    return replace(config, **changes)


def towers(base: type) -> list[Any]:
    return [small(load(base, {"kind": kind})) for kind in kinds(base)]


def wholes() -> Iterator[Any]:
    """Every model with every tower."""
    for kind in kinds(ModelConfig):
        config = load(ModelConfig, {"kind": kind})
        if isinstance(config, PictureModelConfig):
            fit = [tower for tower in towers(ImageTowerConfig) if isinstance(tower, config.tower_kind)]
            yield from (small(replace(config, image=tower)) for tower in fit)
        else:
            yield small(config)


def label(config: Any) -> str:
    return f"{config.kind}-{config.image.kind}" if isinstance(config, PictureModelConfig) else str(config.kind)


IMAGE_TOWERS, TEXT_TOWERS, WHOLES = towers(ImageTowerConfig), towers(TextTowerConfig), list(wholes())
ALL = [*IMAGE_TOWERS, *TEXT_TOWERS, *WHOLES]
BY_KIND = {c.kind: c for c in ALL if not isinstance(c, PictureModelConfig) or c.image.kind == "vit"}


def built(config: Any) -> nn.Module:
    """The same each time. No tensor of it is zero or one throughout, so that none can be left out unseen."""
    return deepcopy(_built(config)).eval()


@cache
def _built(config: Any) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = config.build()
    for tensor in model.state_dict().values():
        if tensor.dim() < 2 and tensor.is_floating_point():
            tensor.add_(torch.randn_like(tensor), alpha=0.1)
        elif not tensor.any() and tensor.dim() >= 2:
            nn.init.normal_(tensor, std=tensor.shape[1] ** -0.5)
    with torch.no_grad():
        for _ in range(5):
            outputs(model.train())  # which moves running statistics
    return model


def calls(model: nn.Module) -> dict[str, tuple[Callable[[Tensor], Tensor], Tensor]]:
    """verb -> what computes it, and what is given."""
    config = model.config if hasattr(model, "config") else None
    if isinstance(model, ImageTower):
        return {"image": (model, IMAGE)}
    if isinstance(config, TextTowerConfig):
        return {"text": (model, TEXT)}
    if isinstance(model, ViLT | ViLD | Captioner):
        made = joint(model) if isinstance(model, ViLT) else detector(model) if isinstance(model, ViLD) else told(model)
        return {verb: (call, torch.arange(3)) for verb, call in made.items()}
    return {verb: (getattr(model, verb), given) for verb, given in VERBS.items() if hasattr(model, verb)}


def joint(model: ViLT) -> dict[str, Callable[[Tensor], Tensor]]:
    """What a ViLT makes of the pairs with these numbers; of words and of patches the first ones, these hidden."""

    def first_word(i: Tensor) -> Tensor:
        found = model(IMAGE[i], TEXT[i])
        lengths = found.inside.sum(1)
        return model.heads["words"](found.words[lengths.cumsum(0) - lengths])  # type: ignore[no-any-return]

    def first_patch(i: Tensor) -> Tensor:
        found = model(IMAGE[i], TEXT[i], [torch.arange(16) == 0] * len(i))
        firsts = found.counts.cumsum(0) - found.counts + int(model.image.cls_token is not None)
        return model.heads["patches"](found.tokens[len(found.words) + firsts]).flatten(1)  # type: ignore[no-any-return]

    return {
        "patches": first_patch,
        "read": lambda i: model.read(IMAGE[i], TEXT[i]),
        "rank": lambda i: model.match(IMAGE[i], TEXT[i])[:, None],
        "matching": lambda i: model.heads["matching"](model.read(IMAGE[i], TEXT[i])),
        "answers": lambda i: model.answer(IMAGE[i], TEXT[i]),
        "pair": lambda i: model.compare(IMAGE[i], IMAGE[2 - i], TEXT[i]),
        "words": first_word,
    }


def told(model: Captioner) -> dict[str, Callable[[Tensor], Tensor]]:
    """What a captioner makes of the pictures with these numbers, and says after the third token of their texts."""
    return {
        "encode_image": lambda i: model.encode_image(IMAGE[i]),
        "next": lambda i: model(IMAGE[i], TEXT[i])[:, 2],
    }


def detector(model: ViLD) -> dict[str, Callable[[Tensor], Tensor]]:
    """What a detector makes of the pictures with these numbers, and of one region in each."""
    box = torch.tensor([[4.0, 6, 44, 60]])

    def region(i: Tensor, side: int = 7) -> Tensor:
        return model.pool(model.see(IMAGE[i]), [box] * len(i), side)

    def read(i: Tensor) -> Tensor:
        return model.regions(region(i))  # type: ignore[no-any-return]

    def shown(i: Tensor) -> Tensor:
        assert model.taught is not None
        return model.taught.project(model.taught(region(i)))  # type: ignore[no-any-return]

    def mask(i: Tensor) -> Tensor:
        assert model.masks is not None
        return model.masks(region(i, 14)).flatten(1)  # type: ignore[no-any-return]

    def names(i: Tensor) -> Tensor:
        return named(model.regions.project(read(i)), model.classes, model.background, torch.tensor(1.0))

    return {
        "region": lambda i: model.regions.project(read(i)),
        "shown": shown,
        "box": lambda i: model.boxes(read(i)),
        "mask": mask,
        "names": names,
        "objectness": lambda i: model.see(IMAGE[i]).found[0],
        "proposals": lambda i: model.see(IMAGE[i]).found[1].flatten(1),
    }


def seen(model: nn.Module, image: Tensor) -> Tensor:
    """What a whole model makes of pictures, with a text beside each where it needs one."""
    if isinstance(model, ViLT):
        return model.read(image, TEXT[: len(image)])
    if isinstance(model, ViLD):
        return model.see(image).maps[2]
    out: Tensor = model.encode_image(image)
    return out


def outputs(model: nn.Module, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """verb -> what the model makes of three pictures, in `dtype`, or of three texts."""
    given = {verb: x.to(dtype) if x.is_floating_point() else x for verb, (_, x) in calls(model).items()}
    return {verb: call(given[verb]) for verb, (call, _) in calls(model).items()}
