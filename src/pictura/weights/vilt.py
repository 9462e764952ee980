"""ViLT's released checkpoints (github.com/dandelin/ViLT): one model with every head that its training had.

Of BERT's two kinds of segment it uses the first, for every token: that is part of our positions, and comes back as
zeros. The scores of its masked patches, which the released training cannot compute, are passed over.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import Tensor

from pictura.config import load, to_dict
from pictura.layers.stems import PatchStemConfig
from pictura.models.pictures import PictureModelConfig
from pictura.models.vilt import JointTask, ViLTConfig
from pictura.weights.family import Family, Found, State, Written
from pictura.weights.layout import Layout, blocks, depth_of, grid_of, modules

WHOSE = "ViLT's released layout"
MARK = "text_embeddings.word_embeddings.weight"
SEGMENTS = "text_embeddings.token_type_embeddings.weight"
PASSED_OVER = ("mpp_score.", "text_embeddings.position_ids")
HEADS: Mapping[JointTask, Mapping[str, str]] = {
    "words": modules({"dense": "mlm_score.transform.dense", "norm": "mlm_score.transform.LayerNorm"})
    | {"decoder.weight": "mlm_score.decoder.weight", "decoder.bias": "mlm_score.bias"},
    "matching": {"weight": "itm_score.fc.weight", "bias": "itm_score.fc.bias"},
    "rank": {"weight": "rank_output.weight", "bias": "rank_output.bias"},
    "answers": modules({"fc1": "vqa_classifier.0", "norm": "vqa_classifier.1", "fc2": "vqa_classifier.3"}),
    "pair": modules({"fc1": "nlvr2_classifier.0", "norm": "nlvr2_classifier.1", "fc2": "nlvr2_classifier.3"}),
}
BODY = (
    {
        "type_embed": "token_type_embeddings.weight",
        "text.word_embed.weight": MARK,
        "text.pos_embed": "text_embeddings.position_embeddings.weight",
        "image.cls_token": "transformer.cls_token",
        "image.pos_embed": "transformer.pos_embed",
    }
    | modules(
        {
            "text.norm": "text_embeddings.LayerNorm",
            "image.patch_embed.proj": "transformer.patch_embed.proj",
            "image.norm": "transformer.norm",
            "pooler": "pooler.dense",
        }
    )
    | blocks(
        "image.blocks",
        "transformer.blocks",
        modules({name: name for name in ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}),
    )
)


class Released(Family):
    """Weights alone: everything else is as in the paper, and a question's answers are known by number only."""

    name: ClassVar[str] = "vilt"

    def knows(self, found: Found) -> bool:
        return {MARK, "transformer.patch_embed.proj.weight"} <= found.state.keys()

    def read(self, found: Found) -> tuple[PictureModelConfig, dict[str, Tensor]]:
        state = {name: tensor for name, tensor in found.state.items() if not name.startswith(PASSED_OVER)}
        segments = state.pop(SEGMENTS, None)
        if segments is None:
            raise ValueError(f"{WHOSE} needs {SEGMENTS}, which is not there")
        heads = {task: names for task, names in HEADS.items() if any(name in state for name in names.values())}
        ours = layout(heads).read(state)
        with shaped(WHOSE):
            ours["text.pos_embed"] = ours["text.pos_embed"] + segments[0]
            return config_of(ours, tuple(heads)), ours

    def write(self, config: PictureModelConfig, state: State) -> Written:
        if not isinstance(config, ViLTConfig):
            raise ValueError(f"kind: {config.kind}: {WHOSE} has vilt alone")  # type: ignore[attr-defined]
        check_published(config, WHOSE)
        out = layout({task: HEADS[task] for task in config.tasks}).write(state)
        out[SEGMENTS] = out[MARK].new_zeros(2, out[MARK].shape[1])
        return Written(file="vilt.safetensors", state=out)


@contextmanager
def shaped(whose: str) -> Iterator[None]:
    """Tensors of strange shapes, or too few of them, are a ValueError."""
    try:
        yield
    except (RuntimeError, IndexError, KeyError, TypeError, ArithmeticError) as error:
        raise ValueError(f"{whose}: tensors are missing, or not of the shapes of a ViLT ({error})") from error


def layout(heads: Mapping[JointTask, Mapping[str, str]]) -> Layout:
    """Names with these heads."""
    names = {f"heads.{task}.{ours}": theirs for task, head in heads.items() for ours, theirs in head.items()}
    return Layout(whose=WHOSE, ours="our ViLT", names=BODY | names, leading={})


def config_of(state: State, tasks: tuple[JointTask, ...]) -> ViLTConfig:
    """What shapes give away, and the released code's epsilon. A head for each 64 of the width, as in its ViT."""
    width, _, patch_size, _ = state["image.patch_embed.proj.weight"].shape
    answers = len(state["heads.answers.fc2.bias"]) if "answers" in tasks else 0
    image: dict[str, Any] = {
        "kind": "vit",
        "image_size": grid_of(state, "image.pos_embed") * patch_size,
        "patch_size": patch_size,
        "width": width,
        "depth": depth_of(state, "image.blocks"),
        "heads": max(1, width // 64),
        "mlp_ratio": state["image.blocks.0.mlp.fc1.weight"].shape[0] / width,
        "eps": 1e-6,
    }
    found = {"image": image, "text": words_of(state), "tasks": list(tasks), "answers": [f"{k}" for k in range(answers)]}
    return load(ViLTConfig, found)


def words_of(state: State) -> dict[str, Any]:
    """Vocabulary and length from shapes; where the vocabulary can be BERT's, its end and its mask."""
    (vocab_size, _), (length, _) = state["text.word_embed.weight"].shape, state["text.pos_embed"].shape
    berts = {} if vocab_size > 103 else {"end_token": None, "mask_token": None}
    return {"vocab_size": vocab_size, "context_length": length} | berts


def check_published(config: ViLTConfig, whose: str) -> None:
    """ValueError where its ViT is not of the form that was published, or where it has a head for masked patches."""
    if "patches" in config.tasks:
        raise ValueError(f"tasks: {', '.join(config.tasks)}: {whose} has no masked patches; --to pictura keeps all")
    for key, wanted in (("pool", "class"), ("pre_norm", False), ("stem", PatchStemConfig(bias=True))):
        if (value := getattr(config.vit, key)) != wanted:
            shown = to_dict(value) if key == "stem" else value
            raise ValueError(f"image.{key}: {shown}: {whose} cannot be that; its ViT is as published")
