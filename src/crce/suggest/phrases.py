"""Phrases: a concept as it is typed, proposed phrases made fit for a prompt, and when two phrases are the same."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from crce.concepts.concept_set import fold, text_fault, tidy
from crce.errors import SuggestError


MAX_LENGTH = 200  # characters of a concept: a name is shorter, and a page of text is a mistake or an attack
WORDS = 8  # longer phrases are descriptions, which a prompt's other words drown
LETTERS = 60

_NUMBERING = re.compile(r"^\s*(?:[-*•·–—]|\(?\d{1,3}[.):])\s+")
_PAIRS = ('""', "''", "“”", "„“", "‘’", "«»", "``", "**", "__")
_ABBREVIATION = re.compile(r"(?:^|\s)(?:\S*\.\S+\.|\w\.|(?:Jr|Sr|St|Mr|Mrs|Ms|Dr|Inc|Co|Ltd|No)\.)$", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:an?|the)\s+(?=\S)", re.IGNORECASE)
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_BRACKETS = re.compile(r"\s*\([^()]*\)$")
_WITH_SENSE = re.compile(r"^(?P<target>.*\S)\s*\((?P<sense>[^()]*)\)$")
# words that frame a target and do not name it: "Van Gogh style" is about Van Gogh
_FRAME = frozenset(
    "a an the of by in on at to for with and or from as style styled painting paintings art artwork picture photo "
    "image drawing character person".split()
)


def parse_concept(concept: str) -> tuple[str, str | None]:
    """The target and the sense of a concept as it is typed: "bat (animal)" is "bat" in the sense "animal".

    Raises:
        SuggestError: there is no target, it is too long, or it contains a control character.
    """
    tidied = tidy(concept)
    if len(tidied) > MAX_LENGTH:
        raise SuggestError(
            f"The concept {brief(tidied)!r} has {len(tidied)} characters. Use at most {MAX_LENGTH}: a phrase as "
            "it would appear in a prompt."
        )
    if reason := text_fault(concept):
        raise SuggestError(f"The concept {reason}")
    found = _WITH_SENSE.match(tidied)
    return (found["target"], tidy(found["sense"]) or None) if found else (tidied, None)


def brief(text: str) -> str:
    """A concept as a message shows it: cut to 60 characters."""
    return text if len(text) <= 60 else text[:57] + "..."


def normalise(text: str) -> str:
    """`text` without numbering, quotes, a leading article and trailing punctuation, white space as single spaces.

    A capital article is kept where it opens a title ("The Potato Eaters"), and a full stop where it ends an
    abbreviation ("Robert Downey Jr.").
    """
    # a text of megabytes is no phrase, and its first page shows that just as well
    text = tidy(_INVISIBLE.sub("", unicodedata.normalize("NFC", text[:1000])))
    while True:
        before = text
        text = _NUMBERING.sub("", text)
        for pair in _PAIRS:
            if len(text) > 2 and text.startswith(pair[0]) and text.endswith(pair[-1]):
                text = text[1:-1].strip()
        text = text.rstrip(",;: ")
        if text.endswith(".") and not _ABBREVIATION.search(text):
            text = text.rstrip(".")
        if text == before:
            break
    article = _ARTICLE.match(text)
    if article:
        rest = text[article.end() :]
        if text[0].islower() or rest == rest.lower():
            text = rest
    return text


def phrase_fault(text: str, *, any_length: bool = False) -> str | None:
    """Why the normalised `text` can't be proposed, or None."""
    if reason := text_fault(text):
        return "it " + reason.partition(". ")[0].removeprefix(f"{text!r} ")
    if any(unicodedata.category(c) in ("Co", "Cn") or c == "\N{REPLACEMENT CHARACTER}" for c in text):
        return "it contains a character without a meaning"
    if not any(c.isalnum() for c in text):
        return "it contains no letter"
    if not any_length and (len(text.split()) > WORDS or len(text) > LETTERS):
        return f"it is longer than {WORDS} words or {LETTERS} letters"
    return None


@cache
def key(text: str) -> str:
    """The form in which two phrases count as the same: case, articles, numbering, punctuation and plurals ignored."""
    return " ".join(words(text))


@cache
def words(text: str) -> tuple[str, ...]:
    """The words of a phrase in the singular, folded, without punctuation and a leading article."""
    folded = re.sub(r"['’`]s\b", "", _ARTICLE.sub("", fold(normalise(text))))
    return tuple(singular(part) for part in re.findall(r"\w+", folded))


@cache
def core_words(target: str) -> frozenset[str]:
    """The words that make a target what it is, in the singular: those of "Van Gogh style" are "van" and "gogh"."""
    all_words = words(without_brackets(target))
    return frozenset(all_words) - _FRAME or frozenset(all_words)


def without_brackets(text: str) -> str:
    """`text` without a closing remark in brackets: "crane (bird)" becomes "crane"."""
    return _BRACKETS.sub("", text) or text


@cache
def singular(word: str) -> str:
    """The singular of a noun that WordNet knows, e.g. "mice" becomes "mouse"; any other word as it is."""
    from crce.suggest.wordnet import load_wordnet

    return fold(load_wordnet().base_form(word) or word)
