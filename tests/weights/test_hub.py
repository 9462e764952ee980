"""Models fetched from a hub that runs on this machine; nothing here needs a network."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants, hf_hub_download, scan_cache_dir, snapshot_download
from safetensors.torch import save

from pictura.weights.hub import choose, fetch, is_name
from pictura.weights.shards import read_sharded
from tests.weights.hub_server import REPO, Hub, digest, serving

MIB = 2**20
SAFE = "model.safetensors"
SMALL = {
    "config.json": b'{"model_type": "clip"}',
    "preprocessor_config.json": b"{}",
    "tokenizer.json": b'{"a": 1}',
    "vocab.json": b'{"b": 2}',
    "merges.txt": b"#version: 0.2\n",
}
WEIGHTS = save({"x": torch.arange(6.0)})
UNWANTED = {"README.md": b"# A model", "pytorch_model.bin": b"bin", "pytorch_model.bin.index.json": b"{}"}
UNWANTED |= {"flax_model.msgpack": b"flax", "tf_model.h5": b"tf"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(SMALL | {SAFE: WEIGHTS} | UNWANTED | {"onnx/model.onnx": b"onnx", "text/config.json": b"{}"}) as hub:
        yield hub


@pytest.fixture
def get(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Get":
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return Get(hub, tmp_path / "cache")


class Get:
    """`get()` is `fetch` from the hub of this test, into its own cache."""

    def __init__(self, hub: Hub, cache: Path) -> None:
        self.url, self.cache = hub.url, cache
        self.folder = cache / "models--openai--clip"

    def __call__(self, name: str = REPO) -> Path:
        return fetch(name, endpoint=self.url, cache=self.cache)

    def left(self) -> list[str]:
        """Whatever lies among the blobs."""
        return sorted(one.name for one in (self.folder / "blobs").glob("*"))


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def contents(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir()}


def elsewhere(hub: Hub, cache: Path, more: dict[str, str] | None = None) -> "subprocess.Popen[str]":
    """A fetch in a process of its own, told where by the environment; it prints the folder."""
    place = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(cache), "HF_HOME": str(cache)} | (more or {})
    return subprocess.Popen(
        [sys.executable, "-c", f"from pictura.weights.hub import fetch; print(fetch('{REPO}'))"],
        env=os.environ | place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_what_a_model_needs_is_brought_and_nothing_else(hub: Hub, get: Get, capfd: pytest.CaptureFixture[str]) -> None:
    assert contents(get()) == SMALL | {SAFE: WEIGHTS}
    assert not [path for _, path, *_ in hub.requests if path.endswith(tuple(UNWANTED)) or "onnx" in path]
    assert capfd.readouterr().out == ""


def test_a_second_time_only_the_list_is_asked_for(hub: Hub, get: Get) -> None:
    folder = get()
    hub.requests.clear()
    assert get() == folder
    assert [path for _, path, *_ in hub.requests] == [f"/api/models/{REPO}/revision/main"]


def test_a_commit_that_is_here_needs_no_hub_at_all(hub: Hub, get: Get) -> None:
    folder = get(f"{REPO}@{hub.commit}")
    hub.requests.clear()
    assert get(f"hf-hub:{REPO}@{hub.commit}") == folder
    assert hub.requests == []


def test_a_new_commit_brings_what_has_changed(hub: Hub, get: Get) -> None:
    before = get()
    hub.commit, hub.files = "b" * 40, hub.files | {"config.json": b'{"model_type": "other"}'}
    hub.requests.clear()
    after = get()
    assert (after / "config.json").read_bytes() != (before / "config.json").read_bytes() == SMALL["config.json"]
    assert len(hub.gets("config.json")) == 1
    assert hub.gets(SAFE) == []


def test_huggingface_hub_finds_what_was_fetched_and_the_other_way_round(hub: Hub, get: Get, tmp_path: Path) -> None:
    folder = get()
    hub.requests.clear()
    theirs = hf_hub_download(REPO, SAFE, endpoint=hub.url, cache_dir=get.cache)
    assert Path(theirs) == folder / SAFE
    assert {method for method, *_ in hub.requests} == {"HEAD"}
    assert Path(hf_hub_download(REPO, "vocab.json", cache_dir=get.cache, local_files_only=True)).parent == folder
    (repository,) = scan_cache_dir(get.cache).repos
    assert (repository.repo_id, repository.nb_files) == (REPO, 6)
    assert repository.refs["main"].commit_hash == hub.commit
    assert not scan_cache_dir(get.cache).warnings

    other = tmp_path / "theirs"
    folder = Path(snapshot_download(REPO, endpoint=hub.url, cache_dir=other, ignore_patterns=["onnx/*"]))
    hub.requests.clear()
    assert fetch(REPO, endpoint=hub.url, cache=other) == folder
    assert len(hub.requests) == 1


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub: Hub, get: Get) -> None:
    hub.files[SAFE] = os.urandom(25 * MIB)
    hub.cut = [12 * MIB]
    assert (get() / SAFE).read_bytes() == hub.files[SAFE]
    assert hub.gets(SAFE) == [None, f"bytes={10 * MIB}-"]


def test_a_connection_that_is_reset_is_taken_up_too(hub: Hub, get: Get) -> None:
    hub.files[SAFE] = os.urandom(22 * MIB)
    hub.cut, hub.reset = [20 * MIB], True
    assert (get() / SAFE).read_bytes() == hub.files[SAFE]
    first, second = hub.gets(SAFE)
    assert first is None
    assert second in (f"bytes={10 * MIB}-", f"bytes={20 * MIB}-")


def test_a_killed_download_is_taken_up_by_the_next(hub: Hub, get: Get) -> None:
    hub.files[SAFE] = os.urandom(25 * MIB)
    hub.cut, hub.stall = [15 * MIB], True
    process = elsewhere(hub, get.cache)
    part = get.folder / "blobs" / f"{digest(SAFE, hub.files[SAFE])}.pictura.incomplete"
    until = time.monotonic() + 60
    while (
        not (part.exists() and part.stat().st_size >= 10 * MIB) and process.poll() is None and time.monotonic() < until
    ):
        time.sleep(0.02)
    process.kill()
    process.communicate()
    hub.released.set()
    assert part.stat().st_size == 10 * MIB
    assert not (get.folder / "snapshots" / hub.commit / SAFE).exists()
    assert (get() / SAFE).read_bytes() == hub.files[SAFE]
    assert hub.gets(SAFE) == [None, f"bytes={10 * MIB}-"]
    assert not part.exists()


def test_a_server_without_ranges_begins_again(hub: Hub, get: Get) -> None:
    hub.files[SAFE] = os.urandom(12 * MIB)
    hub.cut, hub.ranges = [11 * MIB], False
    assert (get() / SAFE).read_bytes() == hub.files[SAFE]


def test_a_hub_that_goes_away_in_the_middle_leaves_what_has_come(
    hub: Hub, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.files[SAFE] = os.urandom(12 * MIB)
    hub.cut = [11 * MIB] + [0] * 20
    with pytest.raises(ValueError, match=r"model\.safetensors broke off .*10,485,760 of 12,582,912 bytes are kept"):
        get()
    hub.cut = []
    assert (get() / SAFE).read_bytes() == hub.files[SAFE]
    assert hub.gets(SAFE)[-1] == f"bytes={10 * MIB}-"


@pytest.mark.parametrize("file", [SAFE, "config.json"])
def test_damaged_content_is_refused_and_not_kept(hub: Hub, get: Get, file: str) -> None:
    hub.damaged = {file: 99}
    with pytest.raises(ValueError, match=rf"openai/clip: {file} came damaged twice"):
        get()
    assert len(hub.gets(file)) == 2
    name = digest(file, hub.files[file])
    assert not [one for one in get.left() if one.startswith(name)]
    assert not (get.folder / "snapshots" / hub.commit / file).exists()
    hub.damaged = {}
    assert (get() / file).read_bytes() == hub.files[file]


def test_content_damaged_once_is_asked_for_again(hub: Hub, get: Get) -> None:
    hub.damaged = {SAFE: 1}
    assert contents(get()) == SMALL | {SAFE: WEIGHTS}
    assert hub.gets(SAFE) == [None, None]


@pytest.mark.parametrize("sizes", [True, False])
def test_a_rest_of_something_else_is_not_built_upon(hub: Hub, get: Get, sizes: bool) -> None:
    hub.sizes = sizes
    get.folder.joinpath("blobs").mkdir(parents=True)
    part = get.folder / "blobs" / f"{digest(SAFE, WEIGHTS)}.pictura.incomplete"
    for rest in (b"x" * 10, b"x" * len(WEIGHTS), b"x" * (len(WEIGHTS) + 1)):
        part.write_bytes(rest)
        folder = get()
        assert (folder / SAFE).read_bytes() == WEIGHTS
        assert not part.exists()
        (folder / SAFE).resolve().unlink()


def test_a_blob_cut_short_is_brought_again(hub: Hub, get: Get) -> None:
    blob = (get() / SAFE).resolve()
    blob.write_bytes(WEIGHTS[:-1])
    assert (get() / SAFE).read_bytes() == WEIGHTS


def test_two_at_once_bring_it_once(hub: Hub, get: Get) -> None:
    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(get())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == 3
    assert len(hub.gets(SAFE)) == 1
    assert contents(folders[0]) == SMALL | {SAFE: WEIGHTS}


def test_a_disk_without_links_holds_the_files_themselves(hub: Hub, get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: str) -> None:
        raise PermissionError(1, "Operation not permitted", str(self))  # as FAT does

    monkeypatch.setattr(Path, "symlink_to", refuse)
    folder = get()
    assert contents(folder) == SMALL | {SAFE: WEIGHTS}
    assert not any(one.is_symlink() for one in folder.iterdir())
    hub.requests.clear()
    assert get() == folder
    assert len(hub.requests) == 1


def test_a_token_goes_to_the_hub_and_nowhere_else(hub: Hub, get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    get()
    sent = {(path.startswith("/cdn/"), authorization) for _, path, _, authorization in hub.requests}
    assert sent == {(False, "Bearer hf_secret"), (True, None)}


def test_offline_the_cache_answers(hub: Hub, get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = get()
    offline(monkeypatch)
    hub.requests.clear()
    assert get() == get(f"{REPO}@main") == folder
    assert hub.requests == []


def test_offline_by_the_environment_and_only_the_path_on_stdout(hub: Hub, get: Get) -> None:
    folder = get.folder / "snapshots" / hub.commit
    for more, asked in (({}, True), ({"HF_HUB_OFFLINE": "1"}, False)):
        hub.requests.clear()
        out, err = elsewhere(hub, get.cache, more).communicate(timeout=60)
        assert out == f"{folder}\n", err
        assert bool(hub.requests) is asked


def test_no_network_is_as_good_as_offline(get: Get) -> None:
    folder = get()
    get.url = "http://127.0.0.1:9"  # nobody listens there
    assert get() == folder
    with pytest.raises(ValueError, match=r"openai/other: this machine is offline \(http://127.0.0.1:9 cannot be reach"):
        get("openai/other")


def test_a_hub_in_trouble_is_as_good_as_offline(hub: Hub, get: Get) -> None:
    folder = get()
    hub.refused = 503, ""
    assert get() == folder
    with pytest.raises(ValueError, match="answered with 503"):
        fetch(REPO, endpoint=hub.url, cache=get.cache / "other")


def test_offline_without_it_says_how_to_get_it(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    with pytest.raises(ValueError) as caught:
        get(f"{REPO}@v1")
    words = str(caught.value)
    assert words.startswith(f"{REPO}@v1: this machine is offline (HF_HUB_OFFLINE is set), and {get.folder} has none")
    assert f"`hf download {REPO} --revision v1` on a connected machine" in words


def test_offline_in_the_middle_of_a_first_download_names_what_is_missing(
    hub: Hub, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.damaged = {SAFE: 2}
    with pytest.raises(ValueError, match="damaged"):
        get()
    offline(monkeypatch)
    with pytest.raises(ValueError, match=rf"snapshots/{hub.commit} lacks model.safetensors; `hf download {REPO}` on"):
        get()


def test_offline_in_the_middle_of_an_update_the_one_before_is_taken(
    hub: Hub, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = get()
    hub.commit, hub.files[SAFE], hub.damaged = "b" * 40, save({"x": torch.ones(3)}), {SAFE: 2}
    with pytest.raises(ValueError, match="damaged"):
        get()
    offline(monkeypatch)
    assert get() == before


def test_offline_what_others_have_brought_is_judged_by_its_looks(
    hub: Hub, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf_hub_download(REPO, "config.json", endpoint=hub.url, cache_dir=get.cache)
    with monkeypatch.context() as context:
        offline(context)
        with pytest.raises(ValueError, match=r"lacks the weights \(such as model.safetensors\)"):
            get()
    file = hf_hub_download(REPO, SAFE, endpoint=hub.url, cache_dir=get.cache)
    offline(monkeypatch)
    assert get() == Path(file).parent


def test_a_model_that_does_not_exist(get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "photos-model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=r"runs/photos_model: there is no http.*/runs/photos_model, or it is private.*"
    ):
        get("runs/photos_model")
    with pytest.raises(ValueError, match=r"`hf auth login` here first; did you mean runs/photos-model\?"):
        get("runs/photos_model")
    with pytest.raises(ValueError, match=r"`hf auth login` here first$"):
        get("nobody/nothing")


def test_as_the_hub_answers_to_strangers(hub: Hub, get: Get) -> None:
    hub.refused = 401, "RepoNotFound"
    with pytest.raises(ValueError, match=r"openai/clip: there is no .*/openai/clip, or it is private"):
        get()
    hub.refused = 403, ""
    with pytest.raises(ValueError, match=r"refuses \(403\); `hf auth login` with a token"):
        get()


def test_gated(hub: Hub, get: Get) -> None:
    hub.refused = 401, "GatedRepo"
    with pytest.raises(
        ValueError, match=rf"openai/clip: gated; agree to its terms at {hub.url}/openai/clip, then `hf au"
    ):
        get()
    hub.refused, hub.refused_files = None, (403, "GatedRepo")  # everybody may see what there is
    with pytest.raises(ValueError, match=r"gated; agree to its terms at .*`hf auth login`"):
        get()
    hub.refused_files = None
    assert contents(get()) == SMALL | {SAFE: WEIGHTS}


def test_a_revision(hub: Hub, get: Get) -> None:
    assert contents(get(f"{REPO}@v1")) == SMALL | {SAFE: WEIGHTS}
    with pytest.raises(ValueError, match=r"openai/clip@v2: .*/openai/clip has no revision v2"):
        get(f"{REPO}@v2")


def test_a_page_that_is_no_hub(hub: Hub, get: Get) -> None:
    hub.commit = "<html>"
    hub.files = {}
    with pytest.raises(ValueError, match=r"does not answer as the hub does\), and .* has none of it"):
        get()


@pytest.mark.parametrize(
    "name",
    ["clip", "a/b/c", "openai/clip@", "openai/clip vit", "../clip", "a/..", "a--b/c", "a/b.git", "a/b@../../c", ""],
)
def test_names_that_the_hub_cannot_have(get: Get, name: str) -> None:
    assert not is_name(name)
    with pytest.raises(ValueError, match="nor a name on the hub, such as openai/clip-vit-base-patch32"):
        get(name)


def test_a_name_that_is_none_answers_with_the_path_that_was_meant(
    get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs" / "photos" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"did you mean runs/photos/model\?"):
        get("runs/photos/modle")


def test_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (REPO, "timm/vit_base_patch16_224.augreg_in21k", f"hf-hub:{REPO}", f"{REPO}@refs/pr/3"):
        assert is_name(name)
    for path in ("model", "/a/b", "./a", "a/", "runs/model.safetensors", "weights/B_16.npz", "a/c.yaml", str(tmp_path)):
        assert not is_name(path)
    (tmp_path / "openai" / "clip").mkdir(parents=True)
    assert not is_name(REPO)
    assert is_name(f"hf-hub:{REPO}")


@pytest.mark.parametrize(
    ("files", "weights"),
    [
        ("config.json model.safetensors pytorch_model.bin model.safetensors.index.json", SAFE),
        (
            "open_clip_config.json open_clip_pytorch_model.bin open_clip_model.safetensors",
            "open_clip_model.safetensors",
        ),
        ("model.safetensors.index.json model-00001-of-00002.safetensors pytorch_model.bin", f"{SAFE}.index.json"),
        ("flax_model.msgpack pytorch_model.bin tf_model.h5 training_args.bin", "pytorch_model.bin"),
        ("optimizer.pt rng_state.pth last.pth", "last.pth"),
        ("B_16.npz README.md", "B_16.npz"),
        ("a.bin ViT-B-16.safetensors", "ViT-B-16.safetensors"),
        ("a.npz b.npz", "a.npz b.npz"),
        ("flax_model.msgpack tf_model.h5 model.onnx", ""),
    ],
)
def test_which_file_holds_the_weights(files: str, weights: str) -> None:
    assert choose(files.split()) == weights.split()


def test_bin_where_there_is_no_safetensors(hub: Hub, get: Get) -> None:
    del hub.files[SAFE]
    assert contents(get()) == SMALL | {"pytorch_model.bin": b"bin"}


def test_no_weights_or_too_many(hub: Hub, get: Get) -> None:
    hub.files = {"config.json": b"{}", "flax_model.msgpack": b""}
    with pytest.raises(ValueError, match=r"it has only config\.json, flax_model\.msgpack"):
        get()
    hub.files = {"a.npz": b"a", "b.npz": b"b"}
    with pytest.raises(ValueError, match=f"it has several, a.npz, b.npz; `hf download {REPO} FILE`"):
        get()


def test_weights_in_several_files(hub: Hub, get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    del hub.files[SAFE]
    one, two = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    index = f'{{"weight_map": {{"x": "{one}", "y": "{two}"}}}}'.encode()
    hub.files |= {one: save({"x": torch.ones(2)}), two: save({"y": torch.zeros(3)}), f"{SAFE}.index.json": index}
    hub.damaged = {two: 2}
    with pytest.raises(ValueError, match="damaged"):
        get()
    with monkeypatch.context() as context:
        offline(context)
        with pytest.raises(ValueError, match=f"lacks {two}; "):
            get()
    folder = get()
    assert contents(folder).keys() == {*SMALL, one, two, f"{SAFE}.index.json"}
    state = read_sharded(folder / f"{SAFE}.index.json")
    assert {name: tensor.tolist() for name, tensor in state.items()} == {"x": [1, 1], "y": [0, 0, 0]}
    other = get.cache / "other"
    for file in ("config.json", f"{SAFE}.index.json", one):
        hf_hub_download(REPO, file, endpoint=hub.url, cache_dir=other)
    with monkeypatch.context() as context:
        offline(context)
        with pytest.raises(ValueError, match=f"lacks {two}; "):
            fetch(REPO, endpoint=hub.url, cache=other)
    del hub.files[two]
    hub.commit = "c" * 40
    with pytest.raises(ValueError, match=f"index.json names {two}, which it does not have"):
        get()


def test_an_index_that_leads_out_of_its_folder_is_refused(hub: Hub, get: Get) -> None:
    del hub.files[SAFE]
    hub.files[f"{SAFE}.index.json"] = b'{"weight_map": {"x": "../../../x.safetensors"}}'
    with pytest.raises(ValueError, match=r"'../../../x.safetensors' is not the name of a .safetensors file beside it"):
        get()


def test_a_cache_that_cannot_be_written(get: Get) -> None:
    get.cache.write_text("in the way")
    with pytest.raises(ValueError, match=r"openai/clip: could not be written to the cache \(.*; HF_HOME moves it"):
        get()
