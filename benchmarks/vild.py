"""ViLD: the teacher's side against a loop over crops, the detector against torchvision's, the store, the vocabulary.

The detector is a Mask R-CNN on a ResNet-50 of the same size as torchvision's, with fresh weights on both sides. Ours
compares the best 1,000 pairs of a region and a name; torchvision's threshold is set where as many pass, which is what a
trained model's does, so that both tell 100 things and draw their masks.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .clip import Step
from .harness import Case

if TYPE_CHECKING:
    import torch

NAMES = 1203  # classes of LVIS
SIZE = (480, 640)  # of a picture, y and x
PROPOSALS = 300
PAIRS = 1000  # of a region and a class, that are compared


def picture(seed: int = 0) -> torch.Tensor:
    """[3 y x] uint8, noise."""
    import torch

    return torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def regions(count: int = PROPOSALS) -> torch.Tensor:
    """[m 4] boxes of all sizes within the picture."""
    import torch

    generator = torch.Generator().manual_seed(1)
    limit = torch.tensor([SIZE[1], SIZE[0]])
    corner = torch.rand(count, 2, generator=generator) * limit * 0.8
    other = corner + 16 + torch.rand(count, 2, generator=generator) * limit * 0.5
    return torch.cat([corner, torch.minimum(other, limit)], 1)


@dataclass(frozen=True, kw_only=True)
class Teacher(Case):
    """300 regions of one picture, each cut out twice, embedded by ViT-B/32. Theirs: PIL cuts and resizes each crop, and
    the model sees it alone."""

    unit: str = "ms"
    peer_name: str = "a plain loop"

    def model(self, device: str) -> Any:
        import torch

        from pictura.config import sized
        from pictura.models.clip import CLIPConfig

        torch.manual_seed(0)
        return sized(CLIPConfig, "ViT-B/32").build().to(device, torch.bfloat16).eval()

    def ours(self, device: str) -> Step:
        from pictura.evaluation.crops import embedded
        from pictura.evaluation.embed import Embedder

        embedder, given = Embedder(self.model(device), None, device=device), [(picture(), regions())]
        return lambda: next(iter(embedded(embedder, given)))

    def peer(self, device: str) -> Step:
        import numpy as np
        import torch
        import torch.nn.functional as F
        from PIL import Image

        from pictura.evaluation.crops import TIMES, widened

        model, whole = self.model(device), Image.fromarray(picture().permute(1, 2, 0).numpy())
        limit = (*whole.size, *whole.size)
        boxes = [
            [[min(max(at, 0.0), end) for at, end in zip(box, limit, strict=True)] for box in wide.tolist()]
            for wide in (widened(regions(), times) for times in TIMES)
        ]

        def vector(box: list[float]) -> torch.Tensor:
            crop = np.asarray(whole.resize((224, 224), Image.Resampling.BICUBIC, box=tuple(box)))
            pixels = torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].to(device)
            return F.normalize(model.encode_image(pixels).float(), dim=1)

        @torch.inference_mode()
        def loop() -> torch.Tensor:
            both = zip(*boxes, strict=True)
            return torch.cat([F.normalize(vector(near) + vector(wide), dim=1) for near, wide in both]).cpu()

        return loop


def detector(device: str, names: int) -> Any:
    """Ours, with so many classes, their vectors drawn by chance."""
    import torch

    from pictura.config import sized
    from pictura.models.resnet import ResNetConfig
    from pictura.models.vild import ViLDConfig

    torch.manual_seed(0)
    config = ViLDConfig(
        image=sized(ResNetConfig, "50"), masks=True, rpn_convs=1, detections=100,
        class_names=tuple(map(str, range(names))),
    )  # fmt: skip
    return config.build().to(device).eval()


@dataclass(frozen=True, kw_only=True)
class Inference(Case):
    """One picture of 480 x 640, float32, 1,000 proposals, 100 things with their masks; ours names them among 1,203
    classes, theirs among its 91."""

    unit: str = "ms"
    peer_name: str = "torchvision"
    dtype: str = "float32"

    def ours(self, device: str) -> Step:
        import torch

        model, image = detector(device, NAMES), picture().to(device)
        return torch.inference_mode()(lambda: model.detect([image])[0]["scores"])

    def peer(self, device: str) -> Step:
        import torch
        from torchvision.models.detection import maskrcnn_resnet50_fpn

        torch.manual_seed(0)
        model: Any = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, min_size=min(SIZE), max_size=max(SIZE))
        model, image = model.to(device).eval(), picture().to(device).float() / 255
        said: list[torch.Tensor] = []
        hook = model.roi_heads.box_predictor.register_forward_hook(lambda *call: said.append(call[2][0]))
        model.roi_heads.score_thresh = 1.0
        with torch.inference_mode():
            model([image])
            hook.remove()
            model.roi_heads.score_thresh = float(said[0].softmax(1)[:, 1:].flatten().topk(PAIRS).values[-1])
        return torch.inference_mode()(lambda: model([image])[0]["scores"])


@dataclass(frozen=True, kw_only=True)
class Vocabulary(Case):
    """The same picture among 1,203 names and among 2,406: the ratio is what doubling the vocabulary costs."""

    unit: str = "ms"
    peer_name: str = "twice the names"
    dtype: str = "float32"

    def ours(self, device: str) -> Step:
        return self.among(device, NAMES)

    def peer(self, device: str) -> Step:
        return self.among(device, 2 * NAMES)

    def among(self, device: str, names: int) -> Step:
        import torch

        model, image = detector(device, names), picture().to(device)
        return torch.inference_mode()(lambda: model.detect([image])[0]["scores"])


def scratch() -> Path:
    """A folder that is gone when the process ends."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@dataclass(frozen=True, kw_only=True)
class Store(Case):
    """64 regions of each of 64 pictures, 512 numbers each, drawn at random from 2,000 pictures: our store, and a file
    .npz for each picture."""

    unit: str = "regions/s"
    items: int = 64 * 64
    peer_name: str = "a file a picture"

    def written(self, write: Callable[[int, Any, Any], None]) -> None:
        import numpy as np

        rng = np.random.default_rng(0)
        for index in range(2000):
            write(index, rng.random((64, 4), np.float32), rng.random((64, 512), np.float32).astype(np.float16))

    def drawn(self, read: Callable[[int], Any]) -> Step:
        import numpy as np

        rng = np.random.default_rng(1)
        return lambda: sum(len(read(int(index))) for index in rng.integers(2000, size=64)) and None

    def ours(self, device: str) -> Step:
        from pictura.data.region_store import RegionStore

        store = RegionStore.create(scratch() / "s", {}, examples=2000, regions=64, width=512)
        self.written(lambda index, boxes, vectors: store.write(index, str(index), boxes, vectors))
        store.flush()
        return self.drawn(lambda index: store[index].vectors)

    def peer(self, device: str) -> Step:
        import numpy as np

        folder = scratch()
        self.written(lambda index, boxes, vectors: np.savez(folder / f"{index}.npz", boxes=boxes, vectors=vectors))
        return self.drawn(lambda index: np.load(folder / f"{index}.npz")["vectors"])


CASES = (
    Teacher(
        name="vild_teacher", case="300_regions_b32", peer_setting="PIL, one crop at a time, the same model in bf16"
    ),
    Inference(name="vild_inference", case="r50_480x640", peer_setting="maskrcnn_resnet50_fpn, inference_mode"),
    Vocabulary(name="vild_vocabulary", case="doubled", peer_setting="ours, with 2,406 class names"),
    Store(name="vild_store", case="64_pictures", peer_setting="numpy.load of an .npz"),
)
