"""docs/: the reference is what the code says, links lead somewhere, recipes, overrides and commands can be read, and
what is shown of models in Python and on the command line runs."""

import importlib.util
import re
import shlex
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image
from torch.distributed.run import get_args_parser

from pictura.cli import main, parse
from pictura.config import load
from pictura.config.text import parse as parse_yaml
from pictura.data.bpe import TrainTokenizerConfig
from pictura.evaluation.embed import Embedder
from pictura.evaluation.prompts import Prompts
from pictura.models.base import ModelConfig
from pictura.models.vilt import ViLTConfig
from pictura.prepare import prepare
from pictura.recipe import Recipe, recipe_names
from pictura.weights.convert import targets
from pictura.weights.folder import save_folder
from tests.data.files import jpeg, write
from tests.data.test_vqa import annotation, annotations, question, questions

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
LINKED = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DEMO = resources.files("pictura") / "recipes" / "demo.yaml"


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(language: str) -> list[Any]:
    """Every block of a language, as a parameter named by its page."""
    found = [(page, text) for page in PAGES for kind, text in BLOCK.findall(text_of(page)) if kind == language]
    return [pytest.param(text, id=f"{page.stem}-{number}") for number, (page, text) in enumerate(found)]


def prose(page: Path) -> str:
    """A page without its blocks."""
    return BLOCK.sub("", text_of(page))


def script() -> ModuleType:
    """docs/write_reference.py, imported."""
    spec = importlib.util.spec_from_file_location("write_reference", DOCS / "write_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_up_to_date() -> None:
    assert text_of(DOCS / "reference.md") == script().reference(), "run python docs/write_reference.py"


def test_the_reference_has_every_key_of_every_kind() -> None:
    page = text_of(DOCS / "reference.md")
    for kind in ("clip", "vit", "conv", "siglip", "table", "stream", "random_crop", "train", "adamw", "zeroshot"):
        assert re.search(rf"^### .*, `kind: {kind}`$", page, re.MULTILINE), kind
    training = page.partition("\n## training\n")[2].partition("\n## ")[0]
    assert "| `steps` | int | **needed** |" in training
    assert "| `precision` | `float32`, `bf16` | `bf16` |" in training
    assert re.search(r"^- `freeze`: \w", training, re.MULTILINE), "the docstring's words on a key"


def anchors(page: Path) -> set[str]:
    """GitHub's names of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{page.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_the_map_shows_every_page() -> None:
    shown = set(re.findall(r"\]\((\w+\.md)\)", text_of(DOCS / "index.md")))
    assert shown | {"index.md"} == {page.name for page in PAGES}


@pytest.mark.parametrize("text", blocks("yaml"))
def test_a_recipe_can_be_read(text: str) -> None:
    """A block with `training` and `data` is a recipe, one that begins with `templates` a file of prompts; any other is
    a part of a recipe, laid over the demo's."""
    part = parse_yaml(text)
    if text.startswith("templates:"):
        assert load(Prompts, part).templates
        return
    whole = {"objectives", "data", "training"} <= part.keys()
    load(Recipe, *([] if whole else [str(DEMO)]), part)


def recipe_of(page: str, name: str) -> dict[str, Any]:
    """The recipe that a page calls by the name of its file."""
    named = [text for kind, text in BLOCK.findall(text_of(DOCS / page)) if text.startswith(f"# {name}\n")]
    assert len(named) == 1
    return dict(parse_yaml(named[0]))


def vqa(folder: Path) -> None:
    """What the recipe for questions asks for, as visualqa.org and COCO have it: two parts, and one held out."""
    for picture, part, asked, told in (
        (1, "train2014", "v2_OpenEnded_mscoco_train2014_questions", "v2_mscoco_train2014_annotations"),
        (2, "val2014", "v2_OpenEnded_mscoco_val2014_questions", "v2_mscoco_val2014_annotations"),
        (3, "val2014", "held_out_questions", "held_out_annotations"),
    ):
        numbers = [1000 * picture + k for k in range(5)]
        questions(folder / f"{asked}.json", *(question(n, picture, "Is it red?") for n in numbers), subtype=part)
        annotations(folder / f"{told}.json", *(annotation(n, ["no"] * 3 + ["yes"] * 7, "yes/no") for n in numbers))
        write(folder / part / f"COCO_{part}_{picture:012d}.jpg", jpeg(picture))


def test_a_model_for_questions_begins_as_its_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both recipes whole, their data in the official files; only the training is left out."""
    monkeypatch.chdir(tmp_path)
    vqa(tmp_path / "vqa")
    first = prepare(load(Recipe, recipe_of("vilt.md", "pretrain.yaml"), overrides=["tokenizer.max_captions=100"]))
    save_folder(Path("runs/pretrain/model"), first.task.model, first.tokenizer)
    prepared = prepare(load(Recipe, recipe_of("vilt.md", "questions.yaml"), overrides=["loader.batch_size=4"]))
    assert isinstance(prepared.recipe.model, ViLTConfig)
    assert prepared.recipe.model.answers == ("yes",), "of 10 questions: more than 9, those of both files"
    batch = next(iter(prepared.batches.iterate()))
    assert prepared.task(batch).loss.isfinite()
    found = prepared.evaluate(Embedder(prepared.task.model, prepared.tokenizer))
    assert found == {"questions/accuracy": 1.0, "questions/yes or no": 1.0}


def overrides() -> list[str]:
    """Every `dotted.key=value` that stands in the text of a page."""
    found = {word for page in (*PAGES, ROOT / "README.md") for word in re.findall(r"`([\w.]+=[^`\s]+)`", prose(page))}
    return sorted(word for word in found - {"dotted.key=value"} if not word[0].isupper())  # not HF_HUB_OFFLINE=1


@pytest.mark.parametrize("override", overrides())
def test_an_override_in_the_text_can_be_read(override: str) -> None:
    """Of a model, as `pictura convert` takes it, or of a recipe."""
    if override.startswith(("image.", "classes=")):
        load(ModelConfig, {"kind": "classifier", "image": {"kind": "vit"}}, overrides=[override])
    else:
        load(Recipe, str(DEMO), overrides=[override])


def test_the_text_has_overrides() -> None:
    assert len(overrides()) > 10, "the pattern finds them no more"


@pytest.mark.parametrize("text", blocks("sh"))
def test_a_command_can_be_read(text: str) -> None:
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["torchrun"]:
            asked = get_args_parser().parse_args(words[1:])
            assert (asked.module, asked.training_script) == (True, "pictura"), line
            words = ["pictura", *asked.training_script_args]
        assert words[0] == "pictura", line
        if "-h" in words:
            with pytest.raises(SystemExit, match="0"):
                parse(words[1:])
            continue
        arguments = parse(words[1:])
        if arguments.name == "convert":
            assert arguments.to in targets(), line
            continue
        recipe = getattr(arguments, "recipe", None) or getattr(arguments, "on", None) or "demo"
        if recipe in recipe_names():
            changes = getattr(arguments, "overrides", [])
            load(Recipe, str(DEMO if recipe == "demo" else DEMO.parent / f"{recipe}.yaml"), overrides=changes)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the snippets name, and in it we are: two photographs, a CLIP, a classifier of two kinds."""
    tokenizer = TrainTokenizerConfig(vocab_size=600).build(lambda: ["a dog on the beach"])
    image = {"kind": "vit", "image_size": 32, "patch_size": 16, "width": 64, "depth": 2, "heads": 1}
    text = {"kind": "transformer", "width": 32, "depth": 1, "heads": 2, "vocab_size": tokenizer.vocab_size}
    clip = {"kind": "clip", "embed_dim": 16, "image": image, "text": text | {"end_token": tokenizer.end}}
    kinds = {"kind": "classifier", "image": image, "classes": 2, "class_names": ["child", "dog"]}
    for name, config, read_by in (("mine", clip, tokenizer), ("kinds", kinds, None)):
        save_folder(tmp_path / "runs" / name / "model", load(ModelConfig, config).build(), read_by)
    (tmp_path / "photos").mkdir()
    for name in ("0001.jpg", "0002.jpg"):
        Image.new("RGB", (40, 48), "teal").save(tmp_path / "photos" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("text", blocks("python"))
def test_a_snippet_runs(text: str, place: Path) -> None:
    exec(compile(text, "docs", "exec"), {})


MODELS_OF_OURS = re.compile(r"^pictura (?:classify|convert|embed) runs/(?:mine|kinds)/model .*$", re.MULTILINE)


@pytest.mark.parametrize("page", ["models", "weights"])
def test_commands_on_models_of_ours_run(page: str, place: Path) -> None:
    lines = MODELS_OF_OURS.findall(text_of(DOCS / f"{page}.md"))
    assert lines
    for line in lines:
        assert main(shlex.split(line, comments=True)[1:]) == 0, line
    written = [path for path in place.iterdir() if path.name not in ("runs", "photos")]
    assert len(written) >= len(lines)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_of_the_package_that_are_named_exist(page: Path) -> None:
    for name in re.findall(r"`(\w+/\w+\.py)`", prose(page)):
        assert (ROOT / "src" / "pictura" / name).exists() or (ROOT / name).exists(), f"{page.name}: {name}"


def test_the_rooms_are_those_that_there_are() -> None:
    drawing = BLOCK.findall(text_of(DOCS / "design.md"))[0][1]
    drawn = set(re.findall(r"\b(\w+)/", drawing))
    package = ROOT / "src" / "pictura"
    rooms = {path.name for path in package.iterdir() if any(path.glob("*.py")) or any(path.glob("*.yaml"))}
    assert drawn == rooms
    files = {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    assert set(re.findall(r"\b\w+\.py", drawing)) == files
