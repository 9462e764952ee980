"""Tasks whose objectives look across examples, for two processes and for one."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.models.clip import CLIPConfig
from pictura.models.text import TextTransformerConfig
from pictura.models.vit import ViTConfig
from pictura.objectives.base import Batch, Features, Task
from pictura.objectives.clip import CLIPObjective, CLIPObjectiveConfig
from pictura.objectives.rdrop import RDrop
from pictura.objectives.simclr import SimCLRConfig

END, BATCH = 63, 8


class Given(CLIPObjective):
    """CLIP's, of which the batch gives both draws: dropout masks of two processes are never those of one."""

    def embed(self, model: nn.Module, batch: Batch) -> Features:
        found = super().embed(model, batch)
        return {k: F.normalize(torch.cat([v + batch["noise"][:, i] for i in (0, 1)]), dim=1) for k, v in found.items()}


def built(name: str) -> Task:
    """rdrop; simclr, with batch norm in its head; slip: CLIP and a SimCLR without a head."""
    torch.manual_seed(0)
    model = CLIPConfig(
        image=ViTConfig(width=32, depth=2, heads=2, patch_size=8, image_size=16),
        text=TextTransformerConfig(width=32, depth=1, heads=2, vocab_size=END + 1, context_length=8),
        embed_dim=16,
        logit_scale=2.3,
    ).build()
    clip = CLIPObjectiveConfig()
    objectives: dict[str, Any] = {
        "rdrop": {"rdrop": RDrop(3.0, Given(clip))},
        "simclr": {"clip": clip.build(), "simclr": SimCLRConfig(head_width=24, head_out=8).build()},
        "slip": {"clip": clip.build(), "simclr": SimCLRConfig(head=0, temperature=0.5).build()},
    }
    return Task(model, objectives[name], dict.fromkeys(objectives[name], 0.7))


TASKS = ("rdrop", "simclr", "slip")
CASES = [(name, mode, cached) for name in TASKS for mode in ("ddp", "fsdp") for cached in (False, name != "simclr")]
CASES = sorted(set(CASES))


def batch(rows: slice = slice(None)) -> dict[str, Any]:
    """Eight pictures, captions, seeds, and noise for their features."""
    generator = torch.Generator().manual_seed(1)
    text = torch.randint(1, END, (BATCH, 8), generator=generator)
    text[:, -1] = END
    noise: Tensor = 0.2 * torch.randn(BATCH, 2, 16, generator=generator)
    image = torch.randint(0, 256, (BATCH, 3, 16, 16), generator=generator, dtype=torch.uint8)
    whole = {"image": image, "text": text, "seed": list(range(70, 78)), "noise": noise}
    return {key: value[rows] for key, value in whole.items()}
