"""Other words for classes, from WordNet where it is installed (Miller 1995): a noun's first, most frequent, meaning.

That meaning need not be the one of the pictures: the first crane is Stephen Crane. So `pictura prompts` compares them
with the bare names, by pictures.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pictura.evaluation.prompts import Prompts

SYSTEM = Path("/usr/share/wordnet")  # Debian's wordnet-base
VARIABLE = "WNSEARCHDIR"  # a folder of these files elsewhere, as WordNet's own programs have it (wn(1WN))
ENDINGS = (  # of plurals, and of what they are plurals of (morphy(7WN))
    *(("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh")),
    *(("men", "man"), ("ies", "y")),
)
LONGEST = 1 << 16  # bytes of a line


def synonyms(names: Sequence[str], folder: Path | None = None) -> dict[str, tuple[str, ...]]:
    """{name: the other words of its first meaning as a noun}, of the names that WordNet has with other words.

    It is read from `folder`, else from that of $WNSEARCHDIR, else through nltk where that is installed with its data,
    else from where Debian has it. ValueError, with what to install, where it is nowhere, and for damaged files.
    """
    given = folder or (Path(value).expanduser() if (value := os.environ.get(VARIABLE)) else None)
    corpus = None if given else from_nltk()
    read = {name: lemmas_by(corpus, name) for name in names} if corpus else lemmas_in(given or SYSTEM, names)
    found = dict[str, tuple[str, ...]]()
    for name, lemmas in read.items():
        words = dict.fromkeys(lemma.replace("_", " ") for lemma in lemmas)
        if others := tuple(word for word in words if key(word) != key(name)):
            found[name] = others
    return found


def with_synonyms(prompts: Prompts, found: Mapping[str, tuple[str, ...]]) -> Prompts:
    """Where the prompts describe a class by nothing but its name, by its name and its synonyms."""
    described = {name: (name, *others) for name, others in found.items()}
    return replace(prompts, descriptions=described | prompts.descriptions)


def key(name: str) -> str:
    """A name as the index of WordNet has it."""
    return "_".join(name.replace("_", " ").lower().split())


def from_nltk() -> Any:
    """nltk's reader of WordNet, None where nltk or all of its data are not installed."""
    try:
        from nltk.corpus import wordnet  # type: ignore[import-not-found, unused-ignore]

        wordnet.ensure_loaded()
    except (ImportError, LookupError, OSError):
        return None
    return wordnet


def lemmas_by(corpus: Any, name: str) -> list[str]:
    """All words of the first meaning of a name, itself among them; none where nltk does not know it."""
    meanings = corpus.synsets(key(name), pos="n")
    return list(meanings[0].lemma_names()) if meanings else []


def lemmas_in(folder: Path, names: Iterable[str]) -> dict[str, list[str]]:
    """The same of several, from the database's own files (wndb(5WN)): one pass over index.noun, then a line of
    data.noun for each."""
    index, data, irregular = (folder / file for file in ("index.noun", "data.noun", "noun.exc"))
    if not (index.is_file() and data.is_file()):
        installed = "`apt install wordnet-base`, or `pip install nltk` and `python -m nltk.downloader wordnet`"
        raise ValueError(f"synonyms: there is no WordNet in {folder}; install it: {installed}, or set {VARIABLE}")
    try:
        exceptions = irregulars(irregular)
        forms = {name: forms_of(key(name), exceptions) for name in names}
        wanted, places = {form for some in forms.values() for form in some if form}, dict[str, int]()
        with index.open(encoding="utf-8") as file:
            for line in file:  # lemma n synset_cnt p_cnt [symbol…] sense_cnt tagsense_cnt offset…
                if line.partition(" ")[0] in wanted:
                    word, _, count, *rest = line.split()
                    places[word] = int(rest[-int(count)])
        with data.open("rb") as lines:
            first = {name: next((form for form in some if form in places), None) for name, some in forms.items()}
            return {name: [] if form is None else words_at(lines, places[form]) for name, form in first.items()}
    except (ValueError, IndexError, OverflowError) as error:
        raise ValueError(f"{folder}: its noun files are damaged ({error}); install WordNet again") from None


def irregulars(path: Path) -> dict[str, list[str]]:
    """noun.exc: {plural: what it is the plural of}; empty where there is no such file."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8") as file:
        return {words[0]: words[1:] for line in file if (words := line.split())}


def forms_of(word: str, exceptions: Mapping[str, list[str]]) -> list[str]:
    """The word, and what it may be the plural of."""
    regular = [word[: -len(end)] + new for end, new in ENDINGS if word.endswith(end)]
    return [word, *exceptions.get(word, regular)]


def words_at(file: Any, place: int) -> list[str]:
    """The words in the line of data.noun that begins at byte `place`."""
    file.seek(max(place, 0))
    fields = file.readline(LONGEST).decode("utf-8").split()  # offset lex_filenum n w_cnt (hexadecimal) [word lex_id]…
    if not fields or int(fields[0]) != place:
        raise ValueError(f"nothing begins at byte {place} of data.noun")
    words: list[str] = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
    return words
