import json
import re
from pathlib import Path

import pytest

from pictura.config import load
from pictura.evaluation.prompts import PROMPTS, Prompts, fill, prompts_of, sets, spoken, templates_of


def test_the_named_sets_are_the_published_ones() -> None:
    metadata = pytest.importorskip("open_clip.zero_shot_metadata")
    assert sets()["imagenet"].templates == tuple(template("{}") for template in metadata.OPENAI_IMAGENET_TEMPLATES)
    assert sets()["simple"].templates == tuple(template("{}") for template in metadata.SIMPLE_IMAGENET_TEMPLATES)


def test_the_scene_set_is_vilds() -> None:
    assert len(set(sets()["scene"].templates)) == len(sets()["scene"].templates) == 63
    assert [fill(template, "Owl") for template in sets()["scene"].templates if "scene" in template] == [
        "There is an Owl in the scene.", "There is the Owl in the scene.", "This is a photo of an Owl in the scene.",
        "This is a photo of the Owl in the scene.", "This is a photo of one Owl in the scene.",
    ]  # fmt: skip
    assert fill(sets()["scene"].templates[0], "dog") == "There is a dog in the scene."
    slots = {slot for template in sets()["scene"].templates for slot in re.findall(r"{\w*}", template)}
    assert slots == {"{}", "{article}"}


def test_names_are_said_as_people_say_them() -> None:
    assert spoken("aerosol_can/spray") == "aerosol can or spray"


@pytest.mark.parametrize("name", sets())
def test_a_set_is_a_file_that_anybody_could_have_written(name: str) -> None:
    assert load(Prompts, Path(str(PROMPTS / f"{name}.yaml"))) == sets()[name]


def test_every_set_has_slots() -> None:
    assert all(template.count("{}") == 1 for prompts in sets().values() for template in prompts.templates)


def test_choices() -> None:
    assert templates_of("photo") == ("a photo of a {}.",)
    assert templates_of("my {}") == ("my {}",)
    assert templates_of(("a {}", "the {}")) == ("a {}", "the {}")


@pytest.mark.parametrize(
    ("choice", "said"),
    [("phto", "did you mean photo"), (("a {}", "a dog"), "'a dog' has no {}"), ((), "none given"), ("a {0}", "no set")],
)
def test_a_template_without_a_slot_is_refused(choice: str | tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("{", r"\{").replace("}", r"\}")):
        templates_of(choice)


def test_braces_elsewhere_are_left_alone() -> None:
    assert fill("a {} {x} 100%", "set {0} {}") == "a set {0} {} {x} 100%"
    assert fill("{article} {}", "{article} {}") == "a {article} {}"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"templates": ["a {}"], "weights": [1, 2]}, "weights: 2 of them, and 1 templates"),
        ({"templates": ["a {}"], "weights": [0]}, "weights: they must not be negative and not all zero"),
        ({"templates": ["a dog"]}, "templates: 'a dog' has no {} where the class name goes"),
        ({"templates": []}, "templates: none given"),
        ({"descriptions": {"dog": []}}, "descriptions: none given of 'dog'"),
        ({"share": 2}, "share: 2.0 is no share"),
        ({"temperature": 0}, "temperature: 0.0 must be above zero"),
        ({"template": ["a {}"]}, "did you mean templates?"),
    ],
)
def test_a_file_of_prompts_that_cannot_be(given: dict[str, object], said: str, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(json.dumps(given))
    with pytest.raises(ValueError) as caught:
        prompts_of(path)
    assert said in str(caught.value) and "p.yaml" in str(caught.value)


def test_a_file_of_prompts(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("templates: ['a {}', 'the {}']\nweights: [1, 3]\ndescriptions: {dog: [hound, pup]}\n")
    found = prompts_of(str(path))
    assert found == prompts_of(path) and found.shares == (0.25, 0.75)
    assert found.phrases("dog") == ("hound", "pup") and found.phrases("cat") == ("cat",)
    assert prompts_of(found) is found


def test_a_text_file_of_templates(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes("\ufeffa {}\r\n\r\n  the {} é\n".encode())
    assert prompts_of(path).templates == templates_of(str(path)) == ("a {}", "the {} é")
    assert prompts_of("a {}.txt").templates == ("a {}.txt",)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"a {}\na dog\n", "'a dog' has no {}"), (b"\n", "none given"), (b"\xff {}", "is no UTF-8 text"),
     (b"a {}\n" * 300_000, "more than templates can be"), (None, "no templates there (No such file")],
)  # fmt: skip
def test_a_text_file_that_cannot_be(content: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        prompts_of(path)
    assert said in str(caught.value) and str(caught.value).startswith(f"{path}: ")
