import importlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from pictura.config import Config, kinds, load

HEADER = "from dataclasses import dataclass\nfrom typing import ClassVar\n"
BASE = f"""{HEADER}
from pictura.config import Config
@dataclass(frozen=True, kw_only=True)
class HatConfig(Config): ...
"""
KIND = f"""{HEADER}
from hatter.hats.base import HatConfig
@dataclass(frozen=True, kw_only=True)
class NAME(HatConfig):
    kind: ClassVar[str] = "NAME"
"""


@pytest.fixture
def hats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `hatter` with a room `hats` that holds a base, two kinds and a kind one folder deeper."""
    room = tmp_path / "hatter" / "hats"
    (room / "straw").mkdir(parents=True)
    for folder in (room.parent, room, room / "straw"):
        (folder / "__init__.py").touch()
    (room / "base.py").write_text(BASE)
    (room / "bowler.py").write_text(KIND.replace("NAME", "bowler"))
    (room / "anorak.py").write_text(KIND.replace("NAME", "anorak"))
    (room / "straw" / "boater.py").write_text(KIND.replace("NAME", "boater"))
    (room.parent / "run.py").write_text(BASE.replace("HatConfig", "RunConfig"))
    (room.parent / "heavy.py").write_text("raise ImportError('an extra that is not installed')")
    monkeypatch.syspath_prepend(tmp_path)
    yield room
    for name in [name for name in sys.modules if name.split(".")[0] == "hatter"]:
        del sys.modules[name]
    importlib.import_module("pictura.config.schema")._import_siblings.cache_clear()


def test_adding_a_file_adds_a_kind(hats: Path) -> None:
    base = importlib.import_module("hatter.hats.base").HatConfig
    assert list(kinds(base)) == ["anorak", "boater", "bowler"]
    assert type(load(base, {"kind": "boater"})).__module__ == "hatter.hats.straw.boater"


def test_a_room_with_a_broken_file_says_so_each_time(hats: Path) -> None:
    (hats / "torn.py").write_text("import a_module_that_does_not_exist")
    base = importlib.import_module("hatter.hats.base").HatConfig
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="a_module_that_does_not_exist"):
            kinds(base)


def test_a_base_above_the_rooms_imports_no_rooms(hats: Path) -> None:
    assert kinds(importlib.import_module("hatter.run").RunConfig) == {}
    assert "hatter.hats" not in sys.modules


@dataclass(frozen=True, kw_only=True)
class Base(Config):
    pass


@dataclass(frozen=True, kw_only=True)
class Named(Base):
    kind: ClassVar[str] = "named"


@dataclass(frozen=True, kw_only=True)
class Nameless(Named):
    """Inherits its parent's kind, so it is not a choice of its own."""


@dataclass(frozen=True, kw_only=True)
class Below(Nameless):
    kind: ClassVar[str] = "below"


def test_kinds_are_the_subclasses_that_name_themselves() -> None:
    assert kinds(Base) == {"below": Below, "named": Named}
    assert kinds(Named) == {"below": Below, "named": Named}
    assert kinds(Below) == {"below": Below}


def test_two_classes_of_one_kind_are_our_own_mistake() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Other(Config):
        pass

    first = type("First", (Other,), {"kind": "twin"})
    second = type("Second", (Other,), {"kind": "twin"})
    with pytest.raises(AssertionError, match="'twin' names both"):
        kinds(Other)
    assert first is not second


def test_a_configuration_is_frozen_and_keyword_only() -> None:
    with pytest.raises(FrozenInstanceError):
        Named().kind = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Named(1)  # type: ignore[call-arg]


def test_config_imports_nothing_heavy() -> None:
    code = "import sys, pictura.config; print(sorted({'torch', 'numpy', 'PIL', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
