"""Between two models of one shape: a zero-shot model and what fine-tuning made of it (WiSE-FT, Wortsman et al. 2022).

A model that is fine-tuned on one kind of pictures loses some of what it knew of others. The weighted mean of its
weights and those that it began with keeps much of both; half of each is what the paper recommends without further
pictures to choose by. It needs two models with one origin: between strangers lies nothing of use.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pictura.config import to_dict
from pictura.data.text import Tokenizer
from pictura.weights.convert import TRAINING
from pictura.weights.folder import TOKENIZER, save_folder
from pictura.weights.foreign import load_model

STATISTICS = "running_var"


def interpolate(zero: Mapping[str, Tensor], tuned: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """(1 - share) zero + share tuned for each tensor, in float32, returned in the type that it has in `zero`
    (Wortsman et al. 2022, equation 1). A share of 0 gives `zero` and one of 1 `tuned`, bit by bit in one type.

    Everything floating is interpolated: the temperature, as the logarithm that it is, and the running statistics of
    batch norm, which are then near those of the new model, not its own; a pass over pictures would give these. What
    counts, such as the batches that batch norm has seen, is that of `tuned`. ValueError for a share out of 0 … 1, and
    for the first name or shape that the two do not have in common.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share: {share} must be from 0, the zero-shot model, to 1, the tuned one; try 0.5")
    for name in (*zero, *tuned):
        if name not in tuned or name not in zero:
            whose = "zero-shot" if name in zero else "tuned"
            raise ValueError(f"{name}: only the {whose} model has it; both must be of one architecture")
        shapes, floating = (
            [f(of[name]) for of in (zero, tuned)] for f in (lambda t: [*t.shape], torch.is_floating_point)
        )
        if shapes[0] != shapes[1]:
            raise ValueError(f"{name}: {shapes[0]} in the zero-shot model, {shapes[1]} in the tuned one")
        if floating[0] != floating[1]:
            kinds = [str(of[name].dtype).removeprefix("torch.") for of in (zero, tuned)]
            raise ValueError(f"{name}: {kinds[0]} in the zero-shot model, {kinds[1]} in the tuned one")
    return {name: between(tensor.detach(), tuned[name].detach(), share) for name, tensor in zero.items()}


def between(zero: Tensor, tuned: Tensor, share: float) -> Tensor:
    """One tensor, in memory of its own."""
    if share in (0, 1) or not zero.is_floating_point():
        return (zero if share == 0 else tuned).to(zero.device, zero.dtype, copy=True)
    exact = torch.promote_types(zero.dtype, torch.float32)
    return torch.lerp(zero.to(exact), tuned.to(zero.device, exact), share).to(zero.dtype)


def blend(zero: Path | str, tuned: Path | str, target: Path | str, share: float = 0.5) -> tuple[str, ...]:
    """Write the model between those at `zero` and `tuned`, paths or hub names, into the new folder `target`, with the
    configuration and the tokenizer of `zero`; -> what is to be known about it, as notes.

    ValueError, and nothing written, where one is not of the other's architecture, does not prepare pictures as the
    other, or does not read texts with the same vocabulary: it says what differs.
    """
    target = Path(target).expanduser().resolve()
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise ValueError(f"{target}: is there already; choose a new folder")
    model, tokenizer = load_model(zero)
    other, words = load_model(tuned)
    if differences := different(model.config, other.config):
        raise ValueError(f"{tuned}: is no tuned {zero}: {'; '.join(differences[:4])}")
    if tokenizer is not None and words is not None:
        check_same(tokenizer, words, f"{tuned}: is no tuned {zero}")
    try:
        state = interpolate(model.state_dict(), other.state_dict(), share)
    except ValueError as error:
        raise error if str(error).startswith("share") else ValueError(f"{tuned}: is no tuned {zero}: {error}") from None
    model.load_state_dict(state)
    save_folder(target, model, tokenizer, dtype=None)
    if not any(name.endswith(STATISTICS) for name in state):
        return ()
    return ("its running statistics of batch norm lie between those of the two models, and are not quite its own",)


def different(zero: object, tuned: object) -> list[str]:
    """What of two configurations differs, other than in training alone, as “path: this, and that”."""
    ours, theirs = flat(to_dict(zero)), flat(to_dict(tuned))
    return [
        f"{key}: {theirs.get(key, 'none')!s:.60}, and there {ours.get(key, 'none')!s:.60}"
        for key in ours | theirs
        if ours.get(key) != theirs.get(key) and key.rpartition(".")[2] not in TRAINING
    ]


def flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """{"image": {"width": 64}} -> {"image.width": 64}."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= flat(value, f"{path}{key}.") if isinstance(value, dict) else {path + key: value}
    return out


def check_same(zero: Tokenizer, tuned: Tokenizer, misfit: str) -> None:
    """ValueError, beginning with `misfit`, where a token has not the same number in both vocabularies."""
    ours, theirs = vocabulary(zero), vocabulary(tuned)
    if wrong := sorted(token for token in ours | theirs if ours.get(token) != theirs.get(token)):
        numbers = [str(of.get(wrong[0], "missing")) for of in (theirs, ours)]
        raise ValueError(f"{misfit}: the token {wrong[0]!r} is {numbers[0]}, and there {numbers[1]}")


def vocabulary(tokenizer: Tokenizer) -> dict[str, int]:
    """Token -> number, as its file has them."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / TOKENIZER
        tokenizer.save(file)
        stored = json.loads(file.read_text(encoding="utf-8"))
    words = stored["model"]["vocab"]
    if isinstance(words, list):  # of a unigram model: (token, score), in order
        words = {token: number for number, (token, _) in enumerate(words)}
    return {**words, **{added["content"]: added["id"] for added in stored["added_tokens"]}}
