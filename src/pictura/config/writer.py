"""A configuration as plain values and as YAML; `load` reads both back to an equal configuration."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from pictura.config.text import dump


def to_dict(config: object) -> dict[str, Any]:
    """The configuration as dicts, lists and scalars, every field written out, `kind` first where a class has one."""
    assert is_dataclass(config), f"{config!r} is not a configuration"
    kind = getattr(config, "kind", None)
    plain = {field.name: to_plain(getattr(config, field.name)) for field in fields(config) if field.init}
    return plain if kind is None else {"kind": kind, **plain}


def to_yaml(config: object) -> str:
    """The configuration as YAML, in the order of its fields."""
    return dump(to_dict(config))


def to_plain(value: object) -> Any:
    """`value` with dataclasses and mappings as dicts, tuples as lists and paths as strings."""
    if is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {key: to_plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
