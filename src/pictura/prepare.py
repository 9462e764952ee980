"""A recipe made real: its data opened, its model and objectives built, whatever does not fit together refused."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import nn

from pictura.config import kinds
from pictura.config.messages import explain
from pictura.data.batches import Batches, LoaderConfig
from pictura.data.fit import FitConfig
from pictura.data.jitter import JitterConfig
from pictura.data.reader import FROM_SOURCE, GIVEN
from pictura.data.source import Source, SourceConfig
from pictura.data.text import Tokenizer, TokenizerConfig
from pictura.data.views import CropConfig, NoViewConfig
from pictura.distributed.ranks import broadcast, is_main
from pictura.distributed.ranks import world as processes
from pictura.evaluation.base import Evaluator, measure
from pictura.evaluation.embed import Embedder
from pictura.evaluation.prompts import spoken, templates_of
from pictura.evaluation.teach import fingerprint
from pictura.evaluation.zeroshot import classifier
from pictura.models.base import ModelConfig, TextConfig
from pictura.models.clip import CLIPConfig
from pictura.models.pictures import PictureModelConfig
from pictura.models.vild import ViLDConfig
from pictura.models.vilt import ViLTConfig
from pictura.models.vilt_parts import WordsConfig
from pictura.objectives.base import Objective, Task, weight_of
from pictura.objectives.questions import QuestionsConfig
from pictura.recipe import Recipe
from pictura.weights.folder import unfit
from pictura.weights.foreign import load_model
from pictura.weights.initial import inherited, on_tower, started, tower_of, with_answers, with_classes


@dataclass
class Prepared:
    """A recipe made real: everything opened and built, nothing trained yet. Its `recipe` names the model in full."""

    recipe: Recipe
    source: Source
    tokenizer: Tokenizer | None
    task: Task
    batches: Batches
    evaluators: dict[str, Evaluator]
    found: dict[str, float] = field(default_factory=dict)  # what the evaluators measured last

    def evaluate(self, embedder: Embedder) -> dict[str, float]:
        """Run the evaluators."""
        self.found = measure(self.evaluators, embedder)
        return self.found


def prepare(
    recipe: Recipe, tokenizer: Tokenizer | None = None, *, resumed: bool = False, rank: int = 0, world: int = 1
) -> Prepared:
    """Open data, build tokenizer, model and objectives; whatever does not fit together is a ValueError here.

    `resumed`: of a run that goes on, with its `tokenizer`; its recipe names the model in full, and `initial` is not
    needed any more.
    """
    source, tower = recipe.data.build(), None
    if recipe.tower is not None and not resumed:
        tower, _ = load_model(recipe.tower)
        assert isinstance(tower.config, ModelConfig) and isinstance(recipe.model, ViLDConfig)
        recipe = replace(recipe, model=on_tower(tower.config, recipe.model, seen(recipe)))
    initial, config, tokenizer = beginning(recipe, source, tokenizer, resumed)
    torch.manual_seed(recipe.seed)
    objectives = built_objectives(recipe)
    check_needs(objectives, source, recipe.data)
    check_batch(objectives, recipe.loader)
    config = with_targets(config, recipe, objectives, source)
    model = built_model(recipe, config, initial)
    if tower is not None and isinstance(config, ViLDConfig):
        model.load_state_dict(tower_of(tower, config), strict=False)
    if isinstance(config, ViLDConfig) and config.text is not None and not resumed:
        if initial is None:
            raise ValueError(
                "model.text: a detector's words are those of an `initial` model; leave it out, and name one"
            )
        check_teacher(initial, recipe, source)
        name_classes(model, config, Embedder(initial, tokenizer))
    task = Task(model, objectives, {name: weight_of(objective) for name, objective in recipe.objectives.items()})
    check_view(recipe, config)
    evaluators = built_evaluators(recipe, model)
    batches = Batches(
        source, recipe.view.build(), tokenizer, recipe.loader,
        seed=recipe.seed, rank=rank, world=world, needs=task.needs, others=task.others,
    )  # fmt: skip
    return Prepared(replace(recipe, model=config), source, tokenizer, task, batches, evaluators)


def beginning(
    recipe: Recipe, source: Source, tokenizer: Tokenizer | None, resumed: bool
) -> tuple[nn.Module | None, ModelConfig, Tokenizer | None]:
    """What a run begins with: the `initial` model, if it has one, its own model's configuration, and its tokenizer."""
    if recipe.initial is not None and not resumed:
        return begun_with(recipe.initial, recipe, source)
    assert recipe.model is not None
    if resumed:
        return None, recipe.model, tokenizer
    if recipe.tokenizer is not None:
        tokenizer = learnt(recipe.tokenizer, source)
    return None, recipe.model if tokenizer is None else fitted(recipe.model, tokenizer), tokenizer


def begun_with(name: str, recipe: Recipe, source: Source) -> tuple[nn.Module, ModelConfig, Tokenizer | None]:
    """As `beginning`, with the `initial` model of that name. Words that are new to it need a tokenizer of their own."""
    initial, tokenizer = load_model(name)
    assert isinstance(initial.config, ModelConfig)
    config = started(initial.config, recipe.model, seen(recipe))
    named = isinstance(config, ViLDConfig)  # its words are those of `initial`
    learns_words = hasattr(config, "text") and not named and type(config) is not type(initial.config)
    if not learns_words:
        if recipe.tokenizer is not None:
            raise ValueError(
                "tokenizer: given beside `initial`, whose model has its own; leave it out (tokenizer=null)"
            )
        return initial, config, tokenizer
    if recipe.tokenizer is None:
        raise ValueError("tokenizer: missing; the words are new to the model of `initial`: try {kind: wordpiece}")
    tokenizer = learnt(recipe.tokenizer, source)
    return initial, fitted(config, tokenizer), tokenizer


def built_objectives(recipe: Recipe) -> dict[str, Objective]:
    """The objectives by their names in the recipe."""
    objectives = {}
    for name, objective in recipe.objectives.items():
        try:
            objectives[name] = objective.build()
        except ValueError as error:
            raise ValueError(f"objectives.{name}.{error}") from error
    return objectives


def with_targets(
    config: ModelConfig, recipe: Recipe, objectives: Mapping[str, Objective], source: Source
) -> ModelConfig:
    """The model's configuration with the classes and the answers of the data, where it leaves them to these."""
    if any({"label", "labels"} & objective.needs for objective in objectives.values()):
        config = with_classes(config, source.class_names, source.least_classes)
    for objective in recipe.objectives.values():
        if isinstance(objective := getattr(objective, "of", objective), QuestionsConfig):
            config = with_answers(config, partial(source.answers, objective.least))
    return config


def built_model(recipe: Recipe, config: ModelConfig, initial: nn.Module | None) -> nn.Module:
    """The model, with what it takes over from `initial`."""
    with impossible("model"):
        model = config.build()
    if initial is not None:
        weights = inherited(initial, config, model)
        if problems := unfit(weights, model.state_dict()):
            raise ValueError(f"model: the weights of {recipe.initial} do not fit ({problems}); leave `model` out")
        model.load_state_dict(weights)
    return model


def name_classes(model: nn.Module, config: ViLDConfig, embedder: Embedder) -> None:
    """A detector's classes become the texts of their names, by the model that it begins with."""
    names = [spoken(name) for name in config.class_names]
    with torch.no_grad():
        model.classes.copy_(classifier(embedder, names, templates_of(config.templates)).T)  # type: ignore[operator]


def check_teacher(initial: nn.Module, recipe: Recipe, source: Source) -> None:
    """ValueError where regions were embedded by another CLIP than the one whose texts are to name them."""
    inside: Any = source
    while not hasattr(inside, "store") and hasattr(inside, "source"):
        inside = inside.source
    taught = getattr(inside, "store", None)
    if taught is None or not isinstance(initial.config, CLIPConfig):
        return
    if taught.about.get("teacher") not in (None, fingerprint(initial)):
        raise ValueError(
            f"data: the regions in {taught.folder} were embedded by another model than {recipe.initial}, the `initial` "
            "one; words and pictures must be of one, so teach again, into another folder"
        )


def built_evaluators(recipe: Recipe, model: nn.Module) -> dict[str, Evaluator]:
    """The evaluators by their names in the recipe, each of which can measure this model."""
    evaluators = {name: evaluator.build() for name, evaluator in recipe.evaluation.items()}
    for name, measures in evaluators.items():
        try:
            measures.check(model)
        except ValueError as error:
            raise ValueError(f"evaluation.{name}: {error}") from error
    return evaluators


@contextmanager
def impossible(where: str) -> Iterator[None]:
    """Sizes that make no module are a user's mistake at `where`, whoever finds it: torch, or a division by zero."""
    try:
        yield
    except (ValueError, ArithmeticError, RuntimeError) as error:
        raise ValueError(f"{where}: cannot be built with these sizes: {explain(error)}") from error


@contextmanager
def enough_memory(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """A device whose memory is too small for what happens inside is a ValueError that says what would help."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ValueError(
            f"the memory of {device} is too small for loader.batch_size {recipe.loader.batch_size}; "
            "set training.micro_batch to a part of it (the same losses), training.recompute=true, or a smaller batch"
        ) from error


def on_main(action: Callable[[], Any]) -> Any:
    """Do it in the main process; its answer, a JSON value, in all of them.

    What goes wrong there goes wrong in every process, so that none waits for it.
    """
    answer, failure = None, None
    if is_main():
        try:
            answer = action()
        except (ValueError, OSError, ArithmeticError) as error:
            failure = error
    told = broadcast({"answer": answer, "failure": None if failure is None else explain(failure)})
    if failure is not None:
        raise failure
    if told["failure"] is not None:
        raise ValueError(told["failure"])
    return told["answer"]


def learnt(config: TokenizerConfig, source: Source) -> Tokenizer:
    """The tokenizer, of the captions of `source` where it learns from some."""
    return same_everywhere(lambda: config.build(source.all_captions))


def same_everywhere(build: Callable[[], Tokenizer]) -> Tokenizer:
    """A tokenizer that the main process builds, in all of them: learning it takes a while, and files may differ."""
    if processes() == 1:
        return build()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "tokenizer.json"

        def written() -> str:
            build().save(file)
            return file.read_text(encoding="utf-8")

        file.write_text(on_main(written), encoding="utf-8")
        return Tokenizer.load(file)


def fitted(model: ModelConfig, tokenizer: Tokenizer) -> ModelConfig:
    """The model's configuration with the vocabulary that its tokenizer has."""
    text = getattr(model, "text", None)
    if not isinstance(text, TextConfig):
        return model
    text = replace(text, vocab_size=tokenizer.vocab_size, end_token=tokenizer.end)
    if isinstance(text, WordsConfig):
        text = replace(text, mask_token=tokenizer.mask)
    tokenizer.context_length = text.context_length
    return replace(model, text=text)  # type: ignore[call-arg]


def seen(recipe: Recipe) -> int:
    """Side of the pictures that the model sees in training: the view's, unless objectives make views of their own."""
    given = recipe.view.image_size
    sizes = {}
    for name, objective in recipe.objectives.items():
        try:
            sizes[name] = objective.image_size(given)
        except ValueError as error:
            raise ValueError(f"objectives.{name}.{error}") from error
    if len(set(sizes.values())) > 1:
        differ = ", ".join(f"{name} of {size}" for name, size in sizes.items())
        raise ValueError(f"objectives: the model would see pictures of two sizes ({differ}); make their views alike")
    return next(iter(sizes.values()), given)


def check_view(recipe: Recipe, config: ModelConfig) -> None:
    """ValueError where pictures are prepared for training in another way than the model will ask for afterwards."""
    if not isinstance(config, PictureModelConfig):
        return
    view, size = recipe.view, seen(recipe)
    if size != config.tower.image_size:
        what = f"view.image_size: {size}" if size == view.image_size else f"objectives: views of {size} pixels"
        raise ValueError(
            f"{what}, but model.image.image_size is {config.tower.image_size}; "
            "give both the same, or with `initial` the view's alone"
        )
    if isinstance(config, ViLDConfig):
        if not isinstance(view, JitterConfig | NoViewConfig):
            raise ValueError(
                "view.kind: boxes must go with their pixels, and pictures be of one size; try jitter or none"
            )
        return
    if isinstance(view, FitConfig):
        if "fit" not in config.resizes:
            raise ValueError("view.kind: fit: pictures would differ in size, and this model wants all of one; try crop")
        kept = getattr(config, "longest", None)
        if view.limit != replace(view, longest=kept).limit:
            raise ValueError(
                f"view.longest: {view.longest}, but model.longest is {kept}, by which pictures are read afterwards; "
                "give both the same"
            )
    if isinstance(config, ViLTConfig) and getattr(view, "patch_size", config.vit.patch_size) != config.vit.patch_size:
        raise ValueError(f"view.patch_size: {view.patch_size}, but the model's is {config.vit.patch_size}")  # type: ignore[attr-defined]
    for key in ("resize", "interpolation", "crop"):
        given, kept = getattr(view, key, None), getattr(config, key)
        if isinstance(view, CropConfig) and given != kept:
            raise ValueError(f"view.{key}: {given}, but model.{key} is {kept}, by which pictures are read afterwards")


def check_needs(objectives: Mapping[str, Objective], source: Source, config: SourceConfig) -> None:
    """ValueError where an objective needs what the data does not give, naming the kinds of data that can give it."""
    for name, objective in objectives.items():
        for need in sorted(FROM_SOURCE.get(need, need) for need in objective.needs - GIVEN):
            if need not in source.provides:
                kind, gives = getattr(config, "kind", ""), ", ".join(sorted(source.provides)) or "nothing"
                raise ValueError(
                    f"objectives.{name}: needs {need} of every example, but this data ({kind}) gives {gives}; "
                    f"kinds of data that can give {need}: {', '.join(givers(need)) or 'none'}"
                )


def check_batch(objectives: Mapping[str, Objective], loader: LoaderConfig) -> None:
    """ValueError where an objective compares the examples of a batch, and there is one."""
    for name, objective in objectives.items():
        if objective.across and loader.batch_size < 2:
            raise ValueError(
                f"loader.batch_size: {loader.batch_size}, but objectives.{name} compares the examples of a batch with "
                "each other; set it to 2 at least"
            )


def givers(key: str) -> list[str]:
    """The kinds of data that give `key`, and those where it depends on the files or the configuration."""
    sources: dict[str, type[Source]] = {
        kind: get_type_hints(cls.build)["return"]  # type: ignore[attr-defined]
        for kind, cls in kinds(SourceConfig).items()
    }
    return [kind for kind, source in sources.items() if not source.provides or key in source.provides]
