import argparse
import io
import pickle
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pictura.weights.files import read_tensors
from tests.weights.peers import identical
from tests.weights.test_pickles import Payload

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
]
DTYPES += [torch.uint8, torch.bool, torch.complex64, torch.complex128]


def example() -> dict[str, Tensor]:
    """Every type, a scalar, an empty one, strides of all kinds, and two that share their numbers."""
    torch.manual_seed(0)
    state = {str(dtype): torch.randn(2, 3).mul(50).to(dtype) for dtype in DTYPES}
    state |= {"scalar": torch.tensor(2.5), "none": torch.empty(0, 3), "turned": torch.randn(3, 5).T}
    return state | {"part": torch.arange(20.0)[3:9:2], "tied": state["torch.float32"]}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".bin"])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_what_torch_has_saved(tmp_path: Path, new: bool, suffix: str) -> None:
    """By what it is: the suffix says nothing."""
    file, state = tmp_path / f"a{suffix}", example()
    torch.save(state, file, _use_new_zipfile_serialization=new)
    found = read_tensors(file)
    identical(found, state)
    assert found["tied"].data_ptr() == found["torch.float32"].data_ptr()
    found["scalar"].zero_()  # it is writable, and not the file
    identical(read_tensors(file), torch.load(io.BytesIO(file.read_bytes()), weights_only=True))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_every_protocol_of_pickle(tmp_path: Path, new: bool, protocol: int) -> None:
    torch.save(example(), tmp_path / "a", pickle_protocol=protocol, _use_new_zipfile_serialization=new)
    identical(read_tensors(tmp_path / "a"), example())


def test_parameters_and_types_of_newer_versions(tmp_path: Path) -> None:
    state = {"a": nn.Parameter(torch.ones(2)), "b": torch.arange(3).to(torch.uint16)}
    state["c"] = torch.ones(4).to(torch.float8_e4m3fn)
    torch.save(state, tmp_path / "a")
    found = read_tensors(tmp_path / "a")
    assert [tensor.dtype for tensor in found.values()] == [torch.float32, torch.uint16, torch.float8_e4m3fn]
    assert [tensor.float().tolist() for tensor in found.values()] == [[1, 1], [0, 1, 2], [1, 1, 1, 1]]
    assert type(found["a"]) is Tensor


def test_safetensors_by_any_name(tmp_path: Path) -> None:
    state = {"a": torch.randn(2), "b": torch.ones(2, dtype=torch.bfloat16)}
    save_file(state, tmp_path / "model.bin")
    identical(read_tensors(tmp_path / "model.bin"), state)
    whole = (tmp_path / "model.bin").read_bytes()
    (tmp_path / "model.bin").write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"model\.bin: damaged or cut short at \d+ bytes"):
        read_tensors(tmp_path / "model.bin")


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "module"])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_a_training_checkpoint_gives_its_models_state_dict(tmp_path: Path, key: str, new: bool) -> None:
    """After a step of Adam, with what trainers keep beside the model."""
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    kept = {
        "epoch": 3,
        "best": np.float64(0.5),
        "args": argparse.Namespace(lr=0.1),
        "optimizer": optimizer.state_dict(),
    }
    kept |= {key: model.state_dict(), "rng": torch.get_rng_state(), "names": ("a", None, {1, 2})}
    torch.save(kept, tmp_path / "a.ckpt", _use_new_zipfile_serialization=new)
    identical(read_tensors(tmp_path / "a.ckpt"), dict(model.state_dict()))


def test_a_checkpoint_within_a_checkpoint(tmp_path: Path) -> None:
    torch.save({"model": {"name": "x"}, "state_dict": {"net": {"a": torch.ones(2)}}}, tmp_path / "a")
    identical(read_tensors(tmp_path / "a"), {"a": torch.ones(2)})


@pytest.mark.parametrize(
    ("content", "holds"),
    [
        ([torch.ones(2)], "list"),
        ({}, "nothing"),
        ({"epoch": 1, "opt": {}}, "epoch, opt"),
        ({"a": torch.ones(1), "b": 3}, "a, b"),
        ({1: torch.ones(1)}, "1"),
        (torch.ones(3), "Stored"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_state_dict(tmp_path: Path, content: Any, holds: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=rf"a\.pt: .* no state dict, a tensor under each name, but {holds}$"):
        read_tensors(tmp_path / "a.pt")


class Hostile(nn.Linear):
    """A model saved whole: reading it would import this very file."""


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_code_is_refused_and_not_run(tmp_path: Path, new: bool) -> None:
    mark = tmp_path / "run"
    content = {"state_dict": {"a": torch.ones(1)}, "x": Payload(f"touch {mark}")}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
    with pytest.raises(ValueError, match=r"a\.pt: not read, because it holds code .* would run posix\.system"):
        read_tensors(tmp_path / "a.pt")
    assert not mark.exists()
    torch.load(tmp_path / "a.pt", weights_only=False)
    assert mark.exists(), "the payload does nothing, so that this test proves nothing"
    torch.save(Hostile(1, 1), tmp_path / "b.pt", _use_new_zipfile_serialization=new)
    with pytest.raises(ValueError, match=r"would run .*test_files\.Hostile"):
        read_tensors(tmp_path / "b.pt")
    (tmp_path / "c.pt").write_bytes(pickle.dumps(Payload(f"touch {tmp_path / 'other'}")))
    with pytest.raises(ValueError, match=r"c\.pt: is a pickle, but not one of PyTorch's"):
        read_tensors(tmp_path / "c.pt")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_every_cut_is_told(tmp_path: Path, new: bool) -> None:
    torch.save({"a": torch.ones(3), "b": torch.zeros(2)}, tmp_path / "a", _use_new_zipfile_serialization=new)
    whole = (tmp_path / "a").read_bytes()
    for length in range(0, len(whole), 1 if len(whole) < 900 else 7):
        (tmp_path / "a").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"a: "):
            read_tensors(tmp_path / "a")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_changed_bytes_are_told_or_harmless(tmp_path: Path, new: bool, seed: int) -> None:
    state = {f"layer.{i}": torch.ones(i + 1) for i in range(3)}
    torch.save(state, tmp_path / "a", _use_new_zipfile_serialization=new)
    whole = bytearray((tmp_path / "a").read_bytes())
    draw = np.random.default_rng(seed)
    for _ in range(200):
        changed = bytearray(whole)
        changed[draw.integers(len(whole))] = draw.integers(256)
        (tmp_path / "a").write_bytes(changed)
        told = ""
        try:
            assert all(tensor.numel() < 1000 for tensor in read_tensors(tmp_path / "a").values())
        except ValueError as error:
            told = str(error)
        assert not told or told.startswith(f"{tmp_path / 'a'}: ")


def rezipped(source: Path, target: Path, change: dict[str, bytes]) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change.get(name.split("/", 1)[1], old.read(name)))


def test_a_tensor_that_claims_more_than_is_there(tmp_path: Path) -> None:
    """torch.load takes the claimed size for granted, and reads what lies beside the numbers in memory."""
    torch.save({"a": torch.ones(5)}, tmp_path / "a")
    with zipfile.ZipFile(tmp_path / "a") as archive:
        data = archive.read("a/data.pkl")
    five, most = b"K\x05", b"\x8a\x06" + (10**12).to_bytes(6, "little")
    assert data.count(five) == 2  # of the storage, and of the tensor
    for times, where in ((2, "both"), (1, "storage")):
        rezipped(tmp_path / "a", tmp_path / where, {"data.pkl": data.replace(five, most, times)})
    at = data.rindex(five)
    rezipped(tmp_path / "a", tmp_path / "tensor", {"data.pkl": data[:at] + most + data[at + 2 :]})
    for where in ("both", "storage", "tensor"):
        with pytest.raises(ValueError, match=rf"{where}: not read, because it claims that a is .* the 20 bytes"):
            read_tensors(tmp_path / where)


def test_a_legacy_storage_that_claims_more_than_is_there(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(5)}, tmp_path / "a", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(whole[:-28] + struct.pack("<q", 10**12) + whole[-20:])
    with pytest.raises(ValueError, match=r"cut short at \d+ bytes: a storage claims 4,000,000,000,000"):
        read_tensors(tmp_path / "a")


def test_one_number_spread_over_a_trillion(tmp_path: Path) -> None:
    """Strides of zero make a file of a kilobyte a tensor of terabytes."""
    torch.save({"a": torch.ones(1).expand(10**12)}, tmp_path / "a")
    with pytest.raises(ValueError, match="claims that a is 1000000000000, more than the 4 bytes"):
        read_tensors(tmp_path / "a")


def test_numbers_of_a_machine_of_the_other_byte_order(tmp_path: Path) -> None:
    other = "big" if sys.byteorder == "little" else "little"
    state = {"a": torch.randn(3), "b": torch.arange(4), "c": torch.randn(2, dtype=torch.complex64)}
    torch.save(state, tmp_path / "a")
    with zipfile.ZipFile(tmp_path / "a") as archive:
        data = {f"data/{i}": tensor for i, tensor in enumerate(state.values())}
        swapped = {key: tensor.numpy().byteswap().tobytes() for key, tensor in data.items()}
        assert archive.read("a/byteorder") == sys.byteorder.encode()
    rezipped(tmp_path / "a", tmp_path / "b", swapped | {"byteorder": other.encode()})
    identical(read_tensors(tmp_path / "b"), state)
    identical(torch.load(tmp_path / "b", weights_only=True), state)


def test_numpys_arrays(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    arrays: dict[str, Any] = {f"x/{kind}": draw.integers(0, 2, (2, 3)).astype(kind) for kind in "?bBhHiIlLefdFD"}
    arrays |= {"turned": np.asfortranarray(draw.random((4, 3, 2))), "scalar": np.float32(2), "none": np.zeros((0, 2))}
    arrays["big"] = draw.random((2, 3)).astype(">f4")
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        found = read_tensors(tmp_path / "a.npz")
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert np.array_equal(found[name].numpy(), array), name
            assert found[name].numpy().dtype == array.dtype.newbyteorder("="), name
            assert found[name].is_contiguous()
            found[name].zero_()


def test_trap_c_bfloat16_arrays_come_without_a_type(tmp_path: Path) -> None:
    tensor = torch.randn(3, 4).bfloat16()
    np.savez(tmp_path / "a.npz", a=tensor.view(torch.int16).numpy().view("V2"))
    with np.load(tmp_path / "a.npz") as stored:
        assert stored["a"].dtype.kind == "V"
    identical(read_tensors(tmp_path / "a.npz"), {"a": tensor})


@pytest.mark.parametrize("array", [np.array([{}], object), np.array(["word"]), np.zeros(2, "V3"), np.zeros(2, "M8[s]")])
def test_arrays_of_other_things(tmp_path: Path, array: Any) -> None:
    np.savez(tmp_path / "a.npz", good=np.ones(2), bad=array)
    with pytest.raises(ValueError, match=r"a\.npz: bad\.npy cannot be read: it is of .*, not of numbers"):
        read_tensors(tmp_path / "a.npz")


def test_an_object_arrays_code_is_not_run(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.array([Payload(f"touch {tmp_path / 'run'}")], object))
    with pytest.raises(ValueError, match="it is of object"):
        read_tensors(tmp_path / "a.npz")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("shape", [(10**12,), (10**9, 10**9), (3,), (-4,), (1.5,), "x"])
def test_arrays_that_claim_other_shapes(tmp_path: Path, shape: Any) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"shape": (7,), "fortran_order": False, "descr": "<f4"})
    header = buffer.getvalue().replace(b"(7,)", repr(shape).encode()).ljust(len(buffer.getvalue()))[:128]
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as out:
        out.writestr("a.npy", header + np.ones(4, "<f4").tobytes())
    with pytest.raises(ValueError, match=r"a\.npz: a\.npy cannot be read: "):
        read_tensors(tmp_path / "a.npz")


def test_a_bomb(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(20 << 20, np.float32))
    with pytest.raises(ValueError, match=r"a\.npz: refused, because its [\d,]+ bytes unpack to 83,886,\d+"):
        read_tensors(tmp_path / "a.npz")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (LFS, rf"is a Git LFS pointer, {len(LFS)} bytes, not the weights: run git lfs pull"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "is a JPEG picture"),
        (b"\x89PNG\r\n\x1a\n", "is a PNG picture"),
        (b"\n <!DOCTYPE html><html>", "is a web page, saved instead of the file"),
        (b'{"error": "not found"}', "is a text of JSON"),
        (b"\x1f\x8b\x08\x00", "is packed with gzip; unpack it first"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, as Keras writes them"),
        (b"", "is empty"),
        (b"cut", "damaged, or no file of tensors: its 3 bytes begin with b'cut'"),
        (b"\x00" * 100, r"damaged, or no file of tensors: its 100 bytes begin with b'\\x00"),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"model\.pt: {what}"):
        read_tensors(tmp_path / "model.pt")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.pt: there is no such file"):
        read_tensors(tmp_path / "none.pt")
    with pytest.raises(ValueError, match="Is a directory"):
        read_tensors(tmp_path)
    np.save(tmp_path / "a.npy", np.ones(2))
    with pytest.raises(ValueError, match="is one NumPy array without a name"):
        read_tensors(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        for name in ("cat.jpg", "dog.jpg", "x", "y"):
            out.writestr(name, b"")
    with pytest.raises(ValueError, match=r"a\.zip: is a zip archive of cat\.jpg, dog\.jpg, x …, not a checkpoint"):
        read_tensors(tmp_path / "a.zip")
