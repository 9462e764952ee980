import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pictura.weights.files import read_tensors
from tests.weights.peers import identical
from tests.weights.test_files import rezipped

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")


class Inner(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width)
        self.register_buffer("steps", torch.tensor(7))
        self.plain = torch.ones(2)  # neither a parameter nor a buffer

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) + self.plain.sum() + self.steps


class Outer(nn.Module):
    """With what a state dict leaves out: a plain tensor, lists and dicts of tensors, numbers, words."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.rows = nn.Sequential(Inner(3), nn.ReLU(), nn.BatchNorm1d(3))
        self.tied = self.rows[0].fc
        self.table = {"x": torch.ones(1)}
        self.listed = [torch.ones(1)]
        self.numbers, self.word = [1, 2], "word"
        self.register_buffer("positions", torch.arange(6).view(2, 3).T)

    def forward(self, x: Tensor) -> Tensor:
        extra = self.table["x"] + self.listed[0] + self.numbers[1] + len(self.word)
        return self.tied(self.rows(x)) * self.scale + extra + self.positions[0, 1]


def archive(path: Path, dtype: torch.dtype = torch.float32, how: str = "script") -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = Outer().to(dtype).eval()
    made: Any = torch.jit.script(model) if how == "script" else torch.jit.trace(model, torch.ones(2, 3, dtype=dtype))
    torch.jit.save(made, path)
    return dict(torch.jit.load(path).state_dict())


@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_as_its_own_state_dict(tmp_path: Path, dtype: torch.dtype, how: str) -> None:
    expected = archive(tmp_path / "a.pt", dtype, how)
    assert {"rows.0.fc.weight", "rows.2.running_mean", "tied.bias", "scale", "positions"} <= expected.keys()
    found = read_tensors(tmp_path / "a.pt")
    identical(found, expected)
    assert found["tied.bias"].data_ptr() == found["rows.0.fc.bias"].data_ptr()


def test_nothing_of_it_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = archive(tmp_path / "a.pt")
    for name in ("load", "script", "trace"):
        monkeypatch.setattr(torch.jit, name, lambda *_, **__: pytest.fail("run"))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("run"))
    identical(read_tensors(tmp_path / "a.pt"), expected)


def test_without_its_source_all_tensors_of_its_modules(tmp_path: Path) -> None:
    expected = archive(tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as old, zipfile.ZipFile(tmp_path / "b.pt", "w") as new:
        for name in old.namelist():
            if "/code/" not in name:
                new.writestr(name, old.read(name))
    assert read_tensors(tmp_path / "b.pt").keys() == expected.keys() | {"rows.0.plain"}


def pickled(path: Path, data: bytes) -> None:
    """An archive with another pickle in it."""
    archive(path.with_name("whole"))
    rezipped(path.with_name("whole"), path, {"data.pkl": data})


def test_modules_within_modules_without_end(tmp_path: Path) -> None:
    module = b"c__torch__\nM\n)\x81"
    pickled(tmp_path / "a.pt", b"\x80\x02" + module + b"q\x01}X\x01\x00\x00\x00xh\x01sb.")
    with pytest.raises(ValueError, match=r"a\.pt: .* has more than 100 modules within modules, at x\.x\.x"):
        read_tensors(tmp_path / "a.pt")


def test_modules_without_end(tmp_path: Path) -> None:
    """Each holds the one before it twice, so that fifty make a million billion."""
    data = b"\x80\x02c__torch__\nM\n)\x81"
    for _ in range(50):
        data += b"q\x01c__torch__\nM\n)\x81}(X\x01\x00\x00\x00ah\x01X\x01\x00\x00\x00bh\x01ub"
    pickled(tmp_path / "a.pt", data + b".")
    with pytest.raises(ValueError, match="has more than 200,000 modules and tensors"):
        read_tensors(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x80\x02}.", "holds no module, though it is a TorchScript archive"),
        (b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.", r"would run posix\.system"),
        (b"\x80\x02ctorch.jit._pickle\nbuild_tensor_from_id\nK\x00\x85R.", "would run torch.jit._pickle.build"),
        (b"\x80\x02c__torch", "is damaged or cut short"),
    ],
)
def test_hostile_and_damaged_ones(tmp_path: Path, data: bytes, what: str) -> None:
    pickled(tmp_path / "a.pt", data)
    with pytest.raises(ValueError, match=rf"a\.pt: not read, because it .*{what}"):
        read_tensors(tmp_path / "a.pt")


def test_a_pickle_beyond_all_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pictura.weights.files.BYTES", 100)
    archive(tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"data\.pkl has [\d,]+ bytes, more than the 100 of any real one"):
        read_tensors(tmp_path / "a.pt")


def test_a_missing_record(tmp_path: Path) -> None:
    archive(tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as old, zipfile.ZipFile(tmp_path / "b.pt", "w") as new:
        for name in old.namelist():
            if not name.endswith("/data/0"):
                new.writestr(name, old.read(name))
    with pytest.raises(ValueError, match=r"is damaged: .* is not in it"):
        read_tensors(tmp_path / "b.pt")
