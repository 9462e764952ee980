"""Models of the Hugging Face hub, `openai/clip-vit-base-patch32`, `hf-hub:timm/…` or `NAME@revision`, as local folders.

Of a repository come the weights in one format, preferably safetensors, and what is small and says how to read them.
"""

import contextlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pictura.config.messages import explain, nearest
from pictura.weights.download import File, Repository, failures, whole, write

INDEX = "model.safetensors.index.json"
WEIGHTS = (  # the best first
    "model.safetensors",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    INDEX,
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
FORMATS = (".safetensors", ".bin", ".npz", ".pth", ".pt")  # of weights under other names, the best first
NO_WEIGHTS = ("training_args.", "optimizer.", "scheduler.", "scaler.", "rng_state", "adapter_model.")
BESIDE = ("config.yaml", "merges.txt", "vocab.txt")  # and every .json: configurations, vocab.json, tokenizer.json
CONFIGS = ("config.json", "open_clip_config.json", "config.yaml")

PREFIX = "hf-hub:"
PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
NAME = re.compile(rf"({PART}/{PART})(?:@([A-Za-z0-9_][A-Za-z0-9_./+-]*[A-Za-z0-9_]))?")
COMMIT = re.compile(r"[0-9a-f]{40}")
TIMEOUT = 10  # seconds for the list of files, after which the cache answers


def is_name(path: str) -> bool:
    """Whether `path` means a model of the hub: `org/name`, also with hf-hub: before or @revision behind it.

    What exists here always is a path, and so is what ends as a file of weights or settings does.
    """
    if _parsed(path) is None or Path(path).exists():
        return False
    return path.startswith(PREFIX) or not path.endswith((*FORMATS, ".json", ".yaml", ".yml"))


def fetch(name: str, *, endpoint: str | None = None, cache: Path | None = None) -> Path:
    """A model of the hub -> a folder with its weights, in one format, its configuration and its tokenizer.

    Only what is not in the cache is downloaded. Where the hub cannot be reached (or HF_HUB_OFFLINE=1), the newest
    snapshot in the cache that is complete. endpoint, cache: None is what HF_ENDPOINT and HF_HUB_CACHE say.

    Raises ValueError for a name that is none, a model that is not there or not for everyone, one without weights that
    can be read, a file whose hash is wrong twice, a connection that breaks, and offline for files that are missing.
    """
    from huggingface_hub import constants

    if (parsed := _parsed(name)) is None:
        example = "openai/clip-vit-base-patch32"
        raise ValueError(f"{name}: neither a path here nor a name on the hub, such as {example}{_near(name)}")
    folder = Path(cache or constants.HF_HUB_CACHE).expanduser() / f"models--{parsed[0].replace('/', '--')}"
    repository = Repository(name, *parsed, (endpoint or constants.ENDPOINT).rstrip("/"), folder)
    commit = parsed[1] or ""
    if COMMIT.fullmatch(commit) and _note(repository, commit).is_file() and not _lacking(repository, commit):
        return repository.snapshot(commit)  # a commit never changes
    try:
        commit, files = _listing(repository)
    except _Unreachable as error:
        return _cached(repository, str(error))
    try:
        return _download(repository, commit, files)
    except OSError as error:
        raise ValueError(f"{name}: could not be written to the cache ({explain(error)}); HF_HOME moves it") from error


def choose(names: Iterable[str]) -> list[str]:
    """Of a repository's files, those that could be the weights: one where it is clear, several where it is not."""
    names = [name for name in names if not name.startswith(NO_WEIGHTS)]
    if known := [name for name in WEIGHTS if name in names]:
        return known[:1]
    return next((found for end in FORMATS if (found := sorted(name for name in names if name.endswith(end)))), [])


def _parsed(name: str) -> tuple[str, str | None] | None:
    """`openai/clip` and the revision, if one is named; None for what the hub cannot have (and for what leads out)."""
    found = NAME.fullmatch(name.removeprefix(PREFIX))
    if found is None or ".." in name or "--" in found[1] or found[1].endswith(".git") or len(found[1]) > 96:
        return None
    return found[1], found[2]


def _near(name: str) -> str:
    """The local path that may have been meant."""
    path = Path(name.removeprefix(PREFIX))
    with contextlib.suppress(OSError, ValueError):
        beside = [str(one) for one in path.parent.iterdir()] if path.parent.is_dir() else []
        return nearest(path, beside) or nearest(path.name, [one.name for one in Path().iterdir() if one.is_dir()])
    return ""


class _Unreachable(Exception):
    """The hub gave no answer; why."""


def _listing(repository: Repository) -> tuple[str, dict[str, File]]:
    """The commit that the revision stands for now, and the files at its top."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api, revision = HfApi(endpoint=repository.endpoint, library_name="pictura"), repository.revision or "main"
    strange = f"{repository.endpoint} does not answer as the hub does"  # but as a hotel's network, say
    try:
        info = api.model_info(repository.repo, revision=revision, files_metadata=True, timeout=TIMEOUT)
    except failures() as error:
        if refusal := repository.refusal(error):
            hint = _near(repository.name) if isinstance(error, RepositoryNotFoundError) else ""
            raise ValueError(refusal + hint) from error
        raise _Unreachable(repository.silence(error)) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _Unreachable(strange) from error
    if not COMMIT.fullmatch(info.sha or ""):
        raise _Unreachable(strange)
    files = {}
    for one in info.siblings or ():
        if not re.search(r"[/\\]", one.rfilename):
            digest = (one.lfs.sha256 if one.lfs else one.blob_id) or ""
            files[one.rfilename] = File(one.rfilename, one.size, digest)
    return str(info.sha), files


def _download(repository: Repository, commit: str, files: dict[str, File]) -> Path:
    """The snapshot of `commit`, made complete: what is small first, then the weights."""
    weights = choose(files)
    if len(weights) != 1:
        told = "it has several, " + ", ".join(weights) if weights else "it has only " + ", ".join(sorted(files))
        raise ValueError(
            f"{repository.name}: no file is clearly its weights, {told[:300]}; `hf download {repository.repo} FILE` "
            "brings a single one, whose path can be given instead of the name"
        )
    sharded = weights == [INDEX]
    small = [one for one in files if one in BESIDE or (one.endswith(".json") and not one.endswith(".index.json"))]
    needed = small + weights
    write(_note(repository, commit), json.dumps({one: files[one].size for one in needed}))
    for one in needed:
        repository.bring(files[one], commit)
    if sharded:
        from pictura.weights.shards import shard_names

        shards = shard_names(repository.snapshot(commit) / INDEX)
        if absent := [one for one in shards if one not in files]:
            raise ValueError(f"{repository.name}: its {INDEX} names {', '.join(absent[:4])}, which it does not have")
        write(_note(repository, commit), json.dumps({one: files[one].size for one in needed + shards}))
        for one in shards:
            repository.bring(files[one], commit)
    if repository.revision != commit:  # last: until now, what was complete before is what is found offline
        write(repository.folder / "refs" / (repository.revision or "main"), commit)
    return repository.snapshot(commit)


def _cached(repository: Repository, why: str) -> Path:
    """What can be had offline: where no revision is named, the newest snapshot that is complete."""
    folder, revision = repository.folder, repository.revision
    commits = [revision or ""]
    with contextlib.suppress(OSError):
        commits += [(folder / "refs" / (revision or "main")).read_text(encoding="utf-8").strip()]
    if revision is None:
        known = [one for one in (folder / "snapshots").glob("*") if one.is_dir()]
        commits += [one.name for one in sorted(known, key=lambda one: one.stat().st_mtime, reverse=True)]
    faults = []
    for commit in filter(COMMIT.fullmatch, commits):
        if not (lacking := _lacking(repository, commit)):
            return repository.snapshot(commit)
        faults.append(f"{repository.snapshot(commit)} lacks {', '.join(lacking)}")
    command = f"hf download {repository.repo}" + (f" --revision {revision}" if revision else "")
    raise ValueError(
        f"{repository.name}: this machine is offline ({why}), and {(faults or [f'{folder} has none of it'])[0]}; "
        f"`{command}` on a connected machine, then bring its {folder.name} to {folder.parent}"
    )


def _note(repository: Repository, commit: str) -> Path:
    """Where the files that a commit needs are noted with their sizes, for the day on which the hub cannot be asked."""
    return repository.folder / ".pictura" / f"{commit}.json"


def _lacking(repository: Repository, commit: str) -> list[str]:
    """The files that a snapshot needs and does not have: by our note, else judged by what others have left there."""
    snapshot = repository.snapshot(commit)
    lacking = []
    try:
        noted: dict[str, Any] = json.loads(_note(repository, commit).read_text(encoding="utf-8"))
        lacking = [name for name, size in noted.items() if not whole(snapshot / name, size)]
        weights = [INDEX] if INDEX in noted else []
    except (OSError, ValueError):
        have = [one.name for one in snapshot.glob("*") if one.exists()]
        weights = choose(have)
        alone = any(one.endswith(".npz") for one in weights)  # Google's need no configuration
        if not (alone or any(one in have for one in CONFIGS)):
            lacking.append("config.json")
        if not weights:
            lacking.append("the weights (such as model.safetensors)")
    if weights == [INDEX] and INDEX not in lacking:
        from pictura.weights.shards import shard_names

        shards = [one for one in shard_names(snapshot / INDEX) if one not in lacking]
        lacking += [one for one in shards if not (snapshot / one).is_file()]
    return lacking
