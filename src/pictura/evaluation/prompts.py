"""What is said of each class in zero-shot classification (Radford et al. 2021, section 3.1.4), as a file says it.

The sets that come with the package are such files, in `prompts/`. A template has one slot, `{}`, for the class name, or
for each of its `descriptions`, and may have `{article}`, for the "a" or "an" that suits it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

from pictura.config import Config, load
from pictura.config.messages import nearest
from pictura.config.text import read

PROMPTS = resources.files("pictura") / "prompts"
FILES = (".yaml", ".yml", ".txt")
LARGEST = 2**20  # bytes of a text file of templates


@dataclass(frozen=True, kw_only=True)
class Prompts(Config):
    """Sentences about classes, and how what they say is put together.

    weights: of the templates, equal by default. average: of the sentences' `vectors`, one classifier as quick as one
    sentence's, or of the `probabilities` that each template by itself gives.
    descriptions: {class: phrases} that stand for its name, such as what it looks like (Menon and Vondrick 2023) or its
    synonyms. examples: {class: picture files}, whose vectors' mean makes up the `share` of the class's vector that the
    texts leave.
    temperature: that the cosines are divided by before a softmax, by default the model's own. known: (slope, offset) of
    a logistic curve on a picture's highest cosine, which gives the chance that it is of any of the classes.
    """

    about: str = ""
    templates: tuple[str, ...] = ("{}",)
    weights: tuple[float, ...] = ()
    average: Literal["vectors", "probabilities"] = "vectors"
    descriptions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    examples: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    share: float = 0.5
    temperature: float | None = None
    known: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not self.templates:
            raise ValueError("templates: none given; '{}' alone uses the bare class name")
        for template in self.templates:
            if "{}" not in template:
                example = "a photo of a {}."
                raise ValueError(
                    f"templates: {template!r} has no {{}} where the class name goes; write it as in {example!r}"
                )
        if self.weights and len(self.weights) != len(self.templates):
            raise ValueError(f"weights: {len(self.weights)} of them, and {len(self.templates)} templates")
        if self.weights and not (min(self.weights) >= 0 and 0 < sum(self.weights) < math.inf):
            raise ValueError("weights: they must not be negative and not all zero")
        if empty := next((name for name, phrases in self.descriptions.items() if not phrases), None):
            raise ValueError(f"descriptions: none given of {empty!r}; leave it out, and its name is used")
        if not 0 <= self.share <= 1:
            raise ValueError(f"share: {self.share} is no share, from 0 to 1")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature: {self.temperature} must be above zero; CLIP's own is 0.01")

    @property
    def shares(self) -> tuple[float, ...]:
        """The templates' weights, which sum to 1."""
        weights = self.weights or (1.0,) * len(self.templates)
        return tuple(weight / sum(weights) for weight in weights)

    def phrases(self, name: str) -> tuple[str, ...]:
        """What goes into the slots for a class."""
        return self.descriptions.get(name, (name,))


@cache
def sets() -> dict[str, Prompts]:
    """The sets that come with the package, by name."""
    files = sorted((file for file in PROMPTS.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    found = dict[str, Prompts]()
    for file in files:
        with resources.as_file(file) as path:  # ours: `load` distrusts it, and imports all of this room for that
            content = read(path)
            found[path.stem] = Prompts(about=content["about"], templates=tuple(content["templates"]))
    return found


def prompts_of(choice: str | Path | Sequence[str] | Prompts) -> Prompts:
    """A set's name, a .yaml file, a .txt file of one template a line, one template, or several -> prompts. ValueError
    for one without a slot, or an unknown name."""
    if isinstance(choice, Prompts):
        return choice
    if isinstance(choice, Path) or (isinstance(choice, str) and choice.endswith(FILES) and "{}" not in choice):
        path = Path(choice).expanduser()
        return from_lines(path) if path.suffix == ".txt" else load(Prompts, path)
    if not isinstance(choice, str):
        return Prompts(templates=tuple(choice))
    if choice in sets():
        return sets()[choice]
    if "{}" not in choice:
        hint = nearest(choice, sets())
        raise ValueError(
            f"templates: {choice!r} is no set ({', '.join(sets())}) and has no {{}} where the class name goes{hint}"
        )
    return Prompts(templates=(choice,))


def from_lines(path: Path) -> Prompts:
    """The templates in a text file, UTF-8, one on each line that is not empty. ValueError, with the file, for one that
    cannot be read, is too large, or has a line without a slot."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"{path}: above {LARGEST:,} bytes, more than templates can be; give one sentence a line")
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except OSError as error:
        raise ValueError(f"{path}: no templates there ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no UTF-8 text ({error.reason} at byte {error.start}); convert it") from None
    try:
        return Prompts(templates=tuple(line for line in lines if line))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def templates_of(choice: str | Path | Sequence[str]) -> tuple[str, ...]:
    """As `prompts_of`, the templates alone."""
    return prompts_of(choice).templates


def spoken(name: str) -> str:
    """A class name as data sets write it -> as people say it: "aerosol_can/spray" is "aerosol can or spray"."""
    return " ".join(name.replace("_", " ").replace("/", " or ").rstrip(".").split())


def fill(template: str, name: str) -> str:
    """Plain replacement: a class name may hold braces, and so may the rest of a template."""
    article = "an" if name.lower().startswith(tuple("aeiou")) else "a"
    return template.replace("{article}", article).replace("{}", name)
