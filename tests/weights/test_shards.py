import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModel

from pictura.weights.shards import read_sharded, shard_names


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Three tensors in two files."""
    save_file({"a": torch.ones(2), "b": torch.zeros(())}, tmp_path / "one.safetensors")
    save_file({"c": torch.arange(3)}, tmp_path / "two.safetensors")
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(
        json.dumps({"weight_map": {"a": "one.safetensors", "c": "two.safetensors", "b": "one.safetensors"}})
    )
    return path


def test_what_transformers_has_split_is_read_whole(tmp_path: Path) -> None:
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = CLIPVisionModel(CLIPVisionConfig(**shape, image_size=32, patch_size=8))
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    index = tmp_path / "model.safetensors.index.json"
    assert len(shard_names(index)) > 1
    whole, read = model.state_dict(), read_sharded(index)
    assert read.keys() == json.loads(index.read_text())["weight_map"].keys()
    assert len(read) == len(whole)
    ours = {name.removeprefix("vision_model."): tensor for name, tensor in read.items()}
    for name, tensor in whole.items():
        assert torch.equal(ours[name.removeprefix("vision_model.")], tensor)


def test_a_type_can_be_asked_for(index: Path) -> None:
    state = read_sharded(index, dtype=torch.bfloat16)
    assert {name: tensor.dtype for name, tensor in state.items()} == {
        "a": torch.bfloat16,
        "b": torch.float32,  # scalars stay
        "c": torch.int64,
    }


def test_missing_files_are_named(index: Path) -> None:
    (index.parent / "two.safetensors").unlink()
    with pytest.raises(ValueError, match=r"names two\.safetensors, not there beside it; all 2 files are needed"):
        read_sharded(index)


def test_a_file_without_a_tensor_that_it_should_have(index: Path) -> None:
    save_file({"d": torch.arange(3)}, index.parent / "two.safetensors")
    with pytest.raises(ValueError, match=r"two.safetensors: lacks c, which model.safetensors.index.json says it has"):
        read_sharded(index)


def test_of_a_file_only_what_the_index_names_in_it(index: Path) -> None:
    save_file({"c": torch.arange(3), "a": torch.zeros(7)}, index.parent / "two.safetensors")
    state = read_sharded(index)
    assert state.keys() == {"a", "b", "c"}
    assert torch.equal(state["a"], torch.ones(2))


@pytest.mark.parametrize(
    "shard",
    ["../one.safetensors", "/one.safetensors", "a\\one.safetensors", "C:one.safetensors", "one.bin", "..", "", 7],
)
def test_an_index_leads_nowhere_else(index: Path, shard: object) -> None:
    inside = index.parent / "inside"
    inside.mkdir()
    (inside / index.name).write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(ValueError, match=r"is not the name of a \.safetensors file beside it"):
        read_sharded(inside / index.name)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": []}', "\x00"])
def test_what_is_no_index(index: Path, text: str) -> None:
    index.write_text(text)
    with pytest.raises(ValueError, match=r"index\.json: (no JSON that can be read|has no weight_map)"):
        shard_names(index)
    index.unlink()
    with pytest.raises(ValueError, match="there is no such file"):
        shard_names(index)
