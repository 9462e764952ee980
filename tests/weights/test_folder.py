import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from pictura.data.bpe import TrainTokenizerConfig
from pictura.data.text import Tokenizer
from pictura.models.base import ModelConfig
from pictura.models.clip import CLIP
from pictura.weights import folder as module
from pictura.weights.folder import empty, load_folder, save_folder

Make = Callable[..., CLIP]


@dataclass(frozen=True, kw_only=True)
class RamConfig(ModelConfig):
    """A model with tables that are computed, beside what is stored; with no `kind`, so that no other test finds it."""

    rows: int = 3

    def build(self) -> "Ram":
        return Ram(self)


class Ram(nn.Module):
    def __init__(self, config: RamConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.randn(config.rows, 2))
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)
        self.register_buffer("stored", torch.arange(config.rows))
        self.register_buffer("computed", torch.tensor([2.0 * i for i in range(config.rows)]), persistent=False)


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = load_file(path / "model.safetensors")
    change(state)
    save_file(state, path / "model.safetensors")


def same(a: nn.Module, b: nn.Module) -> bool:
    one, two = a.state_dict(), b.state_dict()
    return list(one) == list(two) and all(torch.equal(one[name], two[name]) for name in one)


def test_what_is_saved_is_loaded(tmp_path: Path, make: Make, tokenizer: Tokenizer) -> None:
    model = make(logit_bias=-3.0, mean=(0.5, 0.4, 0.3), resize="squash", interpolation="bilinear").eval()
    save_folder(tmp_path / "runs" / "model", model, tokenizer)
    loaded, words = load_folder(tmp_path / "runs" / "model")
    assert isinstance(loaded, CLIP)
    assert loaded.config == model.config
    assert same(model, loaded)
    assert {p.requires_grad for p in loaded.parameters()} == {True}
    image, text = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8), words(["a red dog", "the old house"])
    assert torch.equal(text, tokenizer(["a red dog", "the old house"]))
    assert torch.equal(loaded.eval().encode_image(image), model.encode_image(image))
    assert torch.equal(loaded.encode_text(text), model.encode_text(text))
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["model"], "something was left beside it"
    assert sorted(p.name for p in (tmp_path / "runs" / "model").iterdir()) == sorted(module.FILES)


def test_loading_draws_no_random_numbers(tmp_path: Path, make: Make, tokenizer: Tokenizer) -> None:
    save_folder(tmp_path / "model", make(), tokenizer)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    load_folder(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), state)


def test_an_empty_model_has_no_memory(make: Make) -> None:
    model = make()
    assert all(p.is_meta for p in empty(model.config).parameters())
    assert {k: v.shape for k, v in empty(model.config).state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }


def test_computed_tables_are_there(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    model = RamConfig(rows=4).build()
    monkeypatch.setattr(module, "load", lambda cls, path: model.config)
    save_folder(tmp_path / "model", model, tokenizer)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    loaded, _ = load_folder(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(loaded, Ram)
    assert loaded.computed.tolist() == [0, 2, 4, 6]
    assert loaded.stored.tolist() == [0, 1, 2, 3]
    assert same(model, loaded)
    assert not loaded.frozen.requires_grad
    half, _ = load_folder(tmp_path / "model", dtype=torch.bfloat16)
    assert {t.dtype for t in half.state_dict().values()} == {torch.bfloat16, torch.int64}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(tmp_path: Path, make: Make, tokenizer: Tokenizer, dtype: torch.dtype) -> None:
    model = make().double()
    save_folder(tmp_path / "model", model, tokenizer, dtype=dtype)
    stored, _ = load_folder(tmp_path / "model")
    for name, tensor in stored.state_dict().items():
        assert tensor.dtype == (torch.float32 if name == "logit_scale" else dtype)
        assert torch.equal(tensor, model.state_dict()[name].to(tensor.dtype))
    single, _ = load_folder(tmp_path / "model", dtype=torch.float32)
    assert {tensor.dtype for tensor in single.state_dict().values()} == {torch.float32}
    save_folder(tmp_path / "model", model, tokenizer)
    assert {t.dtype for t in load_file(tmp_path / "model" / "model.safetensors").values()} == {torch.float32}


def test_the_loaded_weights_outlive_the_file(tmp_path: Path, make: Make, tokenizer: Tokenizer) -> None:
    model = make()
    save_folder(tmp_path / "model", model, tokenizer)
    loaded, _ = load_folder(tmp_path / "model")
    with (tmp_path / "model" / "model.safetensors").open("r+b") as file:
        file.write(b"\0" * file.seek(0, os.SEEK_END))
        file.truncate(0)
    assert same(model, loaded)


def test_others_may_read_it(tmp_path: Path, make: Make, tokenizer: Tokenizer) -> None:
    save_folder(tmp_path / "model", make(), tokenizer)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "model").iterdir()}
    assert len(modes) == 1, "the files of one folder have different permissions"


def test_other_programs_know_the_format(tmp_path: Path, make: Make, tokenizer: Tokenizer) -> None:
    save_folder(tmp_path / "model", make(), tokenizer)
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as stored:
        assert stored.metadata() == {"format": "pt"}


class Killed(BaseException):
    """The process ends here: nothing that touches the disk works any more."""


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "full disk"])
def test_a_model_survives_whatever_happens_to_its_successor(
    tmp_path: Path, make: Make, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    old, new = make(1), make(2)
    done = chosen = 0

    def interruptible(act: Callable[..., object]) -> Callable[..., object]:
        def attempt(*args: object, **kwargs: object) -> object:
            nonlocal done
            done += 1
            if done == chosen or (killed and done > chosen):
                raise Killed if killed else OSError(28, "No space left on device")
            return act(*args, **kwargs)

        return attempt

    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # slow, and of no use to a process that only plays dead
    outcomes, messages = [], set()
    while not outcomes or done >= chosen:
        done, chosen, path = 0, len(outcomes) + 1, tmp_path / str(len(outcomes)) / "model"
        save_folder(path, old, tokenizer)
        with monkeypatch.context() as patch:
            for place, name in ((module, "save_file"), (module, "_sync"), (Path, "rename"), (Path, "mkdir")):
                patch.setattr(place, name, interruptible(getattr(place, name)))
            if killed:
                patch.setattr(shutil, "rmtree", interruptible(shutil.rmtree))
            try:
                save_folder(path, new, tokenizer)
            except Killed:
                assert killed
            except ValueError as error:
                messages.add(str(error).replace(str(path), "PATH"))
        loaded, _ = load_folder(path)
        assert same(loaded, old) or same(loaded, new)
        outcomes.append("new" if same(loaded, new) else "old")
        save_folder(path, new, tokenizer)  # the next one goes through, and clears up
        assert same(load_folder(path)[0], new)
        assert [entry.name for entry in path.parent.iterdir()] == ["model"]
    assert outcomes == sorted(outcomes, reverse=True)  # old … old new … new
    assert set(outcomes) == {"old", "new"}
    assert len(outcomes) > 8
    told = {"PATH: the model could not be written there (No space left on device)"}
    assert messages == (set() if killed else told)


def test_nobody_elses_files_are_replaced(tmp_path: Path, make: Make, tokenizer: Tokenizer) -> None:
    model = make()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"photos: holds more than a model \(cat.jpg\); choose a new folder"):
        save_folder(tmp_path / "photos", model, tokenizer)
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"mine"
    with pytest.raises(ValueError, match=r"cat.jpg: is a file"):
        save_folder(tmp_path / "photos" / "cat.jpg", model, tokenizer)
    (tmp_path / "empty").mkdir()
    save_folder(tmp_path / "empty", model, tokenizer)
    (tmp_path / "link").symlink_to("empty")
    save_folder(tmp_path / "link", model, tokenizer)
    assert (tmp_path / "link").is_symlink()
    assert same(load_folder(tmp_path / "link")[0], model)


def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path, make: Make, tokenizer: Tokenizer) -> None:
    model = make()
    save_folder(tmp_path / "model", model, tokenizer)
    broken = make(1)
    with torch.no_grad():
        broken.text.norm.weight[3] = torch.nan
    with pytest.raises(ValueError, match=r"not written, the weights could not be used: not finite: text.norm.weight$"):
        save_folder(tmp_path / "model", broken, tokenizer)
    larger = TrainTokenizerConfig(vocab_size=560).build(lambda: ["a red dog runs near the old house"] * 2)
    assert larger.vocab_size > tokenizer.vocab_size
    with pytest.raises(ValueError, match=rf"has {larger.vocab_size} tokens, but the model has {tokenizer.vocab_size}"):
        save_folder(tmp_path / "model", model, larger)
    assert same(load_folder(tmp_path / "model")[0], model)
    larger.save(tmp_path / "model" / "tokenizer.json")
    with pytest.raises(ValueError, match=rf"tokenizer.json: has {larger.vocab_size} tokens"):
        load_folder(tmp_path / "model")


def test_the_model_says_how_much_it_reads(tmp_path: Path, make: Make, tokenizer: Tokenizer) -> None:
    save_folder(tmp_path / "model", make(), tokenizer)
    Tokenizer(tokenizer._rust, 77).save(tmp_path / "model" / "tokenizer.json")
    assert load_folder(tmp_path / "model")[1].context_length == 12


def test_unfit_weights_are_named(tmp_path: Path, make: Make, tokenizer: Tokenizer) -> None:
    model = make()
    save_folder(tmp_path / "model", model, tokenizer)

    def damage(state: dict[str, torch.Tensor]) -> None:
        state["image.pos_embed"] = state["image.pos_embed"][:, :5]
        state["text.norm.bias"][0] = torch.inf
        state["image.norm.bias"][1] = torch.nan
        state["extra"] = state.pop("image.cls_token")

    rewrite(tmp_path / "model", damage)
    with pytest.raises(ValueError) as told:
        load_folder(tmp_path / "model")
    assert str(told.value) == (
        f"{tmp_path / 'model' / 'model.safetensors'}: does not fit the config.yaml beside it: "
        "missing: image.cls_token; unexpected: extra; "
        "of another shape: image.pos_embed is [1, 5, 64] instead of [1, 17, 64]; "
        "not finite: image.norm.bias, text.norm.bias"
    )
    rewrite(tmp_path / "model", lambda state: [state.pop(name) for name in list(state) if "image.blocks" in name])
    with pytest.raises(ValueError, match=r"image.blocks.0.norm1.weight.* and 17 more"):
        load_folder(tmp_path / "model")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file(tmp_path: Path, make: Make, tokenizer: Tokenizer, share: float) -> None:
    save_folder(tmp_path / "model", make(), tokenizer)
    file = tmp_path / "model" / "model.safetensors"
    size = int(file.stat().st_size * share)
    os.truncate(file, size)
    with pytest.raises(ValueError, match=rf"model.safetensors: damaged or cut short at {size} bytes"):
        load_folder(tmp_path / "model")


def test_a_pickle_is_refused(tmp_path: Path, make: Make, tokenizer: Tokenizer) -> None:
    save_folder(tmp_path / "model", make(), tokenizer)
    torch.save({"a": torch.ones(2)}, tmp_path / "model" / "model.safetensors")
    with pytest.raises(ValueError, match=r"model.safetensors: damaged"):
        load_folder(tmp_path / "model")


def test_folders_that_are_none(tmp_path: Path, make: Make, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"^openai/clip-vit-base-patch32: there is no such folder; give the path"):
        load_folder("openai/clip-vit-base-patch32")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file, no folder"):
        load_folder(tmp_path / "file")
    with pytest.raises(ValueError, match=r"has no config.yaml and no model.safetensors$"):
        load_folder(tmp_path)
    run = tmp_path / "run"
    save_folder(run / "model", make(), tokenizer)
    shutil.copy(run / "model" / "config.yaml", run)
    with pytest.raises(ValueError, match=rf"it has no model.safetensors; its model is in {run / 'model'}$"):
        load_folder(run)
    (run / "model" / "tokenizer.json").unlink()
    with pytest.raises(
        ValueError, match=r"model: not a model folder: it has no tokenizer.json, and its model reads texts$"
    ):
        load_folder(run / "model")


def test_a_mistake_in_the_configuration_is_named(tmp_path: Path, make: Make, tokenizer: Tokenizer) -> None:
    save_folder(tmp_path / "model", make(), tokenizer)
    config = tmp_path / "model" / "config.yaml"
    config.write_text(config.read_text().replace("patch_size", "pach_size"))
    with pytest.raises(ValueError, match=r"config.yaml: image.pach_size: no such key; did you mean patch_size"):
        load_folder(tmp_path / "model")


@pytest.mark.parametrize("place", ["/proc/model", "/dev/null/model"])
def test_where_nothing_can_be_written(make: Make, tokenizer: Tokenizer, place: str) -> None:
    with pytest.raises(ValueError, match=rf"{place}: the model could not be written there"):
        save_folder(place, make(), tokenizer)
