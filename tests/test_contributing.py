"""The examples of CONTRIBUTING.md are files that work: each can be imported, and its test passes."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

RUN = """
import importlib, sys, types

def module(path, code):
    name = path.removeprefix("src/").removesuffix(".py").replace("/", ".")
    made = sys.modules[name] = types.ModuleType(name)
    exec(compile(code, path, "exec"), vars(made))
    return made

for path, code in files:
    made = module(path, code)
    for name, value in list(vars(made).items()):
        if name.startswith("test_"):
            value()
            print(path, name)
"""


def examples() -> list[tuple[str, str]]:
    """(path, code) of every example, in order."""
    return re.findall(r"```python\n# (\S+)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)


def test_every_example_has_its_mirrored_test() -> None:
    paths = [path for path, _ in examples()]
    for source, test in zip(paths[::2], paths[1::2], strict=True):
        room, name = source.removeprefix("src/pictura/").split("/")
        assert test == f"tests/{room}/test_{name}"
        assert not (ROOT / source).exists(), "an example must not shadow a real file"
    assert len(paths) == 10


def test_the_examples_work() -> None:
    code = f"files = {examples()!r}\n{RUN}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 6, done.stdout


def test_the_examples_pass_the_linter(tmp_path: Path) -> None:
    for path, code in examples():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(code)
    ruff = [sys.executable, "-m", "ruff"]
    config = ["--config", str(ROOT / "pyproject.toml"), "--no-cache", str(tmp_path)]
    for command in (["check"], ["format", "--diff"]):
        done = subprocess.run([*ruff, *command, *config], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
