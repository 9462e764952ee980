"""What can be read of pictures in one pass through a model: its features, its head's scores, outputs on the way."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

What = Literal["features", "scores"] | int
"""`features`: unit vectors [b e]. `scores`: [b k], of the model's own head. A number: unit vectors [b f] of that stage
of the picture tower, -1 the last: its class token if the tower reads one, else the mean over tokens or pixels."""


def reader(model: Any, what: Sequence[What]) -> Callable[[Tensor], list[Tensor]]:
    """A function, image [b 3 y x] -> one float32 tensor for each of `what`. ValueError for what the model has not."""
    check_reads_pictures(model)
    layers = [of for of in what if isinstance(of, int)]
    stages = {layer: stage_of(model, layer) for layer in layers}
    if "scores" in what:
        check_head(model)

    def read(image: Tensor) -> list[Tensor]:
        found: dict[What, Tensor] = {}
        with watching(model, stages) as seen:
            if layers or "features" in what:
                found["features"] = F.normalize(model.encode_image(image).float(), dim=-1)
        found |= seen
        if "scores" in what:
            found["scores"] = model.classify(image).float()
        return [found[of] for of in what]

    return read


def check_reads_pictures(model: Any) -> None:
    """ValueError for a model that has no features of a picture alone."""
    if not hasattr(model, "encode_image"):
        raise ValueError(
            f"this model ({model.config.kind}) reads a picture beside a text, not alone; ask it questions, or train it "
            "for what you need"
        )


def check_head(model: Any) -> None:
    """ValueError for a model that has no head of its own."""
    if getattr(model, "head", None) is None or not hasattr(model, "classify"):
        raise ValueError(
            f"this model ({model.config.kind}) has no head that tells classes apart; give labels in words if it reads "
            "texts, or measure its features by a `probe`"
        )


def stage_of(model: Any, layer: int) -> nn.Module:
    """The part of the picture tower whose output is layer `layer`."""
    stages: list[nn.Module] = getattr(getattr(model, "image", None), "stages", [])
    if not -len(stages) <= layer < len(stages):
        last = f"0 to {len(stages) - 1}, or -{len(stages)} to -1 from the end" if stages else "none can be read"
        raise ValueError(f"layer {layer}: this model's picture tower has {len(stages)} layers: {last}")
    return stages[layer]


@contextmanager
def watching(model: Any, stages: dict[int, nn.Module]) -> Iterator[dict[What, Tensor]]:
    """While the model runs inside, {layer: unit vectors [b f]} of its stages fill up."""
    seen: dict[What, Tensor] = {}
    reads_token = bool(stages) and getattr(model.config.image, "pool", None) == "class"

    def hook(layer: int) -> Callable[[nn.Module, Any, Tensor], None]:
        def keep(module: nn.Module, inputs: Any, out: Tensor) -> None:
            seen[layer] = F.normalize(pooled(out, reads_token), dim=-1)

        return keep

    handles = [stage.register_forward_hook(hook(layer)) for layer, stage in stages.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def pooled(out: Tensor, reads_token: bool) -> Tensor:
    """A stage's output, tokens [b n d] or a map [b c y x] -> [b d], float32."""
    if out.dim() == 4:
        return out.float().mean((2, 3))
    return out[:, 0].float() if reads_token else out.float().mean(1)
