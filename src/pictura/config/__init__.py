"""Strict configuration: YAML files and dotted overrides, merged left to right into frozen dataclasses.

    @dataclass(frozen=True, kw_only=True)
    class ModelConfig(Config): ...                     # a choice: its subclasses name themselves with `kind`

    @dataclass(frozen=True, kw_only=True)
    class ViTConfig(ModelConfig):
        kind: ClassVar[str] = "vit"
        sizes: ClassVar[dict[str, dict[str, object]]] = {"S/16": {"width": 384, "patch_size": 16}}
        width: int = 768
        patch_size: int = 32

    load(ModelConfig, {"kind": "vit", "size": "S/16"}, overrides=["width=192"])

gives `ViTConfig(width=192, patch_size=16)`.
"""

from pictura.config.loader import load, sized
from pictura.config.schema import Config, kinds
from pictura.config.writer import to_dict, to_yaml

__all__ = ["Config", "kinds", "load", "sized", "to_dict", "to_yaml"]
