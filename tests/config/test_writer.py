from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pictura.config import Config, load, to_dict, to_yaml


@dataclass(frozen=True, kw_only=True)
class ShapeConfig(Config):
    """A choice."""


@dataclass(frozen=True, kw_only=True)
class Circle(ShapeConfig):
    kind: ClassVar[str] = "circle"
    sizes: ClassVar[dict[str, dict[str, object]]] = {"big": {"radius": 9.0}}
    radius: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Group(ShapeConfig):
    kind: ClassVar[str] = "group"
    of: tuple[ShapeConfig, ...] = ()
    named: dict[str, ShapeConfig] = field(default_factory=lambda: {"default": Circle(radius=2.0)})


@dataclass(frozen=True, kw_only=True)
class Scene(Config):
    shape: ShapeConfig = Circle(radius=3.0)
    count: int = 1
    ratio: float = 0.5
    name: str = "x"
    flip: bool = False
    path: Path = Path("a")
    cut: int | None = 4
    mode: Literal["fast", "exact", 3] = "fast"
    pair: tuple[float, str] = (1.0, "")
    words: list[str] = field(default_factory=lambda: ["default"])
    weights: dict[str, float] = field(default_factory=lambda: {"default": 1.0})
    inner: Group | None = None


numbers = st.floats(allow_nan=False)
circles = st.builds(Circle, radius=numbers)
shapes = st.recursive(
    circles,
    lambda inner: st.builds(
        Group,
        of=st.lists(inner, max_size=2).map(tuple),
        named=st.dictionaries(st.text(), inner, max_size=2),
    ),
    max_leaves=4,
)
scenes = st.builds(
    Scene,
    shape=shapes,
    count=st.integers(),
    ratio=numbers,
    name=st.text(),
    flip=st.booleans(),
    path=st.text().map(Path),
    cut=st.none() | st.integers(),
    mode=st.sampled_from(["fast", "exact", 3]),
    pair=st.tuples(numbers, st.text()),
    words=st.lists(st.text(), max_size=3),
    weights=st.dictionaries(st.text(), numbers, max_size=3),
    inner=st.none() | st.builds(Group, of=st.lists(circles, max_size=2).map(tuple)),
)


@given(scenes)
@settings(deadline=None)
def test_round_trip_through_plain_values(scene: Scene) -> None:
    assert load(Scene, to_dict(scene)) == scene


@given(scenes)
@settings(deadline=None)
def test_round_trip_through_a_file(tmp_path_factory: pytest.TempPathFactory, scene: Scene) -> None:
    path = tmp_path_factory.getbasetemp() / "scene.yaml"
    path.write_bytes(to_yaml(scene).encode())
    assert load(Scene, path) == scene


@given(shapes)
@settings(deadline=None)
def test_round_trip_of_a_choice_itself(shape: ShapeConfig) -> None:
    assert load(ShapeConfig, to_dict(shape)) == shape


@given(scenes, scenes)
@settings(deadline=None, max_examples=50)
def test_a_resolved_configuration_wins_over_everything_before_it_but_for_names_in_dicts(a: Scene, b: Scene) -> None:
    merged = load(Scene, to_dict(a), to_dict(b))
    assert merged.weights == {**a.weights, **b.weights}
    assert replace(merged, weights=b.weights, shape=b.shape, inner=b.inner) == b


def test_kind_is_written_first_and_every_field_is_written() -> None:
    written = to_dict(Scene(shape=Group(of=(Circle(),), named={}), inner=Group()))
    assert written["shape"] == {"kind": "group", "of": [{"kind": "circle", "radius": 1.0}], "named": {}}
    assert next(iter(written["shape"])) == "kind"
    assert written["path"] == "a"
    assert "kind" not in written
    assert set(written) == set(Scene.__dataclass_fields__)


def test_yaml_reads_like_a_recipe() -> None:
    assert to_yaml(Circle(radius=1e-3)) == "kind: circle\nradius: 0.001\n"


def test_the_written_values_are_a_copy() -> None:
    scene = Scene()
    to_dict(scene)["words"].append("more")
    assert scene.words == ["default"]


def test_only_a_configuration_is_written() -> None:
    with pytest.raises(AssertionError):
        to_dict({"a": 1})
