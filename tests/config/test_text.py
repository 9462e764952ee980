import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pictura.config.text import MAX_BYTES, MAX_DEPTH, MAX_VALUES, dump, parse, read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("1E5", 1e5), ("5e-4", 5e-4), (".5", 0.5), ("1.", 1.0), ("-1.5e+3", -1500.0),
        (".inf", float("inf")), ("-.Inf", -float("inf")),
        ("010", 10), ("+3", 3), ("-12", -12), ("0x1F", 31), ("0o17", 15),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        # what YAML 1.1 reads as something else, and what only looks like a number
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("Off", "Off"), ("y", "y"), ("1:30", "1:30"), ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"), ("0b11", "0b11"), ("=", "="), ("e3", "e3"), (".", "."), ("1e", "1e"),
        ("'1e-3'", "1e-3"), ("<<: {a: 1}", {"<<": {"a": 1}}),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text: str, value: Any) -> None:
    assert parse(text) == value
    assert type(parse(text)) is type(value)


def test_nan_is_a_float() -> None:
    assert parse(".nan") != parse(".nan")


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(plain)
@settings(deadline=None)
def test_what_is_dumped_is_read_back(value: Any) -> None:
    text = dump(value)
    assert parse(text) == value
    assert parse(text.encode().decode("utf-8-sig")) == value


@given(
    st.sampled_from(
        ["1e-3", "010", "yes", "null", "0x1f", "1:30", "~", "", ".inf", "<<", "!x", "*a", "&a", "- a", "a: b", "#"]
    )
)
def test_strings_that_look_like_something_else_stay_strings(text: str) -> None:
    assert parse(dump({text: [text]})) == {text: [text]}


def test_a_list_of_scalars_stays_on_one_line_and_names_keep_their_order() -> None:
    assert dump({"b": [0.5, 1e-9], "a": [{"x": 1}], "c": []}) == "b: [0.5, 1.0e-09]\na:\n- x: 1\nc: []\n"


# --- hostile texts


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['true']",
        "!!python/name:os.system",
        "!!python/module:os",
        "!!python/tuple [1]",
        "!ruby/object:X {}",
        "a: !custom 3",
    ],
)
def test_no_tag_builds_an_object(text: str) -> None:
    with pytest.raises(ValueError, match=r"line 1, column .*could not determine a constructor"):
        parse(text)


def test_an_alias_is_an_ordinary_convenience() -> None:
    assert parse("a: &x {b: 1}\nc: *x\nd: [*x, *x]") == {"a": {"b": 1}, "c": {"b": 1}, "d": [{"b": 1}, {"b": 1}]}


def test_an_alias_bomb_is_refused_before_it_goes_off() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(ValueError, match=f"more than {MAX_VALUES} values, aliases counted"):
        parse("\n".join(lines))


def test_an_alias_inside_what_it_names_is_refused() -> None:
    with pytest.raises(ValueError, match=r"alias \*a stands inside what it names"):
        parse("&a [1, *a]")
    with pytest.raises(ValueError, match="undefined alias"):
        parse("[*a]")


def test_a_redefined_anchor_cannot_hide_its_weight() -> None:
    with pytest.raises(ValueError, match="duplicate anchor"):
        parse("\n".join(["- &a [1, 2]"] + ["- &a [*a, *a, *a, *a]"] * 12))


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_deep_nesting_is_refused(opening: str) -> None:
    with pytest.raises(ValueError, match=f"nested deeper than {MAX_DEPTH} levels"):
        parse(opening * 5000)


def test_depth_counts_levels_and_not_siblings() -> None:
    assert len(parse(str([[0]] * (MAX_DEPTH * 3)))) == MAX_DEPTH * 3
    parse("[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1))


def test_many_values_are_refused() -> None:
    with pytest.raises(ValueError, match="more than"):
        parse(str([0] * MAX_VALUES))


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="line 2, column 1: key 'a' is given twice"):
        parse("a: 1\na: 2")


@pytest.mark.parametrize(
    "text", ["a: [1", "a: b: c", "\ta: 1", "a\n---\nb", "@a", "{a: 1}}", "[[]: 1]: 2", "{[1]: 2}", "\x00", "1" * 5000]
)
def test_what_is_not_yaml_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


@given(st.text(alphabet=st.sampled_from("ab1:-[]{},&*!|>'\"%@#? \n\t"), max_size=60))
@settings(deadline=None, max_examples=300)
def test_any_text_gives_a_value_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        parse(text)


# --- files


def test_a_file_error_starts_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: 1\nb: [1")
    with pytest.raises(ValueError) as raised:
        read(path)
    assert str(raised.value).startswith(f"{path}: line 2, column ")
    assert "\n" not in str(raised.value)


def test_a_file_of_more_than_a_mebibyte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("#" * MAX_BYTES)
    assert read(path) is None
    path.write_text("#" * (MAX_BYTES + 1))
    with pytest.raises(ValueError, match="larger than 1 MiB"):
        read(path)
    with pytest.raises(ValueError, match="larger than 1 MiB"):
        parse("#" * (MAX_BYTES + 1))


def test_an_endless_file_is_refused() -> None:
    with pytest.raises(ValueError, match="/dev/zero: larger than 1 MiB"):
        read("/dev/zero")


def test_bytes_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"a: \xff\xfe")
    with pytest.raises(ValueError, match=r"model.safetensors: not UTF-8 text \(byte 3\)"):
        read(path)


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert read(path) == {"a": 1}


def test_a_missing_file_and_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as raised:
        read(tmp_path / "nowhere" / "a.yaml")
    assert str(raised.value) == f"{tmp_path}/nowhere/a.yaml: no such file or directory"
