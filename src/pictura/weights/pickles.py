"""Pickles of tensors, read as data: nothing of a file is ever called, imported or built.

A pickle is a program for a small machine with a stack (pickletools, in Python's library). This is such a machine that
knows PyTorch's few words for tensors, takes containers and plain values, and refuses the rest by name. It has no bounds
to overrun: Python's own is told by a pickle how much memory to take.
"""

import pickletools
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import torch

from pictura.weights.stored import Storage, Stored

STEPS, BYTES = 5_000_000, 64 << 20  # a tensor takes forty steps, so that a hundred thousand tensors go through


@dataclass(frozen=True)
class Word:
    """The name of a class or a function, `module name`."""

    name: str


@dataclass(eq=False)
class Thing:
    """What a class or function would have made; nothing has been made. state: its attributes, where it has any."""

    word: str
    state: dict[Any, Any] = field(default_factory=dict)


DICTS = frozenset({"collections OrderedDict", "collections defaultdict", "collections Counter"})
# What may stand beside weights, in the settings or counters of a training run, and harms nobody as a `Thing`.
TYPES = ("set", "frozenset", "complex", "bytes", "bytearray", "list", "tuple", "dict", "int", "float", "str", "bool")
HARMLESS = frozenset(
    {"argparse Namespace", "pathlib PosixPath", "_codecs encode", "torch Size", "torch device", "torch Tensor"}
    | {"torch.nn.parameter Parameter", "torch.serialization _get_layout", "torch.jit._pickle restore_type_tag"}
    | {f"torch.jit._pickle build_{kind}list" for kind in ("int", "tensor", "double", "bool")}
    | {f"{module} {name}" for module in ("builtins", "__builtin__") for name in TYPES}
    | {f"numpy.{core}.multiarray {name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")}
    | {"numpy dtype", "numpy ndarray", "torch._utils _rebuild_device_tensor_from_numpy"}
)
MODULES = "__torch__"  # of the classes of a TorchScript archive
STORAGES = {
    f"torch {name}Storage": dtype
    for name, dtype in {
        "Float": torch.float32,
        "Double": torch.float64,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "ComplexFloat": torch.complex64,
        "ComplexDouble": torch.complex128,
    }.items()
} | {"torch.storage UntypedStorage": torch.uint8}
KNOWN = DICTS | HARMLESS | STORAGES.keys()
PLAIN = frozenset({"INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"})
PLAIN |= {"STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
PLAIN |= {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}


def read_pickle(stream: BinaryIO) -> tuple[Any, dict[str, Storage]]:
    """The object that the pickle at `stream` describes, of dicts, lists, tuples, plain values, `Stored`, `Word` and
    `Thing`; and every storage that it names. The stream is left where the pickle ends.

    ValueError for a damaged one, or for one that asks for anything else: it names what the pickle would have run.
    """
    storages: dict[str, Storage] = {}
    try:
        return _run(stream, storages), storages
    except _Refused:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"is damaged or cut short ({type(error).__name__}: {error})") from error


class _Refused(ValueError):
    """What is no damage, but meant."""


def _run(stream: BinaryIO, storages: dict[str, Storage]) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    begin = stream.tell()

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for step, (opcode, given, place) in enumerate(pickletools.genops(stream)):
        arg: Any = given
        if step > STEPS or (place or 0) - begin > BYTES:
            raise ValueError(
                f"describes its tensors in more than {STEPS:,} steps or {BYTES:,} bytes: no checkpoint does"
            )
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                marks.append(len(stack))
            case "STOP":
                return stack.pop()
            case "POP":
                stack.pop()
            case "POP_MARK":
                since_mark()
            case "DUP":
                stack.append(stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[arg] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[arg])
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}[opcode.name]
                start = len(stack) - count
                stack[start:] = [tuple(stack[start:])]
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "EMPTY_LIST":
                stack.append([])
            case "LIST":
                stack.append(since_mark())
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                stack.append(_put({}, since_mark()))
            case "EMPTY_SET" | "FROZENSET":
                if opcode.name == "FROZENSET":
                    since_mark()
                stack.append(Thing("builtins set"))
            case "APPEND":
                _extend(stack[-2], [stack.pop()])
            case "APPENDS" | "ADDITEMS":
                items = since_mark()
                _extend(stack[-1], items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _put(stack[-1], [key, value])
            case "SETITEMS":
                items = since_mark()
                _put(stack[-1], items)
            case "GLOBAL":
                stack.append(_word(arg))
            case "STACK_GLOBAL":
                last, module = stack.pop(), stack.pop()
                stack.append(_word(f"{module} {last}"))
            case "BINPERSID":
                storage = _storage(stack.pop())
                if storages.setdefault(storage.key, storage) != storage:
                    raise _Refused(f"describes its storage {storage.key} in two ways")
                stack.append(storage)
            case "INST":
                stack.append(_made(_word(arg), tuple(since_mark())))
            case "REDUCE" | "NEWOBJ":
                args, word = stack.pop(), stack.pop()
                stack.append(_made(word, args))
            case "BUILD":
                state = stack.pop()
                if isinstance(stack[-1], Thing) and isinstance(state, dict):
                    stack[-1].state = state
            case name if name in PLAIN:
                stack.append(arg)
            case name:
                raise _Refused(f"holds {name}, which no checkpoint needs")
    raise ValueError("no end")


def _word(name: str) -> Any:
    module, _, last = name.partition(" ")
    if module == "torch" and isinstance(dtype := getattr(torch, last, None), torch.dtype):
        return dtype
    known = name in KNOWN or module.split(".")[0] == MODULES
    if not (known or (module == "torch._utils" and last in REBUILT)):
        raise _Refused(f"holds code beside its tensors: it would run {name.replace(' ', '.')}")
    return Word(name)


def _put(target: Any, items: list[Any]) -> Any:
    """Keys and values in turn. Keys are plain: hashing a tuple of tuples of tuples… could overrun the machine."""
    if isinstance(target, dict):
        keys = [key if isinstance(key, str | int | float | bytes | None) else id(key) for key in items[::2]]
        target.update(zip(keys, items[1::2], strict=True))
    elif not isinstance(target, Thing):
        raise TypeError(f"{type(target).__name__} takes no keys")
    return target


def _extend(target: Any, items: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(items)
    elif not isinstance(target, Thing):
        raise TypeError(f"{type(target).__name__} takes no items")


def _storage(given: Any) -> Storage:
    what, word, key, _, numel, *view = given
    if what != "storage" or not isinstance(key, str | int) or not _counts((numel,)) or view not in ([], [None]):
        raise _Refused(f"holds {str(what)[:40]!r} in a storage's place, or a part of a storage")
    return Storage(str(key), STORAGES[word.name], numel)


def _made(word: Any, args: Any) -> Any:
    if not isinstance(word, Word) or not isinstance(args, tuple) or len(args) > 16:
        raise TypeError("what is called is no function of PyTorch's")
    module, _, name = word.name.partition(" ")
    if module == "torch._utils" and name in REBUILT:
        return REBUILT[name](*args)
    if word.name in DICTS:
        out: dict[Any, Any] = {}
        if args and isinstance(args[0], list):  # of pairs, as Python 2 wrote it
            _put(out, [one for pair in args[0] for one in _pair(pair)])
            args[0].clear()  # so that each is taken apart once, however often it is given
        return out
    return Thing(word.name)


def _pair(pair: Any) -> tuple[Any, Any]:
    key, value = pair
    return key, value


def _rebuild(storage: Storage, offset: int, size: Any, stride: Any, *_: Any) -> Stored:
    if not (isinstance(size, tuple) and isinstance(stride, tuple)) or type(storage) is not Storage:
        raise TypeError("a tensor without a storage")
    if len(size) != len(stride) or len(size) > 64 or not _counts((offset, *size, *stride)):
        raise _Refused("holds a tensor whose shape is none")
    return Stored(storage, offset, size, stride, storage.dtype)


def _rebuild_as(
    storage: Storage, offset: int, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> Any:
    found = _rebuild(storage, offset, size, stride)
    if not isinstance(dtype, torch.dtype):
        raise TypeError("a tensor without a type")
    numel = storage.numel // dtype.itemsize  # counted in bytes
    return Stored(Storage(storage.key, dtype, numel), found.offset, found.size, found.stride, dtype)


def _inner(tensor: Any, *_: Any) -> Any:
    return tensor


def _typed(word: Any, kind: Any, args: Any, state: Any) -> Any:
    return _made(word, args)


# PyTorch's words for tensors: the functions of torch/_utils.py that rebuild them, and what is done here instead.
REBUILT: dict[str, Any] = {
    "_rebuild_tensor": _rebuild,
    "_rebuild_tensor_v2": _rebuild,
    "_rebuild_tensor_v3": _rebuild_as,
    "_rebuild_parameter": _inner,
    "_rebuild_parameter_with_state": _inner,
    "_rebuild_from_type_v2": _typed,
}


def _counts(numbers: tuple[Any, ...]) -> bool:
    return all(type(number) is int and 0 <= number < 1 << 62 for number in numbers)
