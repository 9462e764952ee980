import resource
from pathlib import Path

import pytest
import torch

from pictura.training import memory
from pictura.training.memory import MemoryPeak

CPU = torch.device("cpu")


def test_what_was_held_and_given_back_counts() -> None:
    with MemoryPeak(CPU) as before:
        pass
    with MemoryPeak(CPU) as large:
        torch.ones(40 * 2**20)  # 160 MiB, gone at once
    assert 140 < large.mib - before.mib < 400


@pytest.mark.skipif(not memory.CLEAR.exists(), reason="only Linux lets the high-water mark go down")
def test_a_peak_from_before_does_not_count() -> None:
    torch.ones(60 * 2**20)
    with MemoryPeak(CPU) as quiet:
        pass
    with MemoryPeak(CPU) as small:
        torch.ones(10 * 2**20)
    assert small.mib - quiet.mib < 120


def test_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "STATUS", tmp_path / "none")
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "none")
    with MemoryPeak(CPU) as peak:
        pass
    assert peak.mib == pytest.approx(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, rel=0.01)


def test_a_kernel_that_tells_less(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "status").write_text("VmRSS:\t1 kB\n")
    monkeypatch.setattr(memory, "STATUS", tmp_path / "status")
    monkeypatch.setattr(memory, "CLEAR", tmp_path)  # cannot be written to, whoever asks
    with MemoryPeak(CPU) as peak:
        pass
    assert peak.mib == pytest.approx(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, rel=0.01)


def test_an_error_inside_comes_out() -> None:
    with pytest.raises(KeyError), MemoryPeak(CPU) as peak:
        raise KeyError("x")
    assert peak.mib > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_it_is_what_was_allocated() -> None:
    device = torch.device("cuda")
    with MemoryPeak(device) as peak:
        torch.ones(40 * 2**20, device=device)
    assert 160 <= peak.mib < 200
