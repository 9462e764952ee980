"""The loader: several sources, merged left to right, checked against the dataclass that they fill.

For every place in the configuration the loader keeps the list of what each source says there (`Layer`), oldest first,
and decides at that place, where the type is known: the last value wins for a scalar or a list, mappings merge, a new
`kind` forgets the layers that were written for the old one, and `size` lays its preset just below its own mapping.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, TypeVar, Union, cast, get_args, get_type_hints

from pictura.config.messages import describe, name_of, nearest, origin_of
from pictura.config.schema import kinds
from pictura.config.text import parse, read
from pictura.config.writer import to_dict, to_plain

T = TypeVar("T")


class Text(str):
    """The spelling of an override's value, read as YAML once the type of its place is known."""


class Layer(NamedTuple):
    """What one source says about one place."""

    value: Any
    source: str = ""  # the file, for messages
    text: str | None = None  # an override's own spelling: a field of type str takes `name=123` as "123"
    override: bool = False

    def at(self, key: str) -> "Layer":
        inner = self.value[key]
        if isinstance(inner, Text):
            return self._replace(value=_parse_override(inner), text=str(inner))
        return self._replace(value=to_dict(inner) if is_dataclass(inner) else inner, text=None)


def load(cls: type[T], *sources: Path | str | Mapping[str, Any], overrides: Sequence[str] = ()) -> T:
    """The configuration `cls` from YAML files and mappings, merged left to right, then `dotted.key=value` overrides.

    Values that no source gives keep the default of their field; a mapping fills only the keys that it names. All
    overrides together are one source, so their order does not matter unless they name the same key. A dict's entry
    given as null is removed. Raises ValueError with the file, the path of the key, and what would work.
    """
    layers = [_source(source) for source in sources]
    if overrides:
        layers.append(Layer(_tree(overrides), override=True))
    return cast(T, _build(cls, layers or [Layer({})], "", MISSING))


def sized(cls: type[T], size: str, **overrides: Any) -> T:
    """The named size of `cls`, with some of its fields replaced: `sized(ViTConfig, "B/32", image_size=384)`."""
    return load(cls, {"size": size, **overrides})


def _source(source: Path | str | Mapping[str, Any]) -> Layer:
    if isinstance(source, Mapping):
        return Layer(source)
    value = read(source)
    return Layer({} if value is None else value, f"{source}")


def _tree(overrides: Iterable[str]) -> dict[str, Any]:
    """`["a.b=1", "a.c=x"]` -> `{"a": {"b": Text("1"), "c": Text("x")}}`."""
    tree: dict[str, Any] = {}
    for override in overrides:
        dotted, equals, text = override.partition("=")
        *parents, leaf = dotted.strip().split(".")
        if not equals or not all([*parents, leaf]):
            raise ValueError(f"override {override!r}: expected key=value, such as optimizer.lr=5e-4")
        node = tree
        for parent in parents:
            inner = node.get(parent)
            inner = _parse_override(inner) if isinstance(inner, Text) else inner
            node[parent] = inner if isinstance(inner, dict) else {}
            node = node[parent]
        node[leaf] = Text(text)
    return tree


def _parse_override(text: Text) -> Any:
    try:
        return parse(text)
    except ValueError:  # not YAML, such as `*.tar`: the words themselves
        return str(text)


def _build(tp: Any, layers: list[Layer], path: str, default: Any) -> Any:
    """The value of type `tp` that `layers` (at least one) give for `path`; `default` lies below all of them."""
    origin = origin_of(tp)
    if tp in (Any, object):
        return to_plain(layers[-1].value)
    if origin in (Union, UnionType):
        return _build_union(tp, layers, path, default)
    if origin is Literal:
        return _build_literal(tp, layers[-1], path)
    if is_dataclass(origin):
        return _build_dataclass(origin, layers, path, default)
    if origin in (dict, Mapping):
        return _build_dict(tp, layers, path, default)
    if origin in (list, tuple):
        return _build_sequence(tp, layers[-1], path)
    return _build_scalar(tp, layers[-1], path)


def _build_scalar(tp: Any, layer: Layer, path: str) -> Any:
    value = layer.value
    if tp in (str, Path) and layer.text is not None and not isinstance(value, str):
        value = layer.text
    if type(value) is tp:
        return value
    if tp is float and type(value) is int and abs(value) < 1 << 1023:
        return float(value)
    if tp is Path and isinstance(value, str | Path):
        return Path(value)
    if tp is NoneType and value is None:
        return None
    assert tp in (int, float, str, bool, Path, NoneType), f"{path}: a configuration cannot hold {tp!r}"
    raise _wrong_type(tp, layer, path)


def _build_literal(tp: Any, layer: Layer, path: str) -> Any:
    options = get_args(tp)
    for value in (layer.value, layer.text):
        for option in options:
            if type(option) is type(value) and option == value:
                return option
    raise _wrong_type(tp, layer, path, nearest(layer.value, options))


def _build_union(tp: Any, layers: list[Layer], path: str, default: Any) -> Any:
    """The member of exactly the value's type where there is one, else the first member that takes the value."""
    last = layers[-1]
    members = sorted(get_args(tp), key=lambda member: type(last.value) is not origin_of(member))
    failures: list[ValueError] = []
    for member in members:
        try:
            return _build(member, layers, path, default)
        except ValueError as error:
            if _same_shape(member, last.value):
                failures.append(error)
    raise failures[0] if len(failures) == 1 else _wrong_type(tp, last, path)


def _same_shape(tp: Any, value: Any) -> bool:
    """Whether `value` is a mapping or list where `tp` wants one, so that `tp`'s own complaint is the useful one."""
    origin = origin_of(tp)
    if is_dataclass(origin) or origin in (dict, Mapping):
        return isinstance(value, Mapping)
    return origin in (list, tuple) and isinstance(value, list | tuple)


def _build_sequence(tp: Any, layer: Layer, path: str) -> Any:
    if not isinstance(layer.value, list | tuple):
        raise _wrong_type(tp, layer, path)
    origin, args = origin_of(tp), get_args(tp)
    if origin is list or not args or args[-1] is Ellipsis:
        types = [args[0] if args else Any] * len(layer.value)
    elif len(args) == len(layer.value):
        types = list(args)
    else:
        raise _wrong_type(tp, layer, path)
    items = [
        _build(inner, [layer._replace(value=to_plain(value), text=None)], f"{path}[{index}]", MISSING)
        for index, (inner, value) in enumerate(zip(types, layer.value, strict=True))
    ]
    return items if origin is list else tuple(items)


def _build_dict(tp: Any, layers: list[Layer], path: str, default: Any) -> dict[str, Any]:
    layers = _mappings(tp, layers, path)
    value_type = get_args(tp)[1] if get_args(tp) else Any
    if isinstance(default, Mapping) and all(layer.override for layer in layers):
        layers = [Layer(default, override=True), *layers]  # an override reaches into the default, a file replaces it
    result: dict[str, Any] = {}
    for key in dict.fromkeys(key for layer in layers for key in layer.value):
        said = [layer.at(key) for layer in layers if key in layer.value]
        if not isinstance(key, str):
            raise _error(said[-1], _join(path, str(key)), f"expected a name, got {key!r} ({name_of(type(key))})")
        if said[-1].value is None and value_type is not Any and NoneType not in (get_args(value_type) or (value_type,)):
            if all(layer.value is None for layer in said):
                raise _error(said[-1], _join(path, key), "nothing to remove" + nearest(key, result))
            continue
        result[key] = _build(value_type, said, _join(path, key), MISSING)
    return result


def _build_dataclass(tp: Any, layers: list[Layer], path: str, default: Any) -> Any:
    cls, layers = _choose_kind(tp, _mappings(tp, layers, path), path, default)
    names = {field.name: field for field in fields(cls) if field.init}
    layers = [part for layer in layers for part in _expand_size(cls, layer, path)]
    for layer in layers:
        for key in layer.value:
            if key not in names and not (key == "kind" and hasattr(cls, "kind")):
                near = nearest(key, names) or f"; there are: {', '.join(names) or 'none'}"
                raise _error(layer, _join(path, str(key)), f"no such key{near}")
    types, values = get_type_hints(cls), {}
    for name, field in names.items():
        said = [layer.at(name) for layer in layers if name in layer.value]
        below = getattr(default, name) if type(default) is cls else _default(field)
        if not said and below is MISSING:
            raise _error(layers[-1], _join(path, name), f"missing; expected {describe(types[name])}")
        values[name] = _build(types[name], said, _join(path, name), below) if said else below
    try:
        return cls(**values)
    except ValueError as error:
        message = str(error)
        field_name, colon, rest = message.partition(":")
        inside = colon and field_name in names  # "heads: 12 does not divide ..." names its own field
        where = _join(path, field_name) if inside else path
        raise _error(layers[-1], where, rest.strip() if inside else message) from error


def _choose_kind(tp: Any, layers: list[Layer], path: str, default: Any) -> tuple[Any, list[Layer]]:
    """The class that the layers ask for, and the layers written for that class."""
    options = kinds(tp)
    if not options:
        return tp, layers
    kind = getattr(default if isinstance(default, tp) else tp, "kind", None)
    kept: list[Layer] = []
    for layer in layers:
        if "kind" in layer.value:
            asked = _build_scalar(str, layer.at("kind"), _join(path, "kind"))
            kept = kept if kind in (asked, None) else []
            kind = asked
        kept.append(layer)
    if kind not in options:
        asking = next((layer for layer in reversed(layers) if "kind" in layer.value), layers[-1])
        problem = "missing; one of" if kind is None else f"no kind {kind!r} among"
        near = nearest(kind, options) if kind else ""
        raise _error(asking, _join(path, "kind"), f"{problem} {', '.join(options)}{near}")
    return options[kind], kept


def _expand_size(cls: type, layer: Layer, path: str) -> list[Layer]:
    sizes = getattr(cls, "sizes", None)
    if "size" not in layer.value or not sizes:
        return [layer]
    size = _build_scalar(str, layer.at("size"), _join(path, "size"))
    if size not in sizes:
        raise _error(layer, _join(path, "size"), f"no size {size!r} among {', '.join(sizes)}{nearest(size, sizes)}")
    rest = {key: value for key, value in layer.value.items() if key != "size"}
    return [layer._replace(value=sizes[size]), layer._replace(value=rest)]


def _mappings(tp: Any, layers: list[Layer], path: str) -> list[Layer]:
    """The layers since the last one that is no mapping (such as null, which forgets what came before)."""
    if not isinstance(layers[-1].value, Mapping):
        raise _wrong_type(tp, layers[-1], path)
    start = max((i + 1 for i, layer in enumerate(layers) if not isinstance(layer.value, Mapping)), default=0)
    return layers[start:]


def _default(field: Field[Any]) -> Any:
    factory = cast("Callable[[], Any] | Any", field.default_factory)
    return field.default if factory is MISSING else factory()


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _error(layer: Layer, path: str, problem: str) -> ValueError:
    return ValueError(": ".join(part for part in (layer.source, path, problem) if part))


def _wrong_type(tp: Any, layer: Layer, path: str, hint: str = "") -> ValueError:
    value = layer.value
    got = "null" if value is None else f"{value!r:.80} ({name_of(type(value))})"
    return _error(layer, path, f"expected {describe(tp)}, got {got}{hint}")
