import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pictura.data.patterns import MAX_NAMES, expand, local_tars
from tests.data.files import write


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{00..02}.tar", ["a-00.tar", "a-01.tar", "a-02.tar"]),
        ("{9..11}", ["9", "10", "11"]),
        ("{009..10}", ["009", "010"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a,b,}c", ["ac", "bc", "c"]),
        ("{a,b}-{0..1}", ["a-0", "a-1", "b-0", "b-1"]),
        ("{x,{a,b}{0..1}}", ["x", "a0", "a1", "b0", "b1"]),
        ("{train}.tar", ["{train}.tar"]),
        ("a{b", ["a{b"]),
        ("a}b", ["a}b"]),
        ("{}", ["{}"]),
    ],
)
def test_braces(pattern: str, names: list[str]) -> None:
    assert expand(pattern) == names


PIECES = {"a": "a", "/": "/", "{0..3}": "0 1 2 3", "{08..11}": "08 09 10 11", "{x,y}": "x y", "{p,q{1..2}}": "p q1 q2"}


@settings(deadline=None)
@given(st.lists(st.sampled_from(sorted(PIECES)), max_size=5))
def test_braces_multiply_the_last_running_fastest(pieces: list[str]) -> None:
    expected = ["".join(choice) for choice in itertools.product(*(PIECES[piece].split() for piece in pieces))]
    assert expand("".join(pieces)) == expected


def test_too_many_names() -> None:
    assert len(expand("{00000..99999}")) == MAX_NAMES
    for pattern in ("{0..100000}", "{0..9999999999}", "{0..999}{0..999}", "{a,b}" * 40):
        with pytest.raises(ValueError, match="stands for more than 100,000 names"):
            expand(pattern)
    with pytest.raises(ValueError, match="nested too deep"):
        expand("{" * 1500 + "}" * 1500)


def test_local_files(tmp_path: Path) -> None:
    for name in ("a-0.tar", "a-1.tar", "a-2.tar", "other.txt", "odd[1].tar"):
        write(tmp_path / name, "")

    def names(*patterns: str) -> list[str]:
        return [Path(path).name for path in local_tars([str(tmp_path / pattern) for pattern in patterns])]

    assert names("a-{0..1}.tar") == ["a-0.tar", "a-1.tar"]
    assert names("a-*.tar") == ["a-0.tar", "a-1.tar", "a-2.tar"]
    assert names("a-[12].tar") == ["a-1.tar", "a-2.tar"]
    assert names("") == ["a-0.tar", "a-1.tar", "a-2.tar", "odd[1].tar"]
    assert names("odd[1].tar") == ["odd[1].tar"]
    assert names("a-2.tar", "a-?.tar") == ["a-2.tar", "a-0.tar", "a-1.tar"]
    with pytest.raises(ValueError, match=r"a-3\.tar: no such tar; did you mean 'a-\d\.tar'"):
        names("a-{0..3}.tar")
    with pytest.raises(ValueError, match="no such tar"):
        names("none/*.tar")
    with pytest.raises(ValueError, match="names no tar"):
        local_tars([])


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "a.tar", "")
    assert local_tars("~/a.tar") == [str(tmp_path / "a.tar")]
