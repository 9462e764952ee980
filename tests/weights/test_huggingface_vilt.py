"""Against transformers' own classes, with random weights: single pictures, batches of many sizes, all heads."""

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import ViltConfig

from pictura.models.vilt import JointTask, ViLT
from pictura.weights.huggingface_vilt import CLASSES, config_of, from_pictura, json_of, to_pictura
from tests.weights.peers import stir

SIZES = [(64, 64), (64, 96), (32, 64), (80, 48), (64, 64)]  # pixels y x, patches of 16
TEXTS = [[2, 7, 8, 9, 3], [2, 5, 3], [2, 6, 6, 6, 6, 6, 3], [2, 3], [2, 4, 3]]
OPTIONS: dict[str, Any] = {
    "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 96, "image_size": 64,
    "patch_size": 16, "vocab_size": 60, "max_position_embeddings": 9, "tie_word_embeddings": False,
}  # fmt: skip


def theirs(head: JointTask | None) -> Any:
    options = OPTIONS | {"id2label": {k: f"answer {k}" for k in range(2 if head == "pair" else 7)}}
    if head == "pair":
        options |= {"num_images": 2, "modality_type_vocab_size": 3}
    torch.manual_seed(0)
    return stir(getattr(transformers, CLASSES[head] if head else "ViltModel")(ViltConfig(**options)).eval(), 1)


def ours(peer: Any) -> ViLT:
    state = to_pictura(peer.state_dict())
    config = config_of(
        state, peer.config.to_dict() | {"id2label": {str(k): v for k, v in peer.config.id2label.items()}}
    )
    model = ViLT(load_end(config)).eval()
    model.load_state_dict(state)
    return model


def load_end(config: Any) -> Any:
    from dataclasses import replace

    return replace(config, text=replace(config.text, end_token=3))


def pictures(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, y, x, generator=generator) for y, x in SIZES]


def padded(images: list[Tensor]) -> tuple[Tensor, Tensor]:
    """As their processor pads: to the right and below, with a mask of pixels."""
    height, width = max(i.shape[1] for i in images), max(i.shape[2] for i in images)
    pixels, mask = torch.zeros(len(images), 3, height, width), torch.zeros(len(images), height, width, dtype=torch.long)
    for i, image in enumerate(images):
        pixels[i, :, : image.shape[1], : image.shape[2]] = image
        mask[i, : image.shape[1], : image.shape[2]] = 1
    return pixels, mask


def texts() -> tuple[Tensor, Tensor]:
    ids = torch.zeros(len(TEXTS), 7, dtype=torch.long)
    for row, text in zip(ids, TEXTS, strict=True):
        row[: len(text)] = torch.tensor(text)
    return ids, (torch.arange(7) < torch.tensor([[len(text)] for text in TEXTS])).long()


def close(found: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_pooled_and_text_tokens_of_pictures_of_many_sizes() -> None:
    peer = theirs(None)
    model, images = ours(peer), pictures()
    ids, inside = texts()
    pixels, pixel_mask = padded(images)
    right = peer(input_ids=ids, attention_mask=inside, pixel_values=pixels, pixel_mask=pixel_mask)
    close(model.read(images, ids), right.pooler_output)
    joint = model(images, ids)
    close(joint.words, right.last_hidden_state[:, :7][inside.bool()])
    assert joint.grids == [(y // 16, x // 16) for y, x in SIZES]


@torch.no_grad()
def test_one_picture_alone_gives_what_it_gives_among_others() -> None:
    peer = theirs(None)
    model, images = ours(peer), pictures()
    ids, inside = texts()
    together = model.read(images, ids)
    for i, image in enumerate(images):
        length = int(inside[i].sum())
        alone = peer(input_ids=ids[i : i + 1, :length], pixel_values=image[None]).pooler_output
        close(model.read([image], ids[i : i + 1, :length]), alone)
        close(together[i : i + 1], alone)


@torch.no_grad()
@pytest.mark.parametrize("head", ["words", "answers", "rank"])
def test_heads(head: JointTask) -> None:
    peer = theirs(head)
    model, images = ours(peer), pictures()
    ids, inside = texts()
    pixels, pixel_mask = padded(images)
    right = peer(input_ids=ids, attention_mask=inside, pixel_values=pixels, pixel_mask=pixel_mask).logits
    if head == "words":
        close(model.heads["words"](model(images, ids).words), right[inside.bool()])
    else:
        close(model.answer(images, ids) if head == "answers" else model.match(images, ids)[:, None], right)


@torch.no_grad()
def test_pairs_of_pictures() -> None:
    peer = theirs("pair")
    model, left, right = ours(peer), pictures(0), pictures(1)
    ids, inside = texts()
    both = [torch.stack(pair) for pair in zip(padded(left)[0], padded(right)[0], strict=True)]
    masks = padded(left)[1][:, None].repeat(1, 2, 1, 1)
    wanted = peer(input_ids=ids, attention_mask=inside, pixel_values=torch.stack(both), pixel_mask=masks).logits
    close(model.compare(left, right, ids), wanted)


@pytest.mark.parametrize("head", [None, *CLASSES])
def test_written_and_read_again(head: JointTask | None) -> None:
    peer = theirs(head)
    model = ours(peer)
    heads = (head,) if head else ()
    written = from_pictura(model.state_dict(), heads)
    assert {k: v.shape for k, v in written.items()} == {k: v.shape for k, v in peer.state_dict().items()}
    again = to_pictura(written)
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())
    twin = type(peer)(ViltConfig(**json_of(model.config))).eval()
    twin.load_state_dict(written)
    ids, inside = texts()
    pixels, mask = padded(pictures())
    if head == "pair":
        pixels, mask = torch.stack([pixels, pixels], 1), torch.stack([mask, mask], 1)
    given = {"input_ids": ids, "attention_mask": inside, "pixel_values": pixels, "pixel_mask": mask}
    with torch.no_grad():
        close(twin(**given)[0 if head else 1], peer(**given)[0 if head else 1])
