import copy
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pictura.data.decode import decode
from pictura.data.text import Tokenizer
from pictura.data.views import CropConfig
from pictura.evaluation.embed import Embedder, Pictures, by_token_budget, evaluating
from pictura.evaluation.ready import Pictura
from pictura.models.classifier import Classifier, ClassifierConfig
from pictura.models.clip import CLIP
from pictura.models.clip_resnet import CLIPResNetConfig
from pictura.models.mixer import MixerConfig
from pictura.models.vit import ViTConfig
from tests.evaluation.conftest import WORDS, Made


def one_by_one(embedder: Embedder, texts: list[str]) -> torch.Tensor:
    assert embedder.tokenizer is not None
    model = embedder.model.eval()
    with torch.no_grad():
        rows = [model.encode_text(embedder.tokenizer([text], model.config.text.context_length))[0] for text in texts]
    return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


def test_texts_in_batches_are_those_one_by_one(embedder: Embedder) -> None:
    words = WORDS.split()
    texts = [" ".join(words[: 1 + i * 7 % 13]) for i in range(40)] + ["dog " * 50, "", "a"]
    out = embedder.texts(texts)
    assert out.dtype == torch.float32 and out.device.type == "cpu"
    torch.testing.assert_close(out, one_by_one(embedder, texts), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(len(texts)))


def test_equal_texts_have_equal_vectors_bit_for_bit(embedder: Embedder) -> None:
    texts = ["a dog", "the old red house near the tree", "a dog", "a cat", "a dog"]
    out = embedder.texts(texts)
    assert torch.equal(out[0], out[2]) and torch.equal(out[0], out[4])
    assert not torch.equal(out[0], out[3])


def test_texts_are_read_by_length_and_not_by_context(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, int]] = []
    encode = embedder.model.encode_text
    monkeypatch.setattr(embedder.model, "encode_text", lambda ids: shapes.append(tuple(ids.shape)) or encode(ids))
    embedder.texts([f"{'dog ' * length}{i}" for i in range(10) for length in (1, 5, 9)])
    assert sum(rows for rows, _ in shapes) == 30
    assert [longest for _, longest in shapes] == sorted(longest for _, longest in shapes)
    assert len({longest for _, longest in shapes}) > 1
    assert all(rows * longest <= embedder.batch_size * 32 for rows, longest in shapes)


@settings(deadline=None)
@given(st.lists(st.integers(1, 77), max_size=60).map(sorted), st.integers(1, 200))
def test_token_batches_cover_everything_once_within_the_budget(lengths: list[int], budget: int) -> None:
    slices = list(by_token_budget(lengths, budget))
    assert [i for piece in slices for i in range(piece.start, piece.stop)] == list(range(len(lengths)))
    for piece in slices:
        rows = piece.stop - piece.start
        assert rows == 1 or rows * lengths[piece.stop - 1] <= budget


def test_pictures_in_batches_are_those_one_by_one(embedder: Embedder, model: CLIP) -> None:
    source = Made(11)
    view = CropConfig(image_size=32, resize="shortest", interpolation="bicubic").build()
    random = np.random.default_rng(0)
    model.eval()
    with torch.no_grad():
        pixels = [view(Image.fromarray(np.asarray(source[i]["image"])), random) for i in range(11)]
        rows = torch.cat([model.encode_image(picture[None]) for picture in pixels])
    out = embedder.images(source)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, torch.nn.functional.normalize(rows, dim=-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_order_and_gaps(model: CLIP, tokenizer: Tokenizer, workers: int) -> None:
    embedder = Embedder(model, tokenizer, batch_size=4, workers=workers)
    whole = embedder.images(Made(11))
    indices = torch.cat([batch["index"] for _, batch in embedder.walk(Made(11, broken=[0, 6]))])
    assert indices.tolist() == [1, 2, 3, 4, 5, 7, 8, 9, 10]
    torch.testing.assert_close(embedder.images(Made(11, broken=[0, 6])), whole[indices], atol=1e-6, rtol=0)
    assert embedder.bad.rows() == [("made/0", "made to be broken"), ("made/6", "made to be broken")]


def test_paths_bytes_pil_and_arrays_are_the_same_picture(embedder: Embedder, tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    path = tmp_path / "x.png"
    Image.fromarray(array).save(path)
    out = embedder.images([path, str(path), path.read_bytes(), Image.open(path), array])
    for row in out[1:]:
        torch.testing.assert_close(row, out[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "I;16", "CMYK", "F"])
def test_a_pil_image_is_read_like_its_file(mode: str, tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (20, 20), dtype=np.uint8)
    image = Image.fromarray(array).convert("L" if mode in ("I;16", "F") else "RGB")
    image = Image.fromarray(array.astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(array.T.copy()))
    image.save(tmp_path / "x.tif")
    from_file = decode((tmp_path / "x.tif").read_bytes())
    held = Pictures([image])[0]["image"]
    np.testing.assert_array_equal(np.asarray(decode(held)), np.asarray(from_file))


def test_a_pil_image_stands_upright() -> None:
    image = Image.new("RGB", (20, 10), "red")
    image.getexif()[0x0112] = 6
    held = Pictures([image])[0]["image"]
    assert isinstance(held, np.ndarray)
    assert held.shape == (20, 10, 3)


@pytest.mark.parametrize("content", [None, b"", b"<html>"])
def test_a_bad_picture_of_a_list_is_named(embedder: Embedder, tmp_path: Path, content: bytes | None) -> None:
    good, path = tmp_path / "good.png", tmp_path / "bad.jpg"
    Image.new("RGB", (9, 9)).save(good)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.jpg"):
        embedder.images([good, path])
    with pytest.raises(ValueError, match=r"bad\.jpg"):
        embedder.images([path])
    assert len(embedder.bad) == 0


def test_nothing_in_nothing_out(embedder: Embedder) -> None:
    assert embedder.texts([]).shape == (0, 24)
    assert embedder.images([]).shape == (0, 24)


def test_the_model_is_left_as_it_was(embedder: Embedder, model: CLIP) -> None:
    model.train()
    model.text.eval()
    before = {name: module.training for name, module in model.named_modules()}
    first, second = embedder.images(Made(3)), embedder.images(Made(3))
    assert torch.equal(first, second)  # dropout is off
    assert {name: module.training for name, module in model.named_modules()} == before
    with pytest.raises(RuntimeError), evaluating(model):
        raise RuntimeError
    assert {name: module.training for name, module in model.named_modules()} == before
    model.eval()


def test_results_can_be_trained_on(embedder: Embedder) -> None:
    weight = torch.ones(24, requires_grad=True)
    ((embedder.images(Made(3)) + embedder.texts(["a", "b", "c"])) @ weight).sum().backward()
    assert weight.grad is not None


def test_the_models_precision_decides(model: CLIP, tokenizer: Tokenizer) -> None:
    half = Embedder(copy.deepcopy(model).to(torch.bfloat16), tokenizer, batch_size=4)
    whole = Embedder(model, tokenizer, batch_size=4)
    assert half.images(Made(3)).dtype == torch.float32
    torch.testing.assert_close(half.images(Made(3)), whole.images(Made(3)), atol=0.05, rtol=0)
    torch.testing.assert_close(half.texts(["a dog"]), whole.texts(["a dog"]), atol=0.05, rtol=0)


def test_progress_is_told(model: CLIP, tokenizer: Tokenizer) -> None:
    told: list[tuple[str, int, int]] = []
    embedder = Embedder(model, tokenizer, batch_size=4, progress=lambda *what: told.append(what))
    embedder.images(Made(6))
    embedder.texts(["a", "b", "a"])
    assert told == [("pictures", 4, 6), ("pictures", 6, 6), ("texts", 2, 2)]


def test_without_a_tokenizer_texts_are_refused(model: CLIP) -> None:
    with pytest.raises(ValueError, match="no tokenizer"):
        Embedder(model, None).texts(["a"])


# A classifier: scores of its head, outputs of its layers


def made(tower: object = None, classes: int = 3, **changes: object) -> Classifier:
    """Random, its head too."""
    torch.manual_seed(0)
    tower = tower or ViTConfig(image_size=32, patch_size=8, width=32, depth=3, heads=2)
    model = ClassifierConfig(image=tower, classes=classes, **changes).build()  # type: ignore[arg-type]
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def pixels_of(model: Classifier, source: Made) -> torch.Tensor:
    view = Embedder(model, None).view
    return torch.stack([view(np.asarray(source[i]["image"]), np.random.default_rng(0)) for i in range(len(source))])


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    return pixels / 127.5 - 1


@pytest.mark.parametrize("workers", [0, 2])
def test_scores_in_batches_are_those_one_by_one(workers: int) -> None:
    model = made()
    embedder = Embedder(model, None, batch_size=4, workers=workers)
    with torch.no_grad():
        expected = torch.cat([model.classify(picture[None]) for picture in pixels_of(model, Made(11))])
    parts = list(embedder.walk(Made(11, broken=[0, 6]), "scores"))
    indices = torch.cat([batch["index"] for _, batch in parts])
    assert indices.tolist() == [1, 2, 3, 4, 5, 7, 8, 9, 10]
    torch.testing.assert_close(torch.cat([rows for rows, _ in parts]), expected[indices], atol=1e-4, rtol=1e-4)
    assert embedder.images([], "scores").shape == (0, 3)


@pytest.mark.parametrize("pool", ["class", "average"])
def test_layers_are_timms_of_a_vit(pool: str) -> None:
    model, source = made(ViTConfig(image_size=32, patch_size=8, width=32, depth=3, heads=2, pool=pool)), Made(7)
    words = {"class_token": pool == "class", "global_pool": {"class": "token", "average": "avg"}[pool]}
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2, "num_classes": 3}
    peer = timm.create_model("vit_tiny_patch16_224", **size, **words, fc_norm=False).eval()
    peer.load_state_dict({name.removeprefix("image."): tensor for name, tensor in model.state_dict().items()})
    options = {"norm": False, "output_fmt": "NLC", "return_prefix_tokens": True, "intermediates_only": True}
    with torch.no_grad():
        theirs = peer.forward_intermediates(normalised(pixels_of(model, source)), **options)
    found = Embedder(model, None, batch_size=4).layers(source, (0, 1, -1, "features"))
    assert list(found) == [0, 1, -1, "features"]
    for layer in (0, 1, -1):
        expected = theirs[layer][1][:, 0] if pool == "class" else theirs[layer].mean(1)  # (patches, prefix), or patches
        torch.testing.assert_close(found[layer], torch.nn.functional.normalize(expected, dim=1), atol=1e-5, rtol=0)
    torch.testing.assert_close(found["features"], Embedder(model, None).images(source), atol=1e-5, rtol=0)


def test_layers_of_a_mixer_are_means_over_patches() -> None:
    tower = MixerConfig(image_size=32, patch_size=8, width=32, depth=2, tokens=16, channels=128)
    model, source = made(tower), Made(5)
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "num_blocks": 2, "num_classes": 3}
    peer = timm.models.mlp_mixer.MlpMixer(**size).eval()
    peer.load_state_dict({name.removeprefix("image."): tensor for name, tensor in model.state_dict().items()})
    with torch.no_grad():
        x = peer.stem(normalised(pixels_of(model, source)))
        for layer, block in enumerate(peer.blocks):
            x = block(x)
            expected = torch.nn.functional.normalize(x.mean(1), dim=1)
            torch.testing.assert_close(Embedder(model, None).images(source, layer), expected, atol=1e-5, rtol=0)


def test_layers_of_maps_are_means_over_pixels_and_differ_in_width() -> None:
    model, source = made(CLIPResNetConfig(image_size=64, layers=(1, 1, 1, 1), width=8, heads=2)), Made(3)
    found = Embedder(model, None).layers(source, (0, 1, 2, 3))
    assert [rows.shape[1] for rows in found.values()] == [32, 64, 128, 256]
    seen = []
    handle = model.image.layer2.register_forward_hook(lambda module, inputs, out: seen.append(out))
    with torch.no_grad():
        model.encode_image(pixels_of(model, source))
    handle.remove()
    rows = torch.stack([sum(picture[:, y, x] for y in range(8) for x in range(8)) / 64 for picture in seen[0]])
    torch.testing.assert_close(found[1], torch.nn.functional.normalize(rows, dim=1), atol=1e-5, rtol=0)


def test_one_pass_serves_all_layers_and_leaves_no_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    model, passes = made(), []
    encode = model.encode_image
    monkeypatch.setattr(model, "encode_image", lambda image: passes.append(len(image)) or encode(image))
    embedder = Embedder(model, None, batch_size=4)
    embedder.layers(Made(10), (0, 1, 2, -1))
    assert passes == [4, 4, 2]
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ValueError, match="not one of 2 examples"):
        embedder.layers(Made(2, broken=[0, 1]), (0,))
    monkeypatch.setattr(model.image.blocks[1], "forward", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        embedder.layers(Made(2), (0,))
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("layer", [3, -4])
def test_a_layer_that_is_not_there_is_refused(layer: int) -> None:
    said = f"layer {layer}: this model's picture tower has 3 layers: 0 to 2, or -3 to -1 from the end"
    with pytest.raises(ValueError, match=said):
        Embedder(made(), None).layers(Made(2), (0, layer))


def test_pictures_are_prepared_with_the_models_crop() -> None:
    model, source = made(crop=0.8), Made(2)
    wanted = CropConfig(image_size=32, crop=0.8).build()
    assert Embedder(model, None).view.config == wanted.config  # type: ignore[attr-defined]
    whole, cropped = Embedder(made(), None).images(source), Embedder(model, None).images(source)
    assert not torch.allclose(whole, cropped, atol=1e-3)


# Ready to use


def test_a_classifier_answers_with_its_own_words() -> None:
    model, pictures = made(class_names=("dog", "crane", "crane")), [np.asarray(Made(3)[i]["image"]) for i in range(3)]
    with torch.no_grad():
        shares = model.classify(pixels_of(model, Made(3))).softmax(1)
    answers = Pictura(model, None, torch.device("cpu")).classify(pictures)
    assert [list(answer) for answer in answers] == [["dog", "crane (1)", "crane (2)"]] * 3
    torch.testing.assert_close(torch.tensor([list(a.values()) for a in answers]), shares, atol=1e-5, rtol=0)
    assert list(Pictura(made(), None, torch.device("cpu")).classify(pictures)[0]) == ["0", "1", "2"]


def test_layers_from_python() -> None:
    ready = Pictura(made(), None, torch.device("cpu"))
    pictures = [np.asarray(Made(3)[i]["image"]) for i in range(3)]
    found = ready.embed_images(pictures, layers=(2, -1, 0))
    assert list(found) == [2, -1, 0]
    assert all(rows.dtype == np.float32 and rows.shape == (3, 32) for rows in found.values())
    assert np.array_equal(found[2], found[-1]) and not np.array_equal(found[2], found[0])
    np.testing.assert_allclose(np.linalg.norm(found[0], axis=1), 1, rtol=1e-5)
    assert ready.embed_images([], layers=(0,))[0].shape == (0, 32)
    with pytest.raises(ValueError, match=r"bad\.png"):
        ready.embed_images(["bad.png"], layers=(0,))


def test_what_a_model_cannot_do_is_told(model: CLIP, tokenizer: Tokenizer) -> None:
    pictures = [np.zeros((9, 9, 3), np.uint8)]
    classifier = Pictura(made(), None, torch.device("cpu"))
    with pytest.raises(ValueError, match="labels: this model reads no texts; leave them out"):
        classifier.classify(pictures, ["a", "b"])
    with pytest.raises(ValueError, match="no tokenizer, so it cannot read texts"):
        classifier.embed_texts(["a"])
    for headless in (
        Pictura(model, tokenizer, torch.device("cpu")),
        Pictura(made(classes=0), None, torch.device("cpu")),
    ):
        with pytest.raises(ValueError, match="has no head that tells classes apart; give labels in words"):
            headless.classify(pictures)
