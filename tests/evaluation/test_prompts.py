import re

import pytest

from pictura.evaluation.prompts import SETS, fill, spoken, templates_of


def test_the_named_sets_are_the_published_ones() -> None:
    metadata = pytest.importorskip("open_clip.zero_shot_metadata")
    assert SETS["imagenet"] == tuple(template("{}") for template in metadata.OPENAI_IMAGENET_TEMPLATES)
    assert SETS["simple"] == tuple(template("{}") for template in metadata.SIMPLE_IMAGENET_TEMPLATES)


def test_the_scene_set_is_vilds() -> None:
    assert len(set(SETS["scene"])) == len(SETS["scene"]) == 63
    assert [fill(template, "Owl") for template in SETS["scene"] if "scene" in template] == [
        "There is an Owl in the scene.", "There is the Owl in the scene.", "This is a photo of an Owl in the scene.",
        "This is a photo of the Owl in the scene.", "This is a photo of one Owl in the scene.",
    ]  # fmt: skip
    assert fill(SETS["scene"][0], "dog") == "There is a dog in the scene."
    slots = {slot for template in SETS["scene"] for slot in re.findall(r"{\w*}", template)}
    assert slots == {"{}", "{article}"}


def test_names_are_said_as_people_say_them() -> None:
    assert spoken("aerosol_can/spray") == "aerosol can or spray"


def test_every_set_has_slots() -> None:
    assert all(template.count("{}") == 1 for templates in SETS.values() for template in templates)


def test_choices() -> None:
    assert templates_of("photo") == ("a photo of a {}.",)
    assert templates_of("my {}") == ("my {}",)
    assert templates_of(("a {}", "the {}")) == ("a {}", "the {}")


@pytest.mark.parametrize(
    ("choice", "said"),
    [("phto", "no set"), (("a {}", "a dog"), "'a dog' has no {}"), ((), "none given"), ("a {0}", "no set")],
)
def test_a_template_without_a_slot_is_refused(choice: str | tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("{", r"\{").replace("}", r"\}")):
        templates_of(choice)


def test_braces_elsewhere_are_left_alone() -> None:
    assert fill("a {} {x} 100%", "set {0} {}") == "a set {0} {} {x} 100%"
    assert fill("{article} {}", "{article} {}") == "a {article} {}"
