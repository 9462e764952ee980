from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from pictura.config import Config, load, sized, to_dict


@dataclass(frozen=True, kw_only=True)
class TowerConfig(Config):
    """A choice."""


@dataclass(frozen=True, kw_only=True)
class ViT(TowerConfig):
    kind: ClassVar[str] = "vit"
    sizes: ClassVar[dict[str, dict[str, object]]] = {
        "B/32": {"width": 768, "patch_size": 32},
        "S/16": {"width": 384, "patch_size": 16},
    }
    width: int = 64
    heads: int = 4
    patch_size: int = 8
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"heads: {self.heads} does not divide width {self.width}")
        if self.patch_size < 1:
            raise ValueError("a patch has at least one pixel")


@dataclass(frozen=True, kw_only=True)
class Mixer(TowerConfig):
    kind: ClassVar[str] = "mixer"
    depth: int
    dropout: float = 0.5


@dataclass(frozen=True, kw_only=True)
class CLIP(Config):
    sizes: ClassVar[dict[str, dict[str, object]]] = {
        "ViT-B/32": {"image": {"kind": "vit", "size": "B/32"}, "embed_dim": 512}
    }
    image: TowerConfig
    embed_dim: int = 128


@dataclass(frozen=True, kw_only=True)
class Recipe(Config):
    model: CLIP = field(default_factory=lambda: CLIP(image=ViT(width=32)))
    tower: TowerConfig = ViT(width=16, patch_size=2)
    objectives: dict[str, TowerConfig] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=lambda: {"clip": 1.0, "simclr": 0.5})
    lr: float = 5e-4
    steps: int = 100
    name: str = "run"
    flip: bool = False
    path: Path | None = None
    precision: Literal["bf16", "fp32", 16] = "bf16"
    betas: tuple[float, float] = (0.9, 0.98)
    prompts: list[str] | None = None
    layers: tuple[int, ...] = ()
    towers: tuple[TowerConfig, ...] = ()
    limit: int | str = 3
    extra: dict[str, Any] = field(default_factory=dict)


def fails(expected: str, *sources: Any, overrides: tuple[str, ...] = (), cls: type = Recipe) -> None:
    with pytest.raises(ValueError) as raised:
        load(cls, *sources, overrides=overrides)
    assert str(raised.value) == expected


# --- values and types


def test_no_source_gives_the_defaults() -> None:
    assert load(Recipe) == Recipe()


@pytest.mark.parametrize("text", ["1e-3", "0.001", "1E-3", "+1.0e-3", ".001"])
def test_every_spelling_of_a_float_is_a_float(tmp_path: Path, text: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"lr: {text}")
    for value in (load(Recipe, recipe).lr, load(Recipe, overrides=[f"lr={text}"]).lr):
        assert type(value) is float
        assert value == 1e-3


def test_an_int_is_accepted_for_a_float_and_becomes_one() -> None:
    value = load(Recipe, {"lr": 1}).lr
    assert type(value) is float
    assert value == 1.0


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("flip=yes", "flip: expected bool, got 'yes' (str)"),
        ("flip=1", "flip: expected bool, got 1 (int)"),
        ("steps=1.0", "steps: expected int, got 1.0 (float)"),
        ("steps=true", "steps: expected int, got True (bool)"),
        ("lr=true", "lr: expected float, got True (bool)"),
        ("lr=fast", "lr: expected float, got 'fast' (str)"),
        ("steps=1e3", "steps: expected int, got 1000.0 (float)"),
        ("steps=null", "steps: expected int, got null"),
        ("precision=fp31", "precision: expected one of 'bf16', 'fp32', 16, got 'fp31' (str); did you mean fp32?"),
        ("betas=0.9", "betas: expected a list of 2: float, float, got 0.9 (float)"),
        ("betas=[0.9]", "betas: expected a list of 2: float, float, got [0.9] (list)"),
        ("betas=[0.9, x]", "betas[1]: expected float, got 'x' (str)"),
        ("layers=[1, 2.5]", "layers[1]: expected int, got 2.5 (float)"),
        ("prompts=a photo", "prompts: expected a list of str or null, got 'a photo' (str)"),
        ("prompts=[1]", "prompts[0]: expected str, got 1 (int)"),
        ("limit=1.5", "limit: expected int or str, got 1.5 (float)"),
        ("model=3", "model: expected a mapping for CLIP, got 3 (int)"),
        ("weights=3", "weights: expected a mapping of names to float, got 3 (int)"),
        ("weights.clip=x", "weights.clip: expected float, got 'x' (str)"),
    ],
)
def test_a_wrong_type_names_the_path_what_came_and_what_was_expected(override: str, expected: str) -> None:
    if override == "limit=1.5":
        fails(expected, {"limit": 1.5})  # as an override it is the string "1.5"
    else:
        fails(expected, overrides=(override,))


def test_a_whole_number_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(ValueError, match="lr: expected float, got 1000"):
        load(Recipe, {"lr": 10**400})


def test_literals_tell_numbers_from_strings() -> None:
    assert load(Recipe, {"precision": 16}).precision == 16
    fails("precision: expected one of 'bf16', 'fp32', 16, got '16' (str); did you mean 16?", {"precision": "16"})


def test_sequences_become_what_the_field_says() -> None:
    recipe = load(Recipe, {"betas": [1, 0.5], "layers": (3, 4), "prompts": ("a", "b"), "towers": [{"kind": "vit"}]})
    assert recipe.betas == (1.0, 0.5)
    assert recipe.layers == (3, 4)
    assert recipe.prompts == ["a", "b"]
    assert recipe.towers == (ViT(),)


def test_unions_prefer_the_member_of_the_values_own_type() -> None:
    assert load(Recipe, {"limit": "3"}).limit == "3"
    assert load(Recipe, {"limit": 3}).limit == 3


def test_paths_come_from_strings_and_paths() -> None:
    assert load(Recipe, {"path": "a/b.tar"}).path == load(Recipe, {"path": Path("a/b.tar")}).path == Path("a/b.tar")
    fails("path: expected a path or null, got 3 (int)", {"path": 3})


def test_any_takes_what_there_is() -> None:
    assert load(Recipe, {"extra": {"a": [1, {"b": None}]}}).extra == {"a": [1, {"b": None}]}


# --- unknown and missing keys


def test_a_typo_answers_with_the_file_the_path_and_the_nearest_name(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model:\n  image: {kind: vit, pach_size: 3}\n")
    fails(f"{recipe}: model.image.pach_size: no such key; did you mean patch_size?", recipe)
    fails("model.image.pach_size: no such key; did you mean patch_size?", overrides=("model.image.pach_size=3",))


def test_an_unknown_key_far_from_every_name_lists_the_names() -> None:
    fails("model.zzz: no such key; there are: image, embed_dim", {"model": {"zzz": 1}})
    fails("model.1: no such key; there are: image, embed_dim", {"model": {1: 1}})


def test_the_file_that_holds_the_mistake_is_the_one_named(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("steps: 3\nlr: 0.1")
    bad.write_text("lrr: 0.1")
    for order in ((good, bad), (bad, good)):
        fails(f"{bad}: lrr: no such key; did you mean lr?", *order, overrides=("steps=3",))


def test_a_field_without_default_is_asked_for(tmp_path: Path) -> None:
    fails("depth: missing; expected int", {}, cls=Mixer)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: {image: {kind: mixer}}")
    fails(f"{recipe}: model.image.depth: missing; expected int", recipe)


def test_a_plain_configuration_has_neither_kind_nor_size() -> None:
    fails("kind: no such key; there are: lr", {"kind": "x"}, cls=_Plain)
    fails("size: no such key; there are: lr", {"size": "x"}, cls=_Plain)


@dataclass(frozen=True, kw_only=True)
class _Plain(Config):
    lr: float = 1.0


# --- kinds


def test_a_base_is_read_by_its_kind() -> None:
    assert load(TowerConfig, {"kind": "mixer", "depth": 2}) == Mixer(depth=2)
    assert load(ViT, {"kind": "vit", "heads": 2}) == ViT(heads=2)
    assert load(ViT, {"heads": 2}) == ViT(heads=2)


def test_an_unknown_kind_lists_the_kinds_and_the_nearest() -> None:
    fails("model.image.kind: no kind 'vti' among mixer, vit; did you mean vit?", overrides=("model.image.kind=vti",))
    fails("kind: no kind 'mixer' among vit", {"kind": "mixer"}, cls=ViT)
    fails("kind: missing; one of mixer, vit", {}, cls=TowerConfig)
    fails("objectives.a.kind: missing; one of mixer, vit", {"objectives": {"a": {"depth": 3}}})
    fails("tower.kind: expected str, got ['vit'] (list)", {"tower": {"kind": ["vit"]}})


def test_the_file_that_named_an_unknown_kind_is_the_one_named(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("tower: {kind: vitt}")
    message = f"{recipe}: tower.kind: no kind 'vitt' among mixer, vit; did you mean vit?"
    fails(message, recipe, {"tower": {"dropout": 0.1}})


def test_a_new_kind_drops_the_keys_of_the_old_one() -> None:
    first = {"tower": {"kind": "vit", "width": 48, "dropout": 0.3}}
    assert load(Recipe, first, {"tower": {"kind": "mixer", "depth": 2}}).tower == Mixer(depth=2)
    assert load(Recipe, first, overrides=["tower.kind=mixer", "tower.depth=2"]).tower == Mixer(depth=2)
    assert load(Recipe, first, overrides=["tower.depth=2", "tower.kind=mixer"]).tower == Mixer(depth=2)
    back = load(Recipe, first, {"tower": {"kind": "mixer", "depth": 2}}, {"tower": {"kind": "vit"}}).tower
    assert back == ViT(width=16, patch_size=2), "the default's values come back, the first source's do not"


def test_a_new_kind_drops_the_keys_written_for_the_default_kind() -> None:
    assert load(Recipe, {"tower": {"width": 48}}, overrides=["tower.kind=mixer", "tower.depth=1"]).tower == Mixer(
        depth=1
    )


def test_the_same_kind_again_keeps_the_keys() -> None:
    recipe = load(Recipe, {"tower": {"kind": "vit", "width": 48}}, overrides=["tower.kind=vit", "tower.heads=3"])
    assert recipe.tower == ViT(width=48, heads=3, patch_size=2)


def test_a_kind_is_not_needed_where_the_default_has_one() -> None:
    assert load(Recipe, {"tower": {"heads": 2}}).tower == ViT(width=16, patch_size=2, heads=2)


# --- sizes


def test_a_size_expands_and_the_other_keys_of_its_mapping_win() -> None:
    assert load(TowerConfig, {"kind": "vit", "size": "B/32"}) == ViT(width=768, patch_size=32)
    assert load(TowerConfig, {"width": 96, "kind": "vit", "size": "B/32"}) == ViT(width=96, patch_size=32)
    assert load(ViT, overrides=["width=96", "size=B/32"]) == ViT(width=96, patch_size=32)


def test_a_size_in_a_later_source_wins_over_earlier_keys() -> None:
    written = to_dict(sized(ViT, "B/32"))
    assert "size" not in written
    assert load(ViT, written, overrides=["size=S/16"]) == ViT(width=384, patch_size=16)


def test_a_preset_may_hold_kinds_and_sizes() -> None:
    model = sized(CLIP, "ViT-B/32", image={"patch_size": 16})
    assert model == CLIP(image=ViT(width=768, patch_size=16), embed_dim=512)
    assert sized(CLIP, "ViT-B/32", image=Mixer(depth=3)).image == Mixer(depth=3)


def test_an_unknown_size_lists_the_sizes_and_the_nearest() -> None:
    fails("tower.size: no size 'B/33' among B/32, S/16; did you mean B/32?", {"tower": {"size": "B/33"}})
    fails("tower.size: expected str, got 32 (int)", {"tower": {"size": 32}})


# --- merging


def test_sources_merge_left_to_right(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("model: {image: {kind: vit, width: 48}, embed_dim: 7}\nsteps: 5\nlayers: [1, 2]")
    (tmp_path / "b.yaml").write_text("model: {image: {heads: 3}}\nlayers: [3]")
    recipe = load(Recipe, tmp_path / "a.yaml", str(tmp_path / "b.yaml"), {"steps": 6}, overrides=["model.embed_dim=8"])
    assert recipe.model == CLIP(image=ViT(width=48, heads=3), embed_dim=8)
    assert recipe.steps == 6
    assert recipe.layers == (3,), "a list is a value: the last one wins whole"


def test_a_mapping_fills_only_the_keys_that_it_names() -> None:
    assert load(Recipe, {"model": {"image": {"heads": 2}}}).model.image == ViT(width=32, heads=2)


def test_the_sources_are_left_as_they_were() -> None:
    source = {"objectives": {"a": {"kind": "vit"}}, "extra": {"x": [1]}}
    recipe = load(Recipe, source, overrides=["objectives.a.width=8", "extra.y=1"])
    recipe.extra["x"].append(2)
    assert source == {"objectives": {"a": {"kind": "vit"}}, "extra": {"x": [1]}}


def test_null_forgets_what_came_before() -> None:
    assert load(Recipe, {"path": "a"}, {"path": None}).path is None
    given = load(Recipe, {"objectives": {"a": {"kind": "vit", "width": 8}}}, {"objectives": {"a": None}},
                 {"objectives": {"a": {"kind": "vit"}}})  # fmt: skip
    assert given.objectives == {"a": ViT()}


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert load(Recipe, tmp_path / "empty.yaml") == Recipe()


def test_a_file_must_hold_a_mapping(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- 1\n")
    fails(f"{tmp_path}/list.yaml: expected a mapping for Recipe, got [1] (list)", tmp_path / "list.yaml")


def test_values_may_be_configurations() -> None:
    assert load(Recipe, {"tower": Mixer(depth=3), "objectives": {"a": ViT(width=8)}}) == Recipe(
        tower=Mixer(depth=3), objectives={"a": ViT(width=8)}
    )


# --- overrides


def test_overrides_reach_into_dicts() -> None:
    source = {"objectives": {"a": {"kind": "vit"}, "b": {"kind": "mixer", "depth": 1}}}
    recipe = load(Recipe, source, overrides=["objectives.a.width=8", "objectives.b=null", "objectives.c.kind=vit"])
    assert recipe.objectives == {"a": ViT(width=8), "c": ViT()}


def test_overrides_reach_into_a_default_dict_which_a_file_replaces() -> None:
    assert load(Recipe, overrides=["weights.clip=2"]).weights == {"clip": 2.0, "simclr": 0.5}
    assert load(Recipe, overrides=["weights.simclr=null"]).weights == {"clip": 1.0}
    assert load(Recipe, {"weights": {"clip": 2}}).weights == {"clip": 2.0}
    assert load(Recipe, {"weights": {"clip": 2}}, overrides=["weights.x=1"]).weights == {"clip": 2.0, "x": 1.0}


def test_removing_what_is_not_there_is_a_typo() -> None:
    fails("weights.simclrr: nothing to remove; did you mean simclr?", overrides=("weights.simclrr=null",))


def test_an_override_may_be_a_mapping_or_a_list() -> None:
    assert load(Recipe, overrides=["tower={kind: mixer, depth: 3}"]).tower == Mixer(depth=3)
    assert load(Recipe, overrides=["tower={kind: mixer}", "tower.depth=3"]).tower == Mixer(depth=3)
    assert load(Recipe, overrides=["betas=[0.5, 0.6]"]).betas == (0.5, 0.6)


@pytest.mark.parametrize("text", ["123", "true", "null", "1e-3", "*.tar", "a: b", "[x", "", "a=b", "%x", "é ×"])
def test_an_override_of_a_string_needs_no_quotes(text: str) -> None:
    assert load(Recipe, overrides=[f"name={text}"]).name == text


def test_an_override_of_a_string_may_have_quotes() -> None:
    assert load(Recipe, overrides=["name='a b'"]).name == "a b"
    assert load(Recipe, overrides=["path=3"]).path == Path("3")
    assert load(Recipe, overrides=["path=null"]).path is None
    assert load(Recipe, overrides=["precision=16"]).precision == 16


def test_the_last_of_two_overrides_of_one_key_wins() -> None:
    assert load(Recipe, overrides=["steps=1", "steps=2"]).steps == 2


@pytest.mark.parametrize("override", ["steps", "=3", "a..b=3", ".a=3", ""])
def test_an_override_without_key_and_value_is_refused(override: str) -> None:
    fails(f"override {override!r}: expected key=value, such as optimizer.lr=5e-4", overrides=(override,))


def test_an_override_below_a_scalar_is_refused() -> None:
    fails("steps: expected int, got {'a': '3'} (mapping)", overrides=("steps.a=3",))


# --- a configuration's own checks


def test_a_configurations_own_complaint_gets_its_path() -> None:
    fails("model.image.heads: 5 does not divide width 32", {"model": {"image": {"heads": 5}}})
    fails("tower: a patch has at least one pixel", {"tower": {"patch_size": 0}})
    fails("a patch has at least one pixel", {"patch_size": 0}, cls=ViT)


def test_the_complaint_names_the_file(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("tower: {heads: 5}")
    fails(f"{recipe}: tower.heads: 5 does not divide width 16", recipe)


# --- files


def test_a_missing_file_names_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("steps: 1")
    missing = tmp_path / "recpe.yaml"
    fails(f"{missing}: no such file or directory; beside it: recipe.yaml", missing)
    fails(f"{tmp_path}: is a directory", tmp_path)
