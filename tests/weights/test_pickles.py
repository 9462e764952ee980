import argparse
import os
import pickle
import resource
import struct
from collections import Counter, OrderedDict, defaultdict
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pictura.weights.pickles import Thing, read_pickle
from pictura.weights.stored import Storage, Stored


def read(data: bytes) -> Any:
    return read_pickle(BytesIO(data))[0]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(VALUES, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_values_as_pickle_itself_reads_them(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    if b"_codecs" in data or b"__builtin__" in data:  # bytes, which old protocols write as a call
        return
    assert read(data) == value


def test_what_a_training_run_keeps() -> None:
    kept = {
        "counts": Counter({"a": 2}),
        "grouped": defaultdict(list, {"b": [1]}),
        "ordered": OrderedDict([("z", 1), ("a", 2)]),
        "args": argparse.Namespace(lr=0.1, names=["x"]),
        "seen": {1, 2},
        "place": Path("x"),
        "score": np.float64(3),
        "size": torch.Size([2, 3]),
        "device": torch.device("cpu"),
        "dtype": torch.bfloat16,
    }
    for protocol in (2, 4):
        found = read(pickle.dumps(kept, protocol))
        assert list(found) == list(kept)
        assert list(found["ordered"].items()) == [("z", 1), ("a", 2)]
        assert found["grouped"]["b"] == [1]
        assert found["args"].state == {"lr": 0.1, "names": ["x"]}
        assert found["dtype"] is torch.bfloat16
        assert isinstance(found["score"], Thing) and isinstance(found["device"], Thing)


class Payload:
    """Its pickle runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_is_named_and_not_run(tmp_path: Path, protocol: int) -> None:
    command = f"touch {tmp_path / 'run'}"
    data = pickle.dumps({"a": Payload(command)}, protocol)
    pickle.loads(data)
    assert (tmp_path / "run").exists(), "the payload does nothing, so that this test would prove nothing"
    (tmp_path / "run").unlink()
    with pytest.raises(ValueError, match=r"holds code beside its tensors: it would run (posix|nt|os)\.system"):
        read(data)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"(S'true'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nX\x04\x00\x00\x00trueo.",  # OBJ
        b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.",
        b"\x80\x02cbuiltins\ngetattr\n.",
        b"\x80\x02ctorch\nload\nX\x01\x00\x00\x00x\x85R.",
        b"\x80\x02ctorch.jit\nload\n.",
        b"\x80\x02c__torch__\nx\nX\x01\x00\x00\x00x\x85\x92.",  # NEWOBJ_EX
        b"\x80\x02\x82\x01.",  # EXT1
        b"P1\n.",
        b"\x80\x05\x97.",  # NEXT_BUFFER
    ],
)
def test_other_ways_to_call(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"holds code|which no checkpoint needs|damaged"):
        read(data)


def test_attributes_of_classes_are_out_of_reach() -> None:
    """What is named by a dotted path, or reached through an object that is harmless itself."""
    for module, name in (("torch", "serialization.os.system"), ("argparse", "_os.system"), ("torch", "nn")):
        data = b"\x80\x04" + pickle.dumps(module, 4)[2:-1] + pickle.dumps(name, 4)[2:-1] + b"\x93."
        with pytest.raises(ValueError, match="holds code beside its tensors"):
            read(data)
    things = read(b"\x80\x02cargparse\nNamespace\n)\x81}X\x09\x00\x00\x00__class__X\x01\x00\x00\x00xsb.")
    assert type(things) is Thing
    assert things.state == {"__class__": "x"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"\x80\x02",
        b"\x80\x02}",
        b"\x80\x02h\x01.",
        b"\x80\x02)R.",
        b"\x80\x02t.",
        b"\x80\x02}]\x85N]s",
        b"\xff\xd8\xff\xe0",
        b"\x80\x02X\xff\xff\xff\x7fab.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.",
        b"I" + b"9" * 9999 + b"\n.",
    ],
)
def test_damage(data: bytes) -> None:
    with pytest.raises(ValueError, match="is damaged or cut short"):
        read(data)


def test_no_pickle_takes_the_memory_that_it_claims() -> None:
    """Ten bytes for which Python's own unpickler takes 64 GB: a note under a number of nine digits."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read(b"\x80\x02Nr" + struct.pack("<I", 2**32 - 1) + b".") is None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_tuples_in_tuples_do_not_overrun_the_machine() -> None:
    """As the key of a dict they would, when their hash is taken."""
    deep = b"\x80\x02}N" + b"\x85" * 300_000 + b"Ns."
    assert list(read(deep).values()) == [None]


def test_endless_pickles_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pictura.weights.pickles.STEPS", 1000)
    with pytest.raises(ValueError, match="in more than 1,000 steps"):
        read(b"\x80\x02" + b"N0" * 1000 + b"N.")
    monkeypatch.setattr("pictura.weights.pickles.BYTES", 1000)
    with pytest.raises(ValueError, match="or 1,000 bytes"):
        read(b"\x80\x02" + b"X\xff\x0f\x00\x00" + bytes(0xFFF) + b"0N.")


def tensor(body: bytes) -> bytes:
    """A pickle that rebuilds a tensor of a storage of 6 numbers, from `body`: offset, size and stride."""
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ"
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + body + b"\x89}tR."


def test_tensors_are_described() -> None:
    found, storages = read_pickle(BytesIO(tensor(b"K\x01K\x02K\x01\x86K\x03K\x01\x86")))
    storage = Storage("0", torch.float32, 6)
    assert found == Stored(storage, 1, (2, 1), (3, 1), torch.float32)
    assert storages == {"0": storage}


@pytest.mark.parametrize(
    "body",
    [
        b"K\x00J\xff\xff\xff\xff\x85K\x01\x85",  # a side of -1
        b"J\xff\xff\xff\xffK\x01\x85K\x01\x85",
        b"K\x00K\x02\x85)",
        b"K\x00G?\xf0\x00\x00\x00\x00\x00\x00\x85K\x01\x85",  # 1.0
        b"K\x00\x8a\x0a" + b"\x01" * 10 + b"\x85K\x01\x85",
        b"K\x00]K\x01a]K\x01a",
        b"K\x00" + b"(" + b"K\x01" * 100 + b"t" + b"(" + b"K\x01" * 100 + b"t",
    ],
)
def test_shapes_that_are_none(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"whose shape is none|damaged"):
        read(tensor(body))


def test_one_storage_in_two_ways() -> None:
    one = tensor(b"K\x00K\x01\x85K\x01\x85")[:-1]
    with pytest.raises(ValueError, match="describes its storage 0 in two ways"):
        read(one + one.replace(b"Float", b"Double")[2:] + b"\x86.")


def test_an_ordered_dict_as_python_2_wrote_it() -> None:
    """From pairs; and a list that is given again and again is taken apart once, so that this takes no time."""
    pairs = b"](](X\x01\x00\x00\x00aK\x01e](X\x01\x00\x00\x00bK\x02ee"
    data = b"\x80\x02ccollections\nOrderedDict\n" + pairs + b"q\x01\x85R"
    assert pickle.loads(data + b".") == read(data + b".") == {"a": 1, "b": 2}
    again = b"ccollections\nOrderedDict\nh\x01\x85R\x86."
    assert read(data + again) == ({"a": 1, "b": 2}, {})
