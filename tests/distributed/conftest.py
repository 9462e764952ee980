"""Starts a script in several processes, with the environment that torchrun gives, and reads what each of them saved."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import pictura


def in_processes(script: Path, folder: Path, world: int = 2, timeout: float = 110.0) -> list[dict[str, Any]]:
    """`script folder` in `world` processes -> what each put into `folder/<rank>.pt`, in at most `timeout` seconds."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    paths = Path(pictura.__file__).parents[1], Path(__file__).parents[2]
    common |= {"PYTHONPATH": os.pathsep.join(map(str, paths)), "CUDA_VISIBLE_DEVICES": ""}
    children = []
    for rank in range(world):
        environment = os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        with (folder / f"{rank}.log").open("wb") as log:
            command = [sys.executable, str(script), str(folder)]
            children.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))
    deadline = time.monotonic() + timeout
    try:
        # once one has failed, the others would only wait for it
        while (codes := [child.poll() for child in children]) and None in codes and not any(codes):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
    finally:
        for child in children:
            child.kill()
            child.wait()
    if codes != [0] * world:
        logs = "\n".join(f"--- process {r}, exit {codes[r]}\n{(folder / f'{r}.log').read_text()}" for r in range(world))
        pytest.fail(f"{script.name} in {world} processes:\n{logs}", pytrace=False)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world)]


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes measured in all the cases of `worker.py`; started once for all tests."""
    return in_processes(Path(__file__).with_name("worker.py"), tmp_path_factory.mktemp("processes"))
