import importlib.metadata
import subprocess
import sys

import pytest

import pictura


def imported_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after running `code`."""
    code += "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_pictura_imports_nothing_else() -> None:
    assert imported_by("import pictura") - imported_by("pass") == {"pictura"}


def test_load_is_the_one_of_run() -> None:
    from pictura.run import load

    assert pictura.load is load
    assert "load" in dir(pictura)


def test_a_room_may_read_the_version_without_importing_all_rooms() -> None:
    assert "torch" not in imported_by("from pictura import __version__")


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'pictura' has no attribute 'lood'"):
        _ = pictura.lood


def test_the_version_is_that_of_the_installed_package() -> None:
    assert pictura.__version__ == importlib.metadata.version("pictura")
