import re
from pathlib import Path

import pytest
import torch

from pictura.weights import huggingface, open_clip
from pictura.weights.folder import empty
from pictura.weights.layout import Layout, blocks, from_json, modules, section
from tests.weights.peers import published

LAYOUTS = [(open_clip.LAYOUT, "ViT-B/32"), (huggingface.LAYOUT, "ViT-B/32"), (open_clip.RESNET_LAYOUT, "RN50")]


@pytest.mark.parametrize(("layout", "size"), LAYOUTS, ids=lambda value: getattr(value, "whose", ""))
def test_names_pair_up(layout: Layout, size: str) -> None:
    """One to one, and all that our CLIP has: only so is there an inverse."""
    assert len(set(layout.names.values())) == len(layout.names)
    ours = {re.sub(r"\.\d+\.", ".{}.", name, count=1) for name in empty(published(size)).state_dict()}
    assert ours | {"logit_bias"} == set(layout.names) | {"logit_bias"}
    assert set(layout.transposed) | layout.optional | set(layout.leading) <= set(layout.names)


def test_tables_of_names() -> None:
    assert modules({"a": "x"}) == {"a.weight": "x.weight", "a.bias": "x.bias"}
    assert blocks("a.b", "x.y", {"n": "m"}) == {"a.b.{}.n": "x.y.{}.m"}


def toy() -> Layout:
    names = {"image.cls_token": "c", "image.pos_embed": "p", "logit_scale": "s", "w": "v", "a.{}.n": "x.{}.m"}
    return Layout(whose="toy", names=names, optional=frozenset({"logit_scale"}), transposed=("w",))


def test_a_toy_layout_both_ways() -> None:
    state = {"c": torch.arange(3), "p": torch.ones(2, 3), "s": torch.ones(1), "v": torch.arange(6).view(2, 3)}
    state |= {f"x.{i}.m": torch.tensor(i) for i in (0, 7, 10, 123)}
    ours = toy().read(state)
    assert ours["image.cls_token"].tolist() == [[[0, 1, 2]]]
    assert ours["image.pos_embed"].shape == (1, 2, 3)
    assert ours["logit_scale"].shape == ()
    assert ours["w"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert [int(ours[f"a.{i}.n"]) for i in (0, 7, 10, 123)] == [0, 7, 10, 123]
    back = toy().write(ours)
    assert {name: tensor.tolist() for name, tensor in back.items()} == {
        name: tensor.reshape(()).tolist() if name == "s" else tensor.tolist() for name, tensor in state.items()
    }


@pytest.mark.parametrize("name", ["x.0", "x.m", "x.{}.m", "x.0.n", "x.0.1.m", "y.0.m", "x.-1.m"])
def test_other_names_have_no_place(name: str) -> None:
    state = {"c": torch.arange(3), "p": torch.ones(2, 3), "v": torch.ones(2, 3)}
    assert "logit_scale" not in toy().read(state)
    with pytest.raises(ValueError, match=f"has no place for {re.escape(name)}$"):
        toy().read(state | {name: torch.ones(1)})


def test_long_lists_are_cut() -> None:
    with pytest.raises(ValueError, match=r"^toy needs c, p, v, which are not there$"):
        toy().read({})
    with pytest.raises(ValueError, match=r"no place for y0, y1, y2, y3 and 2 more$"):
        toy().read(
            {"c": torch.arange(3), "p": torch.ones(2, 3), "v": torch.ones(2, 3)}
            | {f"y{i}": torch.ones(1) for i in range(6)}
        )


def test_section() -> None:
    assert section({"a": {"b": 1}}, "a", b=0, c=2) == {"b": 1, "c": 2}
    assert section({"a": None}, "a", c=2) == section({}, "a", c=2) == {"c": 2}


def test_from_json_takes_a_file_or_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"n": 7}')
    for source in (tmp_path / "x.json", {"n": 7}):
        assert from_json(source, lambda json: {"embed_dim": json["n"]}).embed_dim == 7
    (tmp_path / "x.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"x.json: .*codec"):
        from_json(tmp_path / "x.json", dict)
