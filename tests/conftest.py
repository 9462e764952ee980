"""Settings of the whole suite, and a run that has been trained, for the tests that need one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.tiny import RETRIEVAL, tiny

# The same examples in every run, so that what passes here passes everywhere; HYPOTHESIS_PROFILE=explore seeks new ones.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run of 20 steps, finished; copy it before changing it. Its model is in `model`."""
    from pictura.run import train

    folder = tmp_path_factory.mktemp("trained") / "run"
    with single_thread():
        train(tiny(RETRIEVAL), folder)
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums in one order, so that bits can be compared with `trained` and with other processes."""
    with single_thread():
        yield


@contextmanager
def single_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
