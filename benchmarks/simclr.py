"""SimCLR against lightly: two views of each picture, a whole step, and the memory of NT-Xent."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

from .clip import FOREVER
from .harness import COMMAND, Case, MemoryCase, Side
from .loss import WARM

if TYPE_CHECKING:
    import torch

    from pictura.data.batch_views import BatchViewConfig

Step = Callable[[], "torch.Tensor"]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LOADER = "SimCLRTransform in a DataLoader of 2 workers"


@cache
def photographs(count: int, size: int) -> tuple[bytes, ...]:
    """JPEG files whose spectrum falls as that of photographs does, so that they take as long to decode."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    frequency[0, 0] = 1 / size
    files = []
    for _ in range(count):
        noise = np.fft.fft2(random.standard_normal((3, size, size))) / frequency
        field = np.fft.ifft2(noise).real
        field = 128 + 50 * (field - field.mean()) / field.std()
        file = io.BytesIO()
        Image.fromarray(field.clip(0, 255).astype(np.uint8).transpose(1, 2, 0)).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return tuple(files)


def opened(file: bytes) -> Any:
    """A PIL picture, decoded."""
    from PIL import Image

    return Image.open(io.BytesIO(file)).convert("RGB")


class Pictures:
    """What lightly's loader reads: files that are decoded each time, or pictures decoded before."""

    def __init__(self, pictures: list[Any], transform: Callable[[Any], list[torch.Tensor]]) -> None:
        self.pictures, self.transform = pictures, transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        picture = self.pictures[index]
        return self.transform(opened(picture) if isinstance(picture, bytes) else picture)


def their_loader(pictures: list[Any], batch: int, **options: float) -> Any:
    """Its workers stay alive between epochs, and rest when one has ended."""
    from lightly.transforms import SimCLRTransform
    from torch.utils.data import DataLoader

    data: Any = Pictures(pictures, SimCLRTransform(**options))  # type: ignore[arg-type]
    return DataLoader(data, batch_size=batch, num_workers=2, persistent_workers=True)


def normalised(views: torch.Tensor) -> torch.Tensor:
    """As lightly's transform ends."""
    import torch

    mean, std = (torch.tensor(of, device=views.device, dtype=views.dtype).view(-1, 1, 1) for of in (MEAN, STD))
    return views.sub_(mean).div_(std)


@dataclass(frozen=True, kw_only=True)
class Augment(Case):
    """Pictures per second, two views of each, normalised. `decoded`: from JPEG files, else from memory."""

    unit: str = "images/s"
    peer_name: str = "lightly"
    size: int
    source: int
    batch: int
    view: Literal["simclr", "simclr_fused"]
    decoded: bool

    def config(self) -> BatchViewConfig:
        from pictura.config import load
        from pictura.data.batch_views import BatchViewConfig

        small = {"size": "cifar"} if self.size == 32 else {}
        return load(BatchViewConfig, {"kind": self.view, "image_size": self.size} | small)

    def ours(self, device: str) -> Step:
        import numpy as np
        import torch

        from pictura.data.batches import ordered, prefetch
        from pictura.data.views import NoViewConfig

        view, files = self.config().build(), photographs(self.items, self.source)
        if not self.decoded:
            image = torch.stack([torch.from_numpy(np.array(opened(file))) for file in files]).movedim(-1, 1).to(device)
            return lambda: normalised(view(image, range(self.items), 2))

        class Files(source_of()):  # type: ignore[misc]
            provides = frozenset({"image"})

            def __len__(self) -> int:
                return len(files)

            def __getitem__(self, index: int) -> Any:
                return {"key": str(index), "image": files[index]}

        def run() -> torch.Tensor:
            views = None
            for batch in prefetch(
                ordered(Files(), NoViewConfig(image_size=self.source).build(), None, self.batch), device
            ):
                views = normalised(view(batch["image"], batch["index"].tolist(), 2))
            assert views is not None
            return views

        return run

    def peer(self, device: str) -> Step:
        files = photographs(self.items, self.source)
        pictures: list[Any] = list(files) if self.decoded else [opened(file) for file in files]
        small = {"cj_strength": 0.5, "gaussian_blur": 0.0} if self.size == 32 else {}
        loader = their_loader(pictures, self.batch, input_size=self.size, **small)

        def run() -> torch.Tensor:
            first = [views for views, _ in loader]
            return first[-1].to(device)  # type: ignore[no-any-return]

        return run


def source_of() -> type[Any]:
    from pictura.data.source import Source

    return Source


@dataclass(frozen=True, kw_only=True)
class SimCLRStep(Case):
    """Views, ResNet-18 with the stem for small pictures, head, NT-Xent, backward and SGD: two steps a call."""

    unit: str = "images/s"
    peer_name: str = "lightly"
    batch: int
    steps: int = 2

    def environment(self, side: Side) -> dict[str, str]:
        return COMMAND if side == "ours" else {}

    def tower(self) -> Any:
        from pictura.config import sized
        from pictura.models.resnet import ResNetConfig

        return sized(ResNetConfig, "18", image_size=32, stem="cifar")

    def flops(self) -> float:
        from pictura.facts import forward_flops
        from pictura.models.classifier import ClassifierConfig
        from pictura.weights.folder import empty

        config = ClassifierConfig(image=self.tower())
        return 3 * 2 * self.batch * self.steps * forward_flops(empty(config), config)

    def ours(self, device: str) -> Step:
        import tempfile
        from pathlib import Path

        import numpy as np
        import torch

        from pictura.models.classifier import ClassifierConfig
        from pictura.objectives.base import Task
        from pictura.objectives.simclr import SimCLRConfig
        from pictura.training.config import TrainingConfig
        from pictura.training.loop import Trainer
        from pictura.training.optimizers import SGDConfig
        from pictura.training.schedules import ConstantConfig

        view = Augment(
            name="", case="", peer_setting="", size=32, source=32, batch=self.batch, view="simclr", decoded=False
        ).config()
        objective = SimCLRConfig(temperature=0.5, view=view).build()
        task = Task(ClassifierConfig(image=self.tower()).build(), {"simclr": objective}, {"simclr": 1.0})
        config = TrainingConfig(steps=FOREVER, clip_norm=None)
        folder = Path(tempfile.gettempdir()) / "benchmark"
        optimizer = SGDConfig(lr=0.06, weight_decay=5e-4)
        trainer = Trainer(task, config, optimizer, ConstantConfig(), folder, device=device)
        files = photographs(self.batch, 32)
        image = torch.stack([torch.from_numpy(np.array(opened(file))) for file in files]).movedim(-1, 1).to(device)

        def run() -> torch.Tensor:
            for _ in range(self.steps):
                seeds = [trainer.step * self.batch + i for i in range(self.batch)]
                loss = trainer._advance({"image": image, "seed": seeds}).loss
            return loss.detach()

        return run

    def peer(self, device: str) -> Step:
        import torch
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead
        from torch import nn
        from torchvision.models import resnet18

        tower = resnet18()
        tower.conv1, tower.maxpool, tower.fc = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity(), nn.Identity()
        model = nn.Sequential(tower, SimCLRProjectionHead(512, 512, 128)).to(device).train()
        criterion = NTXentLoss(temperature=0.5)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.06, momentum=0.9, weight_decay=5e-4)
        pictures = [opened(file) for file in photographs(self.batch, 32)] * self.steps
        loader = their_loader(pictures, self.batch, input_size=32, cj_strength=0.5, gaussian_blur=0.0)

        def run() -> torch.Tensor:
            for one, two in loader:
                optimizer.zero_grad()
                with torch.autocast(device, torch.bfloat16):
                    features = (model(view.to(device)) for view in (one, two))
                    loss = criterion(*features)
                loss.backward()
                optimizer.step()
            return loss.detach()  # type: ignore[no-any-return]

        return run


def our_loss(n: int, device: str) -> Step:
    """NT-Xent of 2n views and the gradients of both halves."""
    from pictura.losses.nt_xent import nt_xent

    return stepped(n, device, lambda one, two: nt_xent(one, two, 0.5)[0])


def their_loss(n: int, device: str) -> Step:
    from lightly.loss import NTXentLoss

    return stepped(n, device, NTXentLoss(temperature=0.5))


def stepped(n: int, device: str, loss_of: Callable[..., torch.Tensor]) -> Step:
    import torch

    generator = torch.Generator().manual_seed(0)
    base, noise = (torch.randn(n, 128, generator=generator) for _ in range(2))
    one, two = (torch.nn.functional.normalize(x, dim=1).to(device).requires_grad_() for x in (base, base + 0.5 * noise))

    def step() -> torch.Tensor:
        one.grad = two.grad = None
        loss = loss_of(one, two)
        loss.backward()
        return loss

    return step


@dataclass(frozen=True, kw_only=True)
class NTXentMemory(MemoryCase):
    """Extra memory of one forward and backward."""

    n: int
    peer_name: str = "lightly"

    def ours(self, device: str) -> Step:
        our_loss(WARM, device)()
        return our_loss(self.n, device)

    def peer(self, device: str) -> Step:
        their_loss(WARM, device)()
        return their_loss(self.n, device)


@dataclass(frozen=True, kw_only=True)
class NTXentTime(Case):
    """Pictures, two views each, per second through forward and backward."""

    n: int
    unit: str = "images/s"
    peer_name: str = "lightly"
    dtype: str = "float32"

    def ours(self, device: str) -> Step:
        return our_loss(self.n, device)

    def peer(self, device: str) -> Step:
        return their_loss(self.n, device)


small = partial(Augment, name="simclr_augment_32", size=32, source=32, batch=256, items=1024, view="simclr")
large = partial(Augment, name="simclr_augment_224", size=224, source=256, batch=32, items=128, decoded=True)

CASES = (
    small(case="exact", decoded=False, peer_setting=f"{LOADER}, pictures in memory"),
    small(case="exact_decoded", decoded=True, peer_setting=f"{LOADER}, from JPEG files"),
    large(case="exact", view="simclr", peer_setting=f"{LOADER}, from JPEG files of 256 px"),
    large(case="fused", view="simclr_fused", peer_setting=f"{LOADER}, from JPEG files of 256 px; ours approximately"),
    SimCLRStep(
        name="simclr_step", case="resnet18_batch256", batch=256, items=512,
        peer_setting=f"{LOADER}, autocast to bf16, SGD",
    ),
    NTXentMemory(
        name="ntxent_memory", case="2n32768_d128_memory", n=16384, tolerance=1e-3,
        peer_setting="NTXentLoss, float32 features, one process",
    ),
    NTXentTime(
        name="ntxent_memory", case="2n4096_time", n=2048, items=2048, tolerance=1e-3,
        peer_setting="NTXentLoss, float32 features, one process",
    ),
)  # fmt: skip
