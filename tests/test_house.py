"""What holds the house together: rooms, pins, and what a bare machine is asked to do."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = sorted(path for path in (ROOT / "src" / "pictura").iterdir() if path.is_dir() and any(path.glob("*.py")))


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~ ]", requirement)[0].lower().replace("_", "-") for requirement in requirements}


PINS = names([line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")])


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_room_is_a_package(room: Path) -> None:
    assert (room / "__init__.py").exists(), "without it the loader finds none of the room's kinds"


def test_every_room_has_its_place_in_the_import_contract() -> None:
    (rooms,) = [contract for contract in PROJECT["tool"]["importlinter"]["contracts"] if contract["id"] == "rooms"]
    assert rooms["exhaustive"], "a new room would escape the contract"
    placed = set(re.findall(r"\w+", " ".join(rooms["layers"])))
    assert {room.name for room in ROOMS} <= placed


def test_tests_mirror_the_rooms() -> None:
    rooms = {room.name for room in ROOMS}
    folders = {path.name for path in (ROOT / "tests").iterdir() if any(path.glob("test_*.py"))}
    assert folders <= rooms | {"benchmarks", "recipes", "docs"}


def test_every_direct_dependency_is_pinned() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    direct = names([*PROJECT["project"]["dependencies"], *extras["dev"], *extras["peers"]]) - {"pictura"}
    assert direct <= PINS, f"not in constraints.txt: {direct - PINS}"


def test_the_pins_belong_to_no_platform() -> None:
    assert not [name for name in PINS if name.startswith(("nvidia", "cuda", "triton"))]


def test_peers_are_not_asked_of_a_user() -> None:
    peers = names(PROJECT["project"]["optional-dependencies"]["peers"])
    assert not peers & names(PROJECT["project"]["dependencies"])


def test_the_recipes_are_package_data() -> None:
    assert PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["src/pictura"]
    recipes = ROOT / "src" / "pictura" / "recipes"
    assert not recipes.exists() or list(recipes.glob("*.yaml"))


def test_ci_calls_make_test_and_nothing_else() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert re.findall(r"\bmake [\w-]+|\bpip\b|\bpytest\b", script) == ["make test"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
