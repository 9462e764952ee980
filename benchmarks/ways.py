"""Three ways from pictures to answers, which `regions.py` measures: a detector's regions, a ResNet's map, and patches.

One Transformer, our ViLT's, reads each of them beside a question. Regions are those of torchvision's Faster R-CNN
R50-FPN, chosen as Anderson et al. 2018 do it (their generate_tsv.py): non-maximum suppression for each of 1,600 classes
over all of 300 proposals, whatever their scores, then the 36 that are surest of any class, with the features that they
were judged by. All weights are random: nothing can be downloaded.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from . import measure
from .harness import ROOT

if TYPE_CHECKING:  # so that `python -m benchmarks --list` is quick
    import torch

PICTURES = ROOT.parent / "shared" / "data" / "coco-mini" / "val2017"
OVERLAP = 0.5  # intersection over union, above which the less sure of two boxes is dropped; torchvision's default
QUESTION = 12  # tokens


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is built. Pictures: the shorter side, unless the longer one would be above the second number."""

    width: int = 768
    depth: int = 12
    answers: int = 3129
    classes: int = 1600  # Visual Genome's
    proposals: int = 300
    regions: int = 36
    large: tuple[int, int] = (800, 1333)
    small: tuple[int, int] = (384, 640)


class Way:
    """`way(pictures: b of uint8 [y x 3], text: [b t]) -> [b answers]`; the seconds of its parts add up in `spent`.

    kind: `regions`, `regions_once` (one NMS for all classes, as VinVL has it), `grid` or `patches`. With bf16 weights
    and maps are; boxes stay float32: above 256, bf16 has no odd numbers.
    """

    def __init__(self, kind: str, precision: str, device: str, sizes: Sizes) -> None:
        import torch

        self.kind, self.device, self.sizes = kind, device, sizes
        self.dtype = torch.float32 if precision == "float32" else torch.bfloat16
        self.spent: Counter[str] = Counter()
        torch.manual_seed(0)
        self.transformer, self.eye = transformer(sizes, {"grid": 2048, "patches": 0}.get(kind, 1024 + 4)), None
        if kind == "grid":
            self.eye = resnet()
        elif kind != "patches":
            self.eye = detector(sizes)
        for part in filter(None, (self.transformer, self.eye)):
            part.to(device, self.dtype, memory_format=torch.channels_last).eval().requires_grad_(False)
        if kind.startswith("regions"):
            rpn: Any = self.eye.rpn
            rpn.filter_proposals = partial(self.lap, "NMS of proposals", rpn.filter_proposals)
            rpn.head.register_forward_hook(lambda _, __, out: tuple([one.float() for one in maps] for maps in out))
            rpn.anchor_generator.register_forward_pre_hook(  # it takes shapes from the maps, and the boxes' type
                lambda _, given: (given[0], [one[:, :1].float() for one in given[1]])
            )

    def __call__(self, pictures: list[Any], text: torch.Tensor) -> torch.Tensor:
        see = {"grid": self.cells, "patches": lambda prepared: prepared}.get(self.kind, self.regions)
        prepared = self.lap("preparing pictures", self.prepared, pictures)
        features = self.lap("features", see, prepared)
        return self.lap("Transformer", self.transformer.answer, features, text)

    def lap(self, part: str, function: Callable[..., Any], *given: Any) -> Any:
        """What `function` gives; the time is the part's."""
        measure.synchronize(self.device)
        began = time.perf_counter()
        out = function(*given)
        measure.synchronize(self.device)
        self.spent[part] += time.perf_counter() - began
        return out

    def parameters(self) -> int:
        """Without the table of words, which the paper does not count."""
        modules = filter(None, (self.transformer, self.eye))
        return sum(p.numel() for m in modules for p in m.parameters()) - self.transformer.text.word_embed.weight.numel()

    def prepared(self, pictures: list[Any]) -> Any:
        """Resized and on the device: on the map's and the patches' way as our view does it, else by torchvision."""
        import numpy as np
        import torch

        from pictura.data.fit import FitConfig

        if self.kind.startswith("regions"):
            large = [torch.from_numpy(one).to(self.device).permute(2, 0, 1) / 255 for one in pictures]
            return self.eye.transform(large)[0]
        size, longest = self.sizes.large if self.kind == "grid" else self.sizes.small
        view, unused = FitConfig(image_size=size, longest=longest).build(), np.random.default_rng(0)
        return torch.stack([view(one, unused) for one in pictures]).to(self.device)

    def cells(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        """Each 2 x 2 cells of the last map are one (the paper's table 6: 260 for 800 x 1333) -> b of [n 2048]."""
        import torch
        import torch.nn.functional as F

        from pictura.models.pictures import read_pictures

        x = read_pictures(pictures, self.transformer.config, self.dtype)
        x = self.eye(x.contiguous(memory_format=torch.channels_last))
        return list(F.max_pool2d(x, 2).flatten(2).transpose(1, 2))

    def regions(self, images: Any) -> list[torch.Tensor]:
        """Of each picture its regions: what the detector's head made of them, and where they lie -> b of [n 1028]."""
        import torch

        eye: Any = self.eye
        maps = eye.backbone(images.tensors.to(self.dtype, memory_format=torch.channels_last))
        proposals, _ = eye.rpn(images, maps)
        wide = {name: one.float() for name, one in maps.items()}  # RoIAlign has no bf16 on a CPU
        pooled = eye.roi_heads.box_roi_pool(wide, proposals, images.image_sizes)
        seen = eye.roi_heads.box_head(pooled.to(self.dtype))
        scores = eye.roi_heads.box_predictor.cls_score(seen).float().softmax(1)[:, 1:]  # 0 is the background
        counts, found = [len(boxes) for boxes in proposals], []
        each = zip(proposals, seen.split(counts), scores.split(counts), images.image_sizes, strict=True)
        for boxes, features, score, (height, width) in each:
            chosen = self.lap("NMS of regions", best, boxes, score, self.sizes.regions, self.kind == "regions")
            places = boxes[chosen] / boxes.new_tensor([width, height, width, height])
            found.append(torch.cat([features[chosen], places.to(self.dtype)], 1))
        return found


def best(boxes: torch.Tensor, scores: torch.Tensor, most: int, each_class: bool) -> torch.Tensor:
    """boxes: [n 4], scores: [n k] -> at most `most` of n: those with the highest score of a class in which no surer box
    covers them; or, of all classes together, those that no surer one covers."""
    import torch
    from torchvision.ops import nms

    if not each_class:
        return nms(boxes, scores.amax(1), OVERLAP)[:most]
    by_class = scores.T.contiguous()
    left = torch.zeros_like(by_class)
    for row, score in zip(left, by_class, strict=True):
        stays = nms(boxes, score, OVERLAP)
        row[stays] = score[stays]
    return left.amax(0).topk(min(most, len(boxes))).indices


def transformer(sizes: Sizes, features: int) -> Any:
    """Our ViLT; with `features`, its `answer` takes b of [n features] in the place of pictures."""
    from pictura.config import sized
    from pictura.layers.linear import Linear
    from pictura.models.vilt import ViLTConfig

    config, answers = sized(ViLTConfig, "B/32"), tuple(map(str, range(sizes.answers)))
    shape: dict[str, Any] = {"width": sizes.width, "depth": sizes.depth, "heads": sizes.width // 64}
    vit = replace(config.vit, pool="average" if features else "class", **shape)
    model: Any = replace(config, image=vit, tasks=("answers",), answers=answers).build()
    if features:
        model.image.patch_embed = Linear(features, sizes.width)
        del model.image.pos_embed
        model.answer = partial(answer, model)
    return model


def answer(model: Any, found: list[torch.Tensor], text: torch.Tensor) -> torch.Tensor:
    """As ViLT does it, of what something else found in pictures, b of [n features], in the place of patches."""
    import torch

    from pictura.layers.packing import Packing

    packing = Packing(text.ne(0).sum(1), torch.tensor([len(one) for one in found], device=text.device))
    words = model.text(text, text.ne(0)) + model.type_embed[0]
    x = torch.cat([words, model.image.patch_embed(torch.cat(found)) + model.type_embed[1]])
    for block in model.image.blocks[:-1]:
        x = block(x, None, packing)
    first = torch.zeros(len(text), dtype=torch.long, device=text.device)
    x = model.image.norm(model.image.blocks[-1](x, first, packing)).squeeze(1)
    scores: torch.Tensor = model.heads["answers"](model.pooler(x).tanh())
    return scores.float()


def detector(sizes: Sizes) -> Any:
    """torchvision's, without the part that would move boxes once more: features are of the boxes that were judged.

    Proposals are anchors, which a trained network would move, not chance's boxes: those are as wide as the picture.
    """
    from torch import nn
    from torchvision.models.detection import fasterrcnn_resnet50_fpn

    model = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=sizes.classes + 1, rpn_post_nms_top_n_test=sizes.proposals,
        min_size=sizes.large[0], max_size=sizes.large[1],
    )  # fmt: skip
    del model.roi_heads.box_predictor.bbox_pred
    nn.init.zeros_(model.rpn.head.bbox_pred.weight)
    settle(model.backbone.body)
    return model


def resnet() -> Any:
    """Ours, which gives its last map, [b 2048 y x], in the place of the map's average."""
    from torch import nn

    from pictura.config import sized
    from pictura.models.resnet import ResNetConfig

    net = replace(sized(ResNetConfig, "50"), zero_init=False).build()
    settle(net)
    return nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, *net.stages)


def settle(net: Any) -> None:
    """Batch norm gets the statistics of two pictures, as after training, where numbers neither vanish nor grow; then it
    becomes a part of the convolution before it, as networks are run that no longer learn."""
    import torch
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    pixels = torch.stack([torch.from_numpy(one[:128, :128]).permute(2, 0, 1) / 128.0 - 1 for one in photos(2)[0]])
    norms = [part for part in net.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        net.train()(pixels)
    for part in list(net.eval().modules()):
        for conv, norm in (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("0", "1")):
            if isinstance(getattr(part, norm, None), nn.BatchNorm2d):
                setattr(part, conv, fuse_conv_bn_eval(getattr(part, conv), getattr(part, norm)))
                setattr(part, norm, nn.Identity())


def photos(count: int) -> tuple[list[Any], str]:
    """So many pictures, uint8 [480 640 3], decoded, and what they are: photographs of COCO, or else drawn scenes."""
    import numpy as np
    from PIL import Image

    from pictura.data.scenes import ScenesConfig

    found: list[Any] = []
    for path in sorted(PICTURES.glob("*.jpg")):
        with Image.open(path) as image:
            if image.size == (640, 480):
                found.append(np.array(image.convert("RGB")))
        if len(found) == count:
            return found, "photographs of COCO"
    scenes = ScenesConfig(image_size=640, objects=(4, 8), gives=("image",)).build()
    return [np.ascontiguousarray(scenes[i]["image"][80:560]) for i in range(count)], "drawn scenes"


def question(count: int, device: str) -> torch.Tensor:
    """[b 12] ids of BERT's vocabulary: start, words, end."""
    import torch

    ids = torch.randint(1000, 30000, (count, QUESTION), generator=torch.Generator().manual_seed(2))
    ids[:, 0], ids[:, -1] = 101, 102
    return ids.to(device)
