"""A recipe: a run, whole, as a YAML file says it; and that recipe made real, its data opened and its model built."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import get_type_hints

import torch

from pictura.config import Config, kinds
from pictura.config import load as read_config
from pictura.config.messages import nearest
from pictura.data.batches import Batches, LoaderConfig
from pictura.data.reader import FROM_SOURCE
from pictura.data.source import Source, SourceConfig
from pictura.data.text import Tokenizer, TokenizerConfig
from pictura.data.views import ViewConfig
from pictura.evaluation.base import Evaluator, EvaluatorConfig, measure
from pictura.evaluation.embed import Embedder
from pictura.models.base import ModelConfig
from pictura.models.clip import CLIPConfig
from pictura.objectives.base import ObjectiveConfig, Task
from pictura.training.loop import TrainingConfig
from pictura.training.optimizers import AdamWConfig, OptimizerConfig
from pictura.training.schedules import CosineConfig, ScheduleConfig
from pictura.weights.folder import load_folder, unfit

RECIPES = resources.files("pictura") / "recipes"


@dataclass(frozen=True, kw_only=True)
class Recipe(Config):
    """A run, whole. `about` says what it is for and what it reached.

    initial: a model folder whose weights and tokenizer the run begins with; `model` and `tokenizer` are left out then,
    or `model` given to change what has no weights (dropout, for example).
    """

    about: str = ""
    seed: int = 0
    initial: Path | None = None
    model: ModelConfig | None = None
    objectives: dict[str, ObjectiveConfig]
    data: SourceConfig
    view: ViewConfig
    tokenizer: TokenizerConfig | None = None
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    optimizer: OptimizerConfig = field(default_factory=AdamWConfig)
    schedule: ScheduleConfig = field(default_factory=CosineConfig)
    training: TrainingConfig
    evaluation: dict[str, EvaluatorConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("model", "tokenizer"):
            if getattr(self, name) is None and self.initial is None:
                raise ValueError(f"{name}: missing; only a run that begins with an `initial` model can do without")


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(p.name.removesuffix(".yaml") for p in RECIPES.iterdir() if p.name.endswith(".yaml"))


def recipes() -> dict[str, str]:
    """The recipes that come with the package: name -> what it is for."""
    return {name: read_recipe(name).about for name in recipe_names()}


def read_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by the name it has in the package, or by its path, with `dotted.key=value` overrides."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return read_config(Recipe, path, overrides=overrides)
    if str(name) in (known := recipe_names()):
        with resources.as_file(RECIPES / f"{name}.yaml") as file:
            return read_config(Recipe, file, overrides=overrides)
    hint = nearest(name, known) or f"; there are {', '.join(known)}"
    if (path / "config.yaml").is_file():
        hint = f"; it is a run: go on with it by --resume {name}, or repeat it by {path / 'config.yaml'}"
    raise ValueError(f"recipe {name}: no .yaml file, and none that comes with pictura{hint}")


@dataclass
class Prepared:
    """A recipe made real: everything opened and built, nothing trained yet. Its `recipe` names the model in full."""

    recipe: Recipe
    source: Source
    tokenizer: Tokenizer
    task: Task
    batches: Batches
    evaluators: dict[str, Evaluator]
    found: dict[str, float] = field(default_factory=dict)  # what the evaluators measured last

    def evaluate(self, embedder: Embedder) -> dict[str, float]:
        """Run the evaluators."""
        self.found = measure(self.evaluators, embedder)
        return self.found


def prepare(recipe: Recipe, tokenizer: Tokenizer | None = None, *, rank: int = 0, world: int = 1) -> Prepared:
    """Open data, build tokenizer, model and objectives; whatever does not fit together is a ValueError here.

    `tokenizer` is that of a run that goes on; its recipe names the model in full.
    """
    source, initial = recipe.data.build(), None
    config: object = recipe.model
    if recipe.initial is not None:
        initial, tokenizer = load_folder(recipe.initial)
        config = recipe.model or initial.config
    elif tokenizer is None:
        assert recipe.tokenizer is not None and recipe.model is not None
        tokenizer = recipe.tokenizer.build(source.all_captions)
        config = fitted(recipe.model, tokenizer)
    assert isinstance(config, ModelConfig)
    torch.manual_seed(recipe.seed)
    model = config.build()
    if initial is not None:
        if problems := unfit(initial.state_dict(), model.state_dict()):
            raise ValueError(f"model: the weights of {recipe.initial} do not fit ({problems}); leave `model` out")
        model.load_state_dict(initial.state_dict())
    objectives = {name: objective.build() for name, objective in recipe.objectives.items()}
    task = Task(model, objectives, {name: objective.weight for name, objective in recipe.objectives.items()})
    check_needs(task, source, recipe.data)
    evaluators = {name: evaluator.build() for name, evaluator in recipe.evaluation.items()}
    view, needs = recipe.view.build(), task.needs
    batches = Batches(source, view, tokenizer, recipe.loader, seed=recipe.seed, rank=rank, world=world, needs=needs)
    return Prepared(replace(recipe, model=config), source, tokenizer, task, batches, evaluators)


def fitted(model: ModelConfig, tokenizer: Tokenizer) -> ModelConfig:
    """The model's configuration with the vocabulary that its tokenizer has."""
    if not isinstance(model, CLIPConfig):
        return model
    text = replace(model.text, vocab_size=tokenizer.vocab_size, end_token=tokenizer.end)
    tokenizer.context_length = text.context_length
    return replace(model, text=text)


def check_needs(task: Task, source: Source, config: SourceConfig) -> None:
    """ValueError where an objective needs what the data does not give, naming the kinds of data that can give it."""
    for name, objective in task.named.items():
        for need in sorted(FROM_SOURCE.get(need, need) for need in objective.needs):
            if need not in source.provides:
                kind, gives = getattr(config, "kind", ""), ", ".join(sorted(source.provides)) or "nothing"
                raise ValueError(
                    f"objectives.{name}: needs {need} of every example, but this data ({kind}) gives {gives}; "
                    f"kinds of data that can give {need}: {', '.join(givers(need)) or 'none'}"
                )


def givers(key: str) -> list[str]:
    """The kinds of data that give `key`, and those where it depends on the files or the configuration."""
    sources: dict[str, type[Source]] = {
        kind: get_type_hints(cls.build)["return"]  # type: ignore[attr-defined]
        for kind, cls in kinds(SourceConfig).items()
    }
    return [kind for kind, source in sources.items() if not source.provides or key in source.provides]
