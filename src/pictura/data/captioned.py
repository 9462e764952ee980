"""`captioned`: captions made from class names, so that labelled pictures can teach words (CLIP, 3.1.4)."""

from dataclasses import dataclass
from typing import ClassVar

from pictura.data.source import Example, Source, SourceConfig


@dataclass(frozen=True, kw_only=True)
class CaptionedConfig(SourceConfig):
    """`of` has labels and class names; each of `templates`, with the class name in its slot, is a caption."""

    kind: ClassVar[str] = "captioned"

    of: SourceConfig
    templates: tuple[str, ...] = ("a photo of a {}",)

    def __post_init__(self) -> None:
        for template in self.templates:
            if template.count("{}") != 1:
                raise ValueError(f"templates: {template!r} needs one slot, written {{}}, for the class name")

    def build(self) -> "Captioned":
        """Open the labelled source. Raises ValueError when it has no labels with names."""
        return Captioned(self, self.of.build())


class Captioned(Source):
    """The source's examples with captions beside their labels."""

    def __init__(self, config: CaptionedConfig, source: Source) -> None:
        if "label" not in source.provides or not source.class_names:
            raise ValueError("captioned: the data has no labels with class names; give it a `label` and `class_names`")
        self.source, self.templates = source, config.templates
        self.provides = source.provides | {"captions"}
        self.class_names, self.bad = source.class_names, source.bad

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        example = self.source[index]
        name = self.class_names[example["label"]]
        return Example(**{**example, "captions": [template.replace("{}", name) for template in self.templates]})
