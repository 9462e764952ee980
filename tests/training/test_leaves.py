"""States become named tensors and JSON values, and come back the same."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pictura.training.leaves import decode, encode, split, storable

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
plain = st.recursive(scalars, lambda inner: st.lists(inner) | st.lists(inner).map(tuple), max_leaves=20)


@settings(deadline=None)
@given(plain)
def test_values_come_back_through_json(value: object) -> None:
    text = json.dumps(encode(value, "x"), allow_nan=False)
    back = decode(json.loads(text))
    assert back == value
    assert repr(back) == repr(value)  # tuples stay tuples, 1.0 a float, -0.0 negative


def test_nan_comes_back() -> None:
    assert math.isnan(decode(json.loads(json.dumps(encode(float("nan"), "x"), allow_nan=False))))


def test_names_of_an_optimizer() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    weight.sum().backward()
    optimizer.step()
    state = {"optimizer": optimizer.state_dict()}
    tensors, values = split(state)
    assert set(tensors) == {f"optimizer/state/0/{name}" for name in ("step", "exp_avg", "exp_avg_sq")}
    assert {"optimizer/param_groups/0/lr", "optimizer/param_groups/0/betas"} < set(values)
    box, key = values["optimizer/param_groups/0/lr"]
    box[key] = 0.5
    assert state["optimizer"]["param_groups"][0]["lr"] == 0.5


def test_lists_of_values_are_one_value() -> None:
    tensors, values = split({"seen": [1, [2, 3]], "mixed": [torch.zeros(1), 5]})
    assert set(tensors) == {"mixed/0"}
    assert set(values) == {"seen", "mixed/1"}


@pytest.mark.parametrize("value", [b"bytes", (1, torch.zeros(1)), [object()], torch.float32])
def test_what_cannot_be_held(value: object) -> None:
    with pytest.raises(TypeError, match=r"place: a .* here cannot be checkpointed"):
        encode(value, "place")


def test_storable_shares_no_memory_and_is_contiguous() -> None:
    base = torch.arange(6.0).reshape(2, 3)
    stored = storable({"a": base, "b": base, "turned": base.t(), "empty": torch.empty(0), "empty2": torch.empty(0)})
    assert stored["a"].data_ptr() == base.data_ptr()  # no needless copy
    pointers = [t.data_ptr() for t in stored.values() if t.numel()]
    assert len(set(pointers)) == len(pointers)
    assert all(t.is_contiguous() for t in stored.values())
    assert torch.equal(stored["turned"], base.t())
