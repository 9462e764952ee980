"""Tasks whose examples are compared or counted together, for two processes and for one."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.models.clip import CLIPConfig
from pictura.models.resnet import ResNetConfig
from pictura.models.text import TextTransformerConfig
from pictura.models.vild import ViLDConfig
from pictura.models.vild_parts import HeadConfig
from pictura.models.vilt import JointTask, ViLT, ViLTConfig
from pictura.models.vilt_parts import WordsConfig
from pictura.models.vit import ViTConfig
from pictura.objectives.base import Batch, Features, Objective, Task
from pictura.objectives.clip import CLIPObjective, CLIPObjectiveConfig
from pictura.objectives.detection import DetectionConfig
from pictura.objectives.distillation import DistillationConfig
from pictura.objectives.masked_patches import MaskedPatchesConfig
from pictura.objectives.masked_words import MaskedWordsConfig
from pictura.objectives.matching import MatchingConfig
from pictura.objectives.questions import QuestionsConfig
from pictura.objectives.ranking import RankingConfig
from pictura.objectives.rdrop import RDrop
from pictura.objectives.simclr import SimCLRConfig
from pictura.objectives.statements import StatementsConfig

START, MASK, END, BATCH = 1, 62, 63, 8
VIT = ViTConfig(width=32, depth=2, heads=2, patch_size=8, image_size=16)
ANSWERS = ("yes", "no", "two")


class Given(CLIPObjective):
    """CLIP's, of which the batch gives both draws: dropout masks of two processes are never those of one."""

    def embed(self, model: nn.Module, batch: Batch) -> Features:
        found = super().embed(model, batch)
        return {k: F.normalize(torch.cat([v + batch["noise"][:, i] for i in (0, 1)]), dim=1) for k, v in found.items()}


class OfManySizes(Task):
    """A ViLT's, whose pictures need not be of one size."""

    def embed(self, batch: Batch) -> Features:
        return super().embed({**batch, "image": batch["left"]})


def clip() -> nn.Module:
    text = TextTransformerConfig(width=32, depth=1, heads=2, vocab_size=END + 1, context_length=8)
    return CLIPConfig(image=VIT, text=text, embed_dim=16, logit_scale=2.3).build()


def vilt(*tasks: JointTask) -> ViLT:
    """Its weights larger than at the start of a training, so that all gradients are large enough to be compared."""
    text = WordsConfig(vocab_size=END + 1, context_length=8, end_token=END, mask_token=MASK)
    model = ViLTConfig(image=VIT, text=text, tasks=tasks, answers=ANSWERS if "answers" in tasks else ()).build()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def built(name: str) -> Task:
    """rdrop; simclr, with batch norm in its head; slip: CLIP and a SimCLR without a head; and what ViLT is trained for:
    masked words and matching together, masked patches and ranking, questions, statements; detection, with a teacher."""
    torch.manual_seed(0)
    contrast, objectives = CLIPObjectiveConfig(), dict[str, Objective]()
    if name == "rdrop":
        model, objectives = clip(), {"rdrop": RDrop(3.0, Given(contrast))}
    elif name == "simclr":
        model = clip()
        objectives = {"clip": contrast.build(), "simclr": SimCLRConfig(head_width=24, head_out=8).build()}
    elif name == "slip":
        model, objectives = clip(), {"clip": contrast.build(), "simclr": SimCLRConfig(head=0, temperature=0.5).build()}
    elif name == "words and matching":
        model = vilt("words", "matching")
        objectives = {"words": MaskedWordsConfig(share=0.4).build(), "matching": MatchingConfig(alignment=0.1).build()}
    elif name == "patches and ranking":
        model = vilt("patches", "rank")
        patches = MaskedPatchesConfig(share=0.4).build()
        objectives = {"patches": patches, "ranking": RankingConfig(negatives=2).build()}
    elif name == "questions":
        model, objectives = vilt("answers"), {"questions": QuestionsConfig().build()}
    elif name == "detection":
        model = detector()
        objectives = {"found": DetectionConfig(regions=8, anchors=16).build()}
        objectives["taught"] = DistillationConfig(regions=2).build()
    else:
        model, objectives = vilt("pair"), {"statements": StatementsConfig().build()}
    make = OfManySizes if isinstance(model, ViLT) else Task
    return make(model, objectives, dict.fromkeys(objectives, 0.7))


JOINT = ("words and matching", "patches and ranking", "questions", "statements")
NORMED = ("simclr", "detection")  # whose batch norms gradient caching refuses
TASKS = ("rdrop", "simclr", "slip", "detection", *JOINT)
CASES = [(name, mode, cached) for name in TASKS for mode in ("ddp", "fsdp") for cached in (False, name not in NORMED)]
CASES = sorted(set(CASES))


def batch(rows: slice = slice(None)) -> dict[str, Any]:
    """Eight examples of whatever the tasks read: pictures, captions, noise for their features, pairs of pictures of
    many sizes, sentences of three to eight tokens, each a word, and answers, one of them unknown."""
    generator = torch.Generator().manual_seed(1)
    text, other, question = (sentences(generator) for _ in range(3))
    noise: Tensor = 0.2 * torch.randn(BATCH, 2, 16, generator=generator)
    said = [{"yes": 1.0}, {"no": 0.6, "yes": 0.3}, {"two": 0.9}, {"a few": 1.0}, {}, {"no": 1.0}, {"two": 0.3}, {}]
    whole = {
        "image": torch.randint(0, 256, (BATCH, 3, 16, 16), generator=generator, dtype=torch.uint8),
        "text": text,
        "seed": list(range(70, 78)),
        "noise": noise,
        "left": pictures(generator, [(16, 8 * (1 + i % 3)) for i in range(BATCH)]),
        "right": pictures(generator, [(8 * (1 + i % 2), 24) for i in range(BATCH)]),
        "words": torch.arange(8) * ((text != START) & (text != END) & (text > 0)),
        "other": torch.stack([other, question.flip(0)], 1),
        "question": question,
        "statement": question.flip(0),
        "answers": said,
        "label": torch.tensor([0, 1, 1, 1, 0, 1, 0, 0]),
    } | regions()
    return {key: value[rows] for key, value in whole.items()}


def detector() -> nn.Module:
    """With two heads and masks; all of its norms count the examples of all processes."""
    image = ResNetConfig(block="basic", layers=(1, 1, 1, 1), width=4, image_size=32, zero_init=False)
    return ViLDConfig(
        image=image, width=8, embed_dim=6, head=HeadConfig(width=12, convs=1, depth=1), ensemble=True, masks=True,
        anchors=2, proposals=6, class_names=ANSWERS, logit_scale=1.0,
    ).build()  # fmt: skip


def regions() -> dict[str, list[Any]]:
    """Boxes of things; the last four pictures, those of the second process, have none."""
    rng = np.random.default_rng(2)
    out: dict[str, list[Any]] = {key: [] for key in ("boxes", "labels", "crowd", "masks", "regions", "region_vectors")}
    for i in range(BATCH):
        k = 1 + i % 2 if i < BATCH // 2 else 0
        corner = rng.uniform(0, 8, (k + 3, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(4, 8, (k + 3, 2))], 1).astype(np.float32)
        rows = boxes[:k], rng.integers(0, 3, k), np.zeros(k, bool), rng.random((k, 16, 16)) < 0.5
        for key, value in zip(out, (*rows, boxes[k:], rng.normal(size=(3, 6))), strict=True):
            out[key].append(value)
    return out


def sentences(generator: torch.Generator) -> Tensor:
    """[b t]: start, tokens, end, then zeros."""
    ids = torch.randint(START + 1, MASK, (BATCH, 8), generator=generator)
    ids[:, 0] = START
    last = torch.randint(2, 8, (BATCH, 1), generator=generator)
    places = torch.arange(8)
    return ids.masked_fill(places == last, END).masked_fill(places > last, 0)


def pictures(generator: torch.Generator, sides: list[tuple[int, int]]) -> list[Tensor]:
    return [torch.randint(0, 256, (3, *side), generator=generator, dtype=torch.uint8) for side in sides]
