from collections.abc import Sequence
from pathlib import Path

import pytest

from pictura.evaluation.prompts import Prompts
from pictura.evaluation.synonyms import VARIABLE, synonyms, with_synonyms

SENSES = (  # in the order of data.noun; the first of a word is its first meaning
    ("dog", "domestic_dog", "Canis_familiaris"),
    ("sofa", "couch", "lounge"),
    ("Crane", "Stephen_Crane"),
    ("crane",),
    ("church", "church_building"),
    ("goose",),
    ("aerosol_can", "spray_can"),
)
LICENSE = "  1 This software and database is being provided to you, the LICENSEE, by  \n"


def write_wordnet(folder: Path, senses: Sequence[Sequence[str]] = SENSES) -> Path:
    """A database of these nouns, as wndb(5WN) has it."""
    folder.mkdir(exist_ok=True)
    data, places = LICENSE, dict[str, list[int]]()
    for words in senses:
        place = len(data.encode())
        named = " ".join(f"{word} 0" for word in words)
        data += f"{place:08d} 05 n {len(words):02x} {named} 001 @ 00001740 n 0000 | a gloss, with an é in it  \n"
        for word in words:
            places.setdefault(word.lower(), []).append(place)
    lines = [
        f"{word} n {len(at)} 2 @ ~ {len(at)} 0 {' '.join(f'{one:08d}' for one in at)}  \n"
        for word, at in sorted(places.items())
    ]
    (folder / "data.noun").write_text(data, encoding="utf-8")
    (folder / "index.noun").write_text(LICENSE + "".join(lines), encoding="utf-8")
    (folder / "noun.exc").write_text("geese goose\n")
    return folder


def test_other_words_of_the_first_meaning(tmp_path: Path) -> None:
    found = synonyms(
        ["dog", "Sofa", "couch", "crane", "aerosol can", "aerosol_can", "red star"], write_wordnet(tmp_path)
    )
    assert found == {
        "dog": ("domestic dog", "Canis familiaris"),
        "Sofa": ("couch", "lounge"),
        "couch": ("sofa", "lounge"),
        "crane": ("Stephen Crane",),
        "aerosol can": ("spray can",),
        "aerosol_can": ("spray can",),
    }


def test_plurals_are_those_of_a_noun(tmp_path: Path) -> None:
    found = synonyms(["churches", "geese", "gooses", "dogs", "s"], write_wordnet(tmp_path))
    assert found["churches"] == ("church", "church building") and found["geese"] == ("goose",) == found["gooses"]
    assert found["dogs"][1:] == ("domestic dog", "Canis familiaris") and "s" not in found


def test_where_it_is_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(write_wordnet(tmp_path / "dict")))
    assert synonyms(["sofa", "goose"]) == {"sofa": ("couch", "lounge")}
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match=r"there is no WordNet in .*apt install wordnet-base.*nltk"):
        synonyms(["sofa"])


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("index.noun", "dog n 1 2 @ ~ 1 0 00000003  \n"),
        ("index.noun", "dog n 1 2 @ ~ 1 0 99999999  \n"),
        ("index.noun", "dog n x\n"),
        ("index.noun", f"dog n 1 2 @ ~ 1 0 {10**30}  \n"),
        ("index.noun", "dog \n"),
        ("noun.exc", b"\xff\xfe"),
        ("index.noun", "dog n 1 -5 \n"),
        ("data.noun", ""),
        ("index.noun", b"dog \xff\xfe"),
    ],
)
def test_damaged_files(file: str, content: str | bytes, tmp_path: Path) -> None:
    (write_wordnet(tmp_path) / file).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match="its noun files are damaged"):
        synonyms(["dog"], tmp_path)


def test_prompts_keep_what_they_say_of_a_class(tmp_path: Path) -> None:
    prompts = Prompts(templates=("a {}",), descriptions={"dog": ("hound",)})
    found = with_synonyms(prompts, synonyms(["dog", "sofa"], write_wordnet(tmp_path)))
    assert found.templates == ("a {}",)
    assert [found.phrases(name) for name in ("dog", "sofa", "cat")] == [
        ("hound",),
        ("sofa", "couch", "lounge"),
        ("cat",),
    ]
