"""ViLT's released checkpoints, and folders of transformers, opened and written as they are."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import ViltConfig, ViltImageProcessor

from pictura.config import load
from pictura.data.wordpiece import WordPieceTokenizerConfig
from pictura.models.vilt import JointTask, ViLT, ViLTConfig
from pictura.models.vilt_parts import WordsConfig
from pictura.models.vit import ViTConfig
from pictura.weights.convert import convert
from pictura.weights.family import Found
from pictura.weights.folder import save_folder
from pictura.weights.foreign import load_model
from pictura.weights.huggingface_vilt import CLASSES
from pictura.weights.vilt import Released
from tests.weights.peers import stir

ALL: tuple[JointTask, ...] = ("words", "matching", "rank", "answers", "pair")
CAPTIONS = ["a red dog runs near the old house", "two small cats sleep on a blue chair by the window"]


def model_of(tasks: tuple[JointTask, ...], **changes: Any) -> ViLT:
    image = ViTConfig(image_size=64, patch_size=16, width=64, depth=2, heads=1, eps=1e-6)
    tokenizer = tokenizer_of()
    text = WordsConfig(
        vocab_size=tokenizer.vocab_size, context_length=12, end_token=tokenizer.end, mask_token=tokenizer.mask
    )
    answers = ("yes", "no", "two") if "answers" in tasks else ()
    model = replace(ViLTConfig(image=image, text=text, tasks=tasks, answers=answers), **changes).build()
    return stir(model, 2).eval()  # type: ignore[return-value]


def tokenizer_of() -> Any:
    return WordPieceTokenizerConfig(vocab_size=150, context_length=12).build(lambda: CAPTIONS)


def seen(model: nn.Module, text: Tensor) -> Tensor:
    assert isinstance(model, ViLT)
    image = torch.randn(len(text), 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.read(image, text)


def test_the_released_layout_keeps_every_head() -> None:
    model = model_of(ALL)
    written = Released().write(model.config, model.state_dict())
    assert {
        "itm_score.fc.weight",
        "mlm_score.bias",
        "rank_output.bias",
        "vqa_classifier.3.weight",
    } <= written.state.keys()
    assert {"nlvr2_classifier.0.weight", "transformer.blocks.1.attn.qkv.bias"} <= written.state.keys()
    config, state = Released().read(Found(file=Path("vilt.ckpt"), state=written.state))
    assert isinstance(config, ViLTConfig) and config.tasks == ALL and config.answers == ("0", "1", "2")
    assert (config.vit.width, config.vit.depth, config.vit.heads, config.vit.image_size) == (64, 2, 1, 64)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_the_first_segment_is_part_of_the_positions_and_masked_patches_are_passed_over() -> None:
    model = model_of(("words", "matching"))
    written = Released().write(model.config, model.state_dict())
    segments = torch.randn(2, 64)
    strange = {"mpp_score.decoder.weight": torch.ones(3, 3), "text_embeddings.position_ids": torch.arange(12)[None]}
    given = written.state | strange | {"text_embeddings.token_type_embeddings.weight": segments}
    _, state = Released().read(Found(file=Path("vilt.ckpt"), state=given))
    torch.testing.assert_close(state["text.pos_embed"], model.state_dict()["text.pos_embed"] + segments[0])


@pytest.mark.parametrize("beside", ["tokenizer.json", "vocab.txt"])
def test_a_released_checkpoint_is_opened(beside: str, tmp_path: Path) -> None:
    """As its authors saved it: a pickle of torch, the weights under `state_dict`."""
    model, tokenizer = model_of(("words", "matching", "answers")), tokenizer_of()
    written = Released().write(model.config, model.state_dict())
    torch.save({"state_dict": written.state, "epoch": 3}, tmp_path / "vilt_200k_mlm_itm.ckpt")
    if beside == "tokenizer.json":
        tokenizer.save(tmp_path)
    else:
        numbers = tokenizer._rust.get_vocab()
        (tmp_path / beside).write_text("\n".join(sorted(numbers, key=numbers.__getitem__)))
    again, words = load_model(tmp_path / "vilt_200k_mlm_itm.ckpt")
    assert words is not None and isinstance(again, ViLT)
    assert (again.config.text.end_token, again.config.text.mask_token) == (tokenizer.end, tokenizer.mask)
    ids = words(CAPTIONS)
    assert torch.equal(ids, tokenizer(CAPTIONS))
    torch.testing.assert_close(seen(again, ids), seen(model, ids))


@pytest.mark.parametrize("task", [None, *CLASSES])
def test_folders_of_transformers_both_ways(task: JointTask | None, tmp_path: Path) -> None:
    """Written by us and opened by theirs; written by theirs and opened by us; the same numbers."""
    tasks = (task,) if task else ()
    model, tokenizer = model_of(tasks), tokenizer_of()
    save_folder(tmp_path / "released", model, tokenizer)
    with pytest.raises(ValueError, match=r"no place for text\.eps: 1e-12 \(there it is 1e-06\)"):
        convert(tmp_path / "released", tmp_path / "theirs", "huggingface")
    model = model_of(tasks, text=replace(model.config.text, eps=1e-6))
    save_folder(tmp_path / "ours", model, tokenizer)
    convert(tmp_path / "ours", tmp_path / "theirs", "huggingface")
    theirs: Any = (
        getattr(transformers, CLASSES[task] if task else "ViltModel").from_pretrained(tmp_path / "theirs").eval()
    )
    processor = ViltImageProcessor.from_pretrained(tmp_path / "theirs")
    assert (processor.size["shortest_edge"], processor.size_divisor) == (64, 16)
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    ids = tokenizer(CAPTIONS)
    given = words(CAPTIONS, padding=True, truncation=True, return_tensors="pt")
    assert torch.equal(given["input_ids"], ids)
    body = theirs.vilt if task else theirs
    image = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        right = body(input_ids=ids, attention_mask=given["attention_mask"], pixel_values=image).pooler_output
    torch.testing.assert_close(seen(model, ids), right, rtol=1e-5, atol=1e-5)
    theirs.save_pretrained(tmp_path / "again")
    processor.save_pretrained(tmp_path / "again")
    tokenizer.save(tmp_path / "again")
    again, _ = load_model(tmp_path / "again")
    assert again.config == model.config
    torch.testing.assert_close(seen(again, ids), right, rtol=1e-5, atol=1e-5)


def test_what_transformers_has_no_class_for_is_refused(tmp_path: Path) -> None:
    save_folder(tmp_path / "ours", model_of(("words", "matching")), tokenizer_of())
    with pytest.raises(ValueError, match=r"tasks: words, matching: .* one head each, none of them matching; --to vilt"):
        convert(tmp_path / "ours", tmp_path / "theirs", "huggingface")
    save_folder(
        tmp_path / "plain",
        model_of((), image=ViTConfig(image_size=64, patch_size=16, width=64, depth=2, heads=1, pool="average")),
        tokenizer_of(),
    )
    with pytest.raises(ValueError, match=r"image.pool: average: .* its ViT is as published"):
        convert(tmp_path / "plain", tmp_path / "theirs", "vilt")


@pytest.mark.parametrize("to", ["huggingface", "vilt"])
def test_a_longest_side_goes_where_it_is_the_usual_one(to: str, tmp_path: Path) -> None:
    """Neither layout has a place for one; theirs is 1333 / 800 of the shorter side, 106 of 64."""
    text = replace(model_of(()).config.text, eps=1e-6 if to == "huggingface" else 1e-12)
    save_folder(tmp_path / "wide", model_of((), longest=128, text=text), tokenizer_of())
    with pytest.raises(ValueError, match=rf"^{to} has no place for longest: 128 \(there it is 106\)$"):
        convert(tmp_path / "wide", tmp_path / "theirs", to)
    assert not (tmp_path / "theirs").exists()
    convert(tmp_path / "wide", tmp_path / "given up", to, ["longest=null"])
    save_folder(tmp_path / "usual", model_of((), longest=106, text=text), tokenizer_of())
    assert not convert(tmp_path / "usual", tmp_path / "theirs", to).notes
    assert (tmp_path / "theirs" / "config.json").exists() == (to == "huggingface")


def test_a_longest_side_below_the_shorter_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"longest: 48 is below image\.image_size, the shorter side"):
        model_of((), longest=48)


@pytest.mark.parametrize("to", ["vilt", "huggingface"])
@pytest.mark.parametrize("tasks", [("patches",), ("words", "matching", "patches")])
def test_no_other_project_has_a_head_for_masked_patches(tasks: tuple[JointTask, ...], to: str, tmp_path: Path) -> None:
    save_folder(tmp_path / "ours", model_of(tasks), tokenizer_of())
    with pytest.raises(ValueError, match=rf"tasks: {', '.join(tasks)}: .* has no masked patches; --to pictura keeps"):
        convert(tmp_path / "ours", tmp_path / "theirs", to)
    assert not (tmp_path / "theirs").exists()
    convert(tmp_path / "ours", tmp_path / "again", "pictura")
    assert load_model(tmp_path / "again")[0].config == load_model(tmp_path / "ours")[0].config


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    model = model_of(("words",))
    written = Released().write(model.config, model.state_dict())
    for change, complaint in (
        ({"strange.weight": torch.ones(2)}, "no place for strange.weight"),
        ({"pooler.dense.bias": None}, "needs pooler.dense.bias, which is not there"),
        ({"text_embeddings.token_type_embeddings.weight": None}, "needs text_embeddings.token_type_embeddings.weight"),
        ({"text_embeddings.token_type_embeddings.weight": torch.ones(2, 9)}, "not of the shapes of a ViLT"),
        ({"text_embeddings.token_type_embeddings.weight": torch.ones(0, 64)}, "not of the shapes of a ViLT"),
        ({"transformer.blocks.0.mlp.fc1.weight": None}, "tensors are missing"),
        ({"transformer.pos_embed": torch.ones(5)}, "not of the shapes of a ViLT"),
        ({"vqa_classifier.3.bias": torch.tensor(1.0)}, "needs vqa_classifier"),
    ):
        state = {name: tensor for name, tensor in (written.state | change).items() if tensor is not None}
        save_file(state, tmp_path / "vilt.safetensors")
        with pytest.raises(ValueError, match=complaint):
            load_model(tmp_path / "vilt.safetensors")


def test_their_tied_words_are_read(tmp_path: Path) -> None:
    """As transformers makes and saves its masked language model: one tensor for both."""
    tokenizer = tokenizer_of()
    config = ViltConfig(
        hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=128, image_size=64, patch_size=16,
        vocab_size=tokenizer.vocab_size, max_position_embeddings=12,
    )  # fmt: skip
    transformers.ViltForMaskedLM(config).save_pretrained(tmp_path)
    ViltImageProcessor(size={"shortest_edge": 64}, size_divisor=16).save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    model, _ = load_model(tmp_path)
    state = model.state_dict()
    assert torch.equal(state["heads.words.decoder.weight"], state["text.word_embed.weight"])


def test_a_processor_that_prepares_other_pictures(tmp_path: Path) -> None:
    config = ViltConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=1, image_size=64, patch_size=16)
    transformers.ViltModel(config).save_pretrained(tmp_path)
    ViltImageProcessor(size={"shortest_edge": 64}, size_divisor=32).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="size_divisor: 32, but the model's is 16"):
        load_model(tmp_path)


def test_its_folder_is_read_again(tmp_path: Path) -> None:
    model, tokenizer = model_of(ALL), tokenizer_of()
    save_folder(tmp_path / "model", model, tokenizer)
    again, words = load_model(tmp_path / "model")
    assert again.config == model.config and words is not None and words.mask == model.config.text.mask_token
    assert load(type(model.config), {"size": "B/32"}).vit.image_size == 384
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert stored.keys() == model.state_dict().keys()
