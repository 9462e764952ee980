"""A recipe: a run, whole, as a YAML file says it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from pictura.config import Config
from pictura.config import load as read_config
from pictura.config.messages import nearest
from pictura.config.text import read as read_yaml
from pictura.data.batches import LoaderConfig
from pictura.data.source import SourceConfig
from pictura.data.text import TokenizerConfig
from pictura.data.views import ViewConfig
from pictura.evaluation.base import EvaluatorConfig
from pictura.models.base import ModelConfig
from pictura.models.vild import ViLDConfig
from pictura.objectives.base import ObjectiveConfig
from pictura.training.config import TrainingConfig
from pictura.training.optimizers import AdamWConfig, OptimizerConfig
from pictura.training.schedules import CosineConfig, ScheduleConfig

RECIPES = resources.files("pictura") / "recipes"


@dataclass(frozen=True, kw_only=True)
class Recipe(Config):
    """A run, whole. `about` says what it is for and what it reached.

    initial: a model, as every command takes it, whose weights and tokenizer the run begins with; `model` and
    `tokenizer` are left out then. `model` may be given to change what has no weights (dropout, for example) or, without
    a tower, to put something new on the tower of `initial`: `model: {kind: classifier}` for fine-tuning. Pictures may
    be of another size than that model's, which `view` says: its positions are resized.
    tower: of a detector, a model on whose picture tower it is built, such as one of ImageNet; its words are those of
    `initial`, if there is one.
    """

    about: str = ""
    seed: int = 0
    initial: str | None = None
    tower: str | None = None
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
        if self.model is None and self.initial is None:
            raise ValueError("model: missing; only a run that begins with an `initial` model can do without")
        if self.tower is not None and not isinstance(self.model, ViLDConfig):
            raise ValueError("tower: only a detector is built on another model's, model: {kind: vild}; try `initial`")
        if self.initial is None and self.tokenizer is None and getattr(self.model, "text", None) is not None:
            raise ValueError("tokenizer: missing; a model that reads texts needs one, such as {kind: train}")


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


def is_data(given: str) -> bool:
    """Whether a word names data, and not a recipe: a .yaml file is a recipe unless it says `kind`."""
    if given in recipe_names():
        return False
    if given.endswith((".yaml", ".yml")):
        content = read_yaml(given)
        return isinstance(content, dict) and "kind" in content
    if (Path(given) / "config.yaml").is_file():
        return False  # a run, of which `read_recipe` says what it is
    return os.path.exists(given) or "://" in given or given.endswith(".tar")


def evaluation_of(recipe: Recipe) -> Mapping[str, EvaluatorConfig]:
    """ValueError for a recipe that measures nothing."""
    if not recipe.evaluation:
        raise ValueError("this recipe has no `evaluation`; add one, for example evaluation.retrieval.kind=retrieval")
    return recipe.evaluation
