"""The nouns of Open English WordNet, with WordNet's names and others: the senses of a phrase and their relations.

They are stored in one SQLite database, `wordnet_data/wordnet.db`, made by tools/lexicon/build.py. It opens at once and
only what is queried is read; importing NLTK alone takes longer than a whole suggestion may.
"""

import math
import re
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from crce.concepts.concept_set import Kind, fold, name_key


# The lexicographer files of things that can be depicted, the most often meant first.
CONCRETE = ("animal", "artifact", "food", "plant", "body", "object", "person", "phenomenon", "substance", "Tops")
# WordNet's own rules for nouns, morphy(7WN)
_DETACHMENT = [pair.split(">") for pair in "s> ses>s ves>f xes>x zes>z ches>ch shes>sh men>man ies>y".split()]
# The columns of Sense, and the tables they are in.
_SENSE = "sense.number, sense.words, file.name, sense.gloss, sense.is_instance, sense.sorts"
_FROM = "FROM sense JOIN file ON file.id = sense.file"
_OF_WORD = f"SELECT {_SENSE} {_FROM} JOIN word ON word.sense = sense.number WHERE word.lemma = ? ORDER BY word.rank"
_ABOVE = f"""
    SELECT {_SENSE} {_FROM} JOIN (
        SELECT above, 0 AS rank FROM sense WHERE number = ?1
        UNION ALL SELECT above, rank FROM also_above WHERE sense = ?1
    ) AS link ON link.above = sense.number ORDER BY link.rank"""
_BELOW = f"""
    SELECT {_SENSE} {_FROM} WHERE sense.number IN (
        SELECT number FROM sense WHERE above = ?1 UNION ALL SELECT sense FROM also_above WHERE above = ?1
    ) ORDER BY sense.number"""
_PARTS = f"SELECT {_SENSE} {_FROM} JOIN part ON part.part = sense.number WHERE part.whole = ? ORDER BY sense.number"
_LIFE_FORMS = f"SELECT {_SENSE} {_FROM} JOIN life_form ON life_form.sense = sense.number WHERE life_form.word = ?"
_NAMESAKE = f"""
    SELECT 1 {_FROM} JOIN word ON word.sense = sense.number
    WHERE word.lemma > ? AND word.lemma < ? AND sense.is_instance AND file.name = 'person' LIMIT 1"""
_MET = "SELECT count, common FROM word WHERE lemma = ? AND sense = ?"


@dataclass(frozen=True)
class Sense:
    """One meaning, with all the words that have it."""

    number: int  # its place among the nouns, which identifies it
    words: tuple[str, ...] = field(compare=False)  # the usual one first, as they are written ("Siamese cat")
    file: str = field(compare=False)  # its lexicographer file: "animal", "artifact", "person", ...
    gloss: str = field(compare=False)  # its definition, shortened
    is_instance: bool = field(compare=False)  # one single thing, such as a person or a city, and not a sort of thing
    sorts: int = field(compare=False)  # how many senses are below it


class WordNet:
    """Senses and their relations, read from a folder that tools/lexicon/build.py wrote; thread-safe."""

    def __init__(self, folder: Path) -> None:
        # nobody writes to it, so it needs no locks and may be on a read-only disk
        self._uri = f"{(folder / 'wordnet.db').resolve().as_uri()}?mode=ro&immutable=1"
        self._opened = threading.local()
        self._find = lru_cache(2**16)(self._select)
        self._met = lru_cache(2**16)(self._times_met)
        self._base = lru_cache(2**16)(self._singular)

    def base_form(self, word: str) -> str | None:
        """The singular that WordNet knows, e.g. "cat" for "Cats", or None. A known word stays as it is."""
        return self._base(_lemma(word))

    def senses(self, phrase: str) -> list[Sense]:
        """Every sense of a phrase or of its singular, the most frequent first; none if it is unknown."""
        return list(self._find(_OF_WORD, self.base_form(phrase)))

    def hypernyms(self, sense: Sense) -> list[Sense]:
        """The senses that it is a sort or an instance of."""
        return list(self._find(_ABOVE, sense.number))

    def parts(self, sense: Sense) -> list[Sense]:
        """Its parts."""
        return list(self._find(_PARTS, sense.number))

    def ancestors(self, sense: Sense) -> dict[Sense, int]:
        """Everything above a sense with the number of steps to it, nearest first; not the sense itself."""
        return _walk(sense, self.hypernyms)

    def words_above(self, sense: Sense) -> set[str]:
        """The words of everything above a sense."""
        return {word for above in self.ancestors(sense) for word in above.words}

    def descendants(self, sense: Sense, depth: int = 99) -> dict[Sense, int]:
        """Its sorts and instances, theirs, ..., with the number of steps, nearest first."""
        return _walk(sense, lambda s: self._find(_BELOW, s.number), depth)

    def life_forms(self, word: str) -> list[Sense]:
        """The animals that are defined as a young, male, ... one of `word`: a "puppy" is a young mammal to WordNet."""
        return list(self._find(_LIFE_FORMS, _lemma(word)))

    def common(self, sense: Sense, word: str) -> float:
        """How common `word` is in this sense: 0 to 1 for 1,000 to 100,000,000 times in a trillion words of the web."""
        return min(self._met(sense.number, _lemma(word))[1] / 50, 1.0)

    def lemmas(self, start: str = "", common: float = 0) -> Iterator[str]:
        """Every word and phrase it knows, in lower case, sorted; or those that begin so and are so common."""
        known = "SELECT lemma FROM word WHERE rank = 0 AND common >= ? AND lemma >= ? AND lemma < ? ORDER BY lemma"
        return (lemma for (lemma,) in self._rows(known, 50 * common, start, f"{start}\U0010ffff"))

    def choose(self, phrase: str, kind: Kind = "object", sense: str | None = None) -> Sense | None:
        """The sense of `phrase` that is most likely meant; None if there is none.

        With `sense` (a hypernym such as "animal", a synonym, or words of its definition), the one it fits best.
        Without it, the sense of this kind that is written in the same case, is a sort of thing and is most frequent.
        """
        known = self.senses(phrase)
        if sense is not None:
            fits = {each: self.fit(each, phrase, sense) for each in known}
            return max((each for each in known if fits[each] > 0), key=fits.__getitem__, default=None)
        of_kind = [each for each in known if self._is_kind(each, kind)]
        return min(of_kind, key=lambda each: self._rareness(each, phrase), default=None)

    def _rareness(self, sense: Sense, phrase: str) -> tuple[bool | int, ...]:
        """The key by which the senses of `phrase` are ordered; equal ones stay in WordNet's order."""
        base = self.base_form(phrase) or phrase
        rank = CONCRETE.index(sense.file) if sense.file in CONCRETE else len(CONCRETE)
        return (
            phrase not in sense.words,  # "turkey" is no country
            base not in sense.words,
            sense.is_instance,
            rank == len(CONCRETE),
            -(self._met(sense.number, _lemma(base))[0] // 5),  # a few more or less say nothing
            rank >= CONCRETE.index("person"),
            sense.file == "plant" and any(other.file == "food" for other in self.senses(base)),  # "strawberry"
            -int(math.log(1 + sense.sorts, 4)),  # what people have many words for, they speak of
            rank > 0,  # the flesh of an animal goes by the same name
        )

    def fit(self, sense: Sense, phrase: str, meant: str) -> float:
        """How well `meant` names one sense of `phrase`, from 0 (not at all) to 1 (one of its words)."""
        wanted = {fold(meant), fold(self.base_form(meant) or meant)}
        others = set(map(fold, sense.words)) - {fold(phrase)}
        combined = {f"{one} {fold(phrase)}" for one in wanted} | {f"{fold(phrase)} {one}" for one in wanted}
        if wanted & others or combined & others:
            return 1.0
        if steps := [n for above, n in self.ancestors(sense).items() if wanted & set(map(fold, above.words))]:
            return 0.9 / (1 + 0.05 * min(steps))
        if any(wanted & set(map(fold, other.words)) for other in self.descendants(sense, 1)):
            return 0.8
        if sense.file in wanted:
            return 0.7
        about = {self.base_form(word) or word for word in re.split(r"[\s(,]+", fold(sense.gloss))}
        shared = {self.base_form(word) or word for word in fold(meant).split() if len(word) > 3} & about
        return 0.5 if shared else 0.0

    def _is_kind(self, sense: Sense, kind: Kind) -> bool:
        is_person = sense.is_instance and sense.file == "person"
        if kind == "person":
            return is_person and "imaginary being" not in self.words_above(sense)
        if kind == "character":
            return self.is_imagined(sense)
        if kind == "style":
            return not self.words_above(sense).isdisjoint({"artistic movement", "artist"})
        depictable = sense.file in (*CONCRETE, "group", "location", "event", "shape", "communication")
        return kind != "object" or (depictable and not is_person)

    def is_imagined(self, sense: Sense) -> bool:
        """Whether it is a being of fiction, legend or religion."""
        is_fiction = sense.is_instance and "fiction" in sense.gloss
        return is_fiction or not self.words_above(sense).isdisjoint({"imaginary being", "character"})

    def is_given_name(self, name: str) -> bool:
        """Whether a person whom it knows has the first of several words as a first name too."""
        first, _, rest = _lemma(name).partition(" ")
        return bool(rest) and any(self._rows(_NAMESAKE, f"{first} ", f"{first}!"))

    def _singular(self, lemma: str) -> str | None:
        spelt = "SELECT singular FROM plural WHERE lemma IN (?, ?)"
        joined = name_key(lemma) if re.fullmatch(r"[\w '’.-]+", lemma) else lemma
        irregular = (singular for (singular,) in self._rows(spelt, lemma, joined))
        regular = (lemma[: -len(ending)] + new for ending, new in _DETACHMENT if lemma.endswith(ending))
        known = "SELECT 1 FROM word WHERE lemma = ? AND rank = 0"
        forms = chain([lemma], irregular, regular, [joined])
        return next((form for form in forms if any(self._rows(known, form))), None)

    def _select(self, query: str, value: str | int | None) -> tuple[Sense, ...]:
        return tuple(
            Sense(number, tuple(words.split("\n")), file, gloss, bool(is_instance), sorts)
            for number, words, file, gloss, is_instance, sorts in self._rows(query, value)
        )

    def _times_met(self, sense: int, lemma: str) -> tuple[int, int]:
        """How often in tagged texts, and on the web in steps of 10 log10."""
        return next(self._rows(_MET, lemma, sense), (0, 0))

    def _rows(self, query: str, *values: str | float | None) -> Iterator[tuple[Any, ...]]:
        if not hasattr(self._opened, "connection"):  # a connection belongs to the thread that made it
            self._opened.connection = sqlite3.connect(self._uri, uri=True)
        return self._opened.connection.execute(query, values)


@cache
def load_wordnet() -> WordNet:
    """The bundled WordNet, loaded once per process."""
    return WordNet(Path(__file__).parent / "wordnet_data")


def _walk(start: Sense, step: Callable[[Sense], Iterable[Sense]], depth: int = 99) -> dict[Sense, int]:
    """Breadth first from `start`, which is not in the result."""
    found = {start: 0}
    level = [start]
    for n in range(1, depth + 1):
        level = [s for s in dict.fromkeys(s for each in level for s in step(each)) if s not in found]
        found |= dict.fromkeys(level, n)
        if not level:
            break
    del found[start]
    return found


def _lemma(phrase: str) -> str:
    # invalid text, such as half a surrogate pair, can't be looked up and becomes "?"
    return " ".join(phrase.split()).lower().encode(errors="replace").decode()
