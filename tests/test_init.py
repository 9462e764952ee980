import importlib.metadata
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pictura


def imported_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after running `code`."""
    code += "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_pictura_imports_nothing_else() -> None:
    assert imported_by("import pictura") - imported_by("pass") == {"pictura"}


HEAVY = (
    "torch._dynamo", "torch._inductor", "torch.distributed.checkpoint", "torch.distributed.fsdp",
    "torch.distributed.tensor", "torch.utils.tensorboard", "sympy", "triton", "torchvision", "pandas", "scipy",
    "matplotlib", "huggingface_hub", "av", "faster_coco_eval", "pictura.training.loop",
)  # fmt: skip


def test_a_model_is_used_without_what_trains_one(trained: Path, tmp_path: Path) -> None:
    """Together they take longer to import than torch itself: from a name on the command line to an answer."""
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "a.png")
    asked = ["classify", str(trained / "model"), str(tmp_path / "a.png"), "--labels", "a,b", "--json"]
    code = (
        "import sys\n"
        "from pictura.cli import main\n"
        f"code, found = main({asked}), set({HEAVY}) & set(sys.modules)\n"
        "assert code == 0 and not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_recipe_is_read_without_what_trains_one() -> None:
    code = f"import sys, pictura.recipe; found = set({HEAVY}) & set(sys.modules); assert not found, found"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_load_is_the_one_of_evaluation() -> None:
    from pictura.evaluation.ready import load

    assert pictura.load is load
    assert "load" in dir(pictura)


def test_a_room_may_read_the_version_without_importing_all_rooms() -> None:
    assert "torch" not in imported_by("from pictura import __version__")


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'pictura' has no attribute 'lood'"):
        _ = pictura.lood


def test_the_version_is_that_of_the_installed_package() -> None:
    assert pictura.__version__ == importlib.metadata.version("pictura")
