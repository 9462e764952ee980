"""A known model as the beginning of another: pictures of another size, a new head on its tower, other classes."""

from collections.abc import Callable
from dataclasses import fields, replace

import torch
from torch import Tensor, nn

from pictura.models.base import ModelConfig
from pictura.models.captioner import CaptionerConfig
from pictura.models.classifier import ClassifierConfig
from pictura.models.clip import CLIPConfig
from pictura.models.pictures import PictureModelConfig
from pictura.models.vild import ViLDConfig
from pictura.models.vilt import ViLTConfig
from pictura.models.vilt_parts import WordsConfig

PREPARED = ("resize", "interpolation", "crop")


def started(initial: ModelConfig, wanted: ModelConfig | None, image_size: int) -> ModelConfig:
    """The configuration of what begins with the model of `initial`: that model (`wanted` None), or `wanted`.

    Where `wanted` names no tower it gets that of `initial`, and how pictures are prepared for it; a ViLT gets the words
    of a ViLT too, and a captioner the space of a CLIP.
    """
    config = wanted or initial
    if isinstance(config, PictureModelConfig) and config.image is None:
        if not isinstance(initial, PictureModelConfig):
            raise ValueError(f"model.image: the `initial` model ({initial.kind}) has no tower for pictures")  # type: ignore[attr-defined]
        keys = ["image", "mean", "std", *(PREPARED if initial.resize in config.resizes else ())]
        config = replace(config, **{key: getattr(initial, key) for key in keys})
        if isinstance(config, ViLTConfig) and isinstance(initial, ViLTConfig):
            kept = initial.longest if initial.tower.image_size == image_size else None  # it is in pixels
            longest = kept if config.longest is None else config.longest
            config = replace(config, text=_words(initial.text, config.text), longest=longest)
        if isinstance(config, ViLDConfig):
            config = _named(initial, config)
        if isinstance(config, CaptionerConfig) and isinstance(initial, CLIPConfig):
            config = replace(config, embed_dim=initial.embed_dim, projection_bias=initial.projection_bias)
    elif isinstance(wanted, ViLDConfig):
        return _named(initial, wanted)
    elif wanted is not None:
        return wanted
    return of_size(config, image_size)


def _named(initial: ModelConfig, config: ViLDConfig) -> ViLDConfig:
    """A detector whose classes are texts of the `initial` model, in its space; or learnt, as those of another are."""
    if config.text is not None:
        return config
    if not isinstance(initial, CLIPConfig | ViLDConfig):
        raise ValueError(f"initial: this model ({initial.kind}) reads no texts; name a clip, and this one as `tower`")  # type: ignore[attr-defined]
    return replace(config, text=initial.text, embed_dim=initial.embed_dim)


def on_tower(tower: ModelConfig, detector: ViLDConfig, image_size: int) -> ViLDConfig:
    """The configuration of a detector on the picture tower of another model, prepared for pictures as that one was."""
    if not isinstance(tower, PictureModelConfig):
        raise ValueError(f"tower: this model ({tower.kind}) has none for pictures")  # type: ignore[attr-defined]
    found = of_size(replace(detector, image=tower.image, mean=tower.mean, std=tower.std), image_size)
    assert isinstance(found, ViLDConfig)
    if detector.image not in (ViLDConfig().image, found.image):
        raise ValueError("model.image: given beside `tower`, and is another; leave it out")
    return found


def tower_of(model: nn.Module, config: ViLDConfig) -> dict[str, Tensor]:
    """The weights of a model's picture tower, for pictures of the size in `config`."""
    return {name: value for name, value in resized(model, config).items() if name.startswith("image.")}


def _words(initial: WordsConfig, given: WordsConfig) -> WordsConfig:
    """The words of the `initial` model, with the epsilon that is given. ValueError for another vocabulary or length,
    which its weights or its tokenizer do not have."""
    for key in (field.name for field in fields(given)):
        value, kept = getattr(given, key), getattr(initial, key)
        if key != "eps" and value not in (kept, getattr(WordsConfig(), key)):
            raise ValueError(f"model.text.{key}: {value}, but the `initial` model's is {kept}; leave it out")
    return initial if given.eps == WordsConfig().eps else replace(initial, eps=given.eps)


def of_size(config: ModelConfig, image_size: int) -> ModelConfig:
    """The model's configuration, for pictures of another size."""
    if not isinstance(config, PictureModelConfig) or config.tower.image_size == image_size:
        return config
    try:
        return replace(config, image=config.tower.at(image_size))
    except ValueError as error:
        raise ValueError(f"view.image_size: {image_size} does not suit the model of `initial` ({error})") from error


def inherited(model: nn.Module, config: ModelConfig, fresh: nn.Module) -> dict[str, Tensor]:
    """What `fresh`, a module of `config`, begins with: the weights of `model`, fitted to the size of its pictures.

    Of a model of another kind, or where `config` asks for other classes, the tower alone: the head stays as it is in
    `fresh` (ViT, section 3.2: the whole head is replaced by one of zeros for fine-tuning). Of a CLIP, for a captioner,
    the tower's projection too. Of a ViLT all but the heads that `config` has not, or has for other answers.
    """
    weights, old = resized(model, config), model.config
    if isinstance(config, ViLDConfig) and isinstance(old, ViLDConfig):
        new = {"classes": fresh.state_dict()["classes"]} if config.class_names != old.class_names else {}
        return weights | new
    if isinstance(config, ViLDConfig) and isinstance(old, PictureModelConfig):
        same = type(old.tower) is type(config.tower) and old.tower.at(config.tower.image_size) == config.tower
        kept = ("text.", "text_projection.", "logit_scale", *(("image.",) if same else ()))
        return dict(fresh.state_dict()) | {name: value for name, value in weights.items() if name.startswith(kept)}
    if isinstance(old, ViLTConfig) and isinstance(config, ViLTConfig):
        return _joint(weights, old, config, fresh)
    if not isinstance(old, PictureModelConfig) or not isinstance(config, PictureModelConfig):
        return weights
    if type(old) is type(config) and not _new_head(old, config):
        return weights
    projected = isinstance(config, CaptionerConfig) and isinstance(old, CLIPConfig)
    kept = ("image.", "image_projection.") if projected else ("image.",)
    return dict(fresh.state_dict()) | {name: value for name, value in weights.items() if name.startswith(kept)}


def _joint(weights: dict[str, Tensor], old: ViLTConfig, config: ViLTConfig, fresh: nn.Module) -> dict[str, Tensor]:
    """A second picture's type begins as the first one's, and a rank as the score for a match (ViLT's released code)."""
    if old.answers != config.answers:
        weights = {name: value for name, value in weights.items() if not name.startswith("heads.answers.")}
    found = {name: weights.get(name, value) for name, value in fresh.state_dict().items()}
    types = found["type_embed"]
    if "pair" in config.tasks and len(types) == 2:
        found["type_embed"] = torch.cat([types, types[1:]])
    found["type_embed"] = found["type_embed"][: 3 if "pair" in config.tasks else 2]
    if "rank" in config.tasks and "rank" not in old.tasks and "matching" in old.tasks:
        found |= {f"heads.rank.{part}": weights[f"heads.matching.{part}"][1:] for part in ("weight", "bias")}
    return found


def resized(model: nn.Module, config: ModelConfig) -> dict[str, Tensor]:
    """The weights of `model`, those of its tower fitted to the size of pictures in `config`, where its tower is of the
    same kind. ValueError where such a tower cannot be of that size."""
    weights, old = dict(model.state_dict()), model.config
    if not isinstance(old, PictureModelConfig) or not isinstance(config, PictureModelConfig):
        return weights
    size = config.tower.image_size
    if old.tower.image_size == size or type(old.tower) is not type(config.tower):
        return weights
    try:
        old.tower.at(size)
    except ValueError as error:
        raise ValueError(f"model.image.{error}") from error
    tower = {name.removeprefix("image."): value for name, value in weights.items() if name.startswith("image.")}
    return weights | {f"image.{name}": value for name, value in config.tower.adapted(tower, old.tower).items()}


def _new_head(old: PictureModelConfig, config: PictureModelConfig) -> bool:
    if not isinstance(old, ClassifierConfig) or not isinstance(config, ClassifierConfig):
        return False
    heads = [(c.classes, c.class_names, c.pre_logits) for c in (old, config)]
    return heads[0] != heads[1]


def with_classes(config: ModelConfig, names: tuple[str, ...], least: int = 0) -> ModelConfig:
    """A classifier that leaves its classes to the data gets those; ValueError where it has others, or fewer than
    `least`, which bare numbers as labels ask for."""
    if isinstance(config, ViLDConfig):
        if config.text is None and config.class_names and config.class_names != names:
            raise ValueError(
                f"model.class_names: {_some(config.class_names)}, but the data has {_some(names)}; a detector that "
                "reads no texts keeps its classes"
            )
        return replace(config, class_names=names)
    if not isinstance(config, ClassifierConfig):
        return config
    if config.classes and least > config.classes:
        raise ValueError(
            f"model.classes: {config.classes}, but the data has labels up to {least - 1}; set it to {least}"
        )
    if not config.classes:
        if not names:
            how = f"; set it to {least} or more" if least else ""
            raise ValueError(f"model.classes: the data has bare numbers as labels, so say how many there are{how}")
        return replace(config, classes=len(names), class_names=names)
    if names and (config.class_names or names) != names:
        raise ValueError(
            f"model.class_names: {_some(config.class_names)}, but the data has {_some(names)}; "
            "for a new head on the `initial` model's tower, set model={kind: classifier}"
        )
    if len(names) > config.classes:
        raise ValueError(f"model.classes: {config.classes}, but the data has {len(names)}; leave it out")
    return config if config.class_names or len(names) != config.classes else replace(config, class_names=names)


def with_answers(config: ModelConfig, answers: Callable[[], tuple[str, ...]]) -> ModelConfig:
    """A model that answers questions, and has no answers yet, gets those of the data, which takes a while to find."""
    if not isinstance(config, ViLTConfig) or "answers" not in config.tasks or config.answers:
        return config
    return replace(config, answers=answers())


def _some(names: tuple[str, ...]) -> str:
    return f"{len(names)} classes ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
