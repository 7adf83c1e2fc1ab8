"""Phrases: a concept as it is typed, proposed phrases made fit for a prompt, and when two phrases are the same."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from difflib import SequenceMatcher
from functools import cache

from crce.concepts.concept_set import certainty_word, fold, name_key, text_fault, tidy
from crce.errors import SuggestError
from crce.suggest.candidates import SIDES, Candidate, Request


MAX_LENGTH = 200  # characters of a concept: a name is shorter, and a page of text is a mistake or an attack
WORDS = 8  # longer phrases are descriptions, which a prompt's other words drown
LETTERS = 60

_NUMBERING = re.compile(r"^\s*(?:[-*•·–—]|\(?\d{1,3}[.):])\s+")
_PAIRS = ('""', "''", "“”", "„“", "‘’", "«»", "``", "**", "__")
_ABBREVIATION = re.compile(r"(?:^|\s)(?:\S*\.\S+\.|\w\.|(?:Jr|Sr|St|Mr|Mrs|Ms|Dr|Inc|Co|Ltd|No)\.)$", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:an?|the)\s+(?=\S)", re.IGNORECASE)
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_BRACKETS = re.compile(r"(?<=\S)\s*\([^()]*\)$")  # a closing remark: "crane (bird)"
_WITH_SENSE = re.compile(r"^(?P<target>.*\S)\s*\((?P<sense>[^()]*)\)$")
# words that frame a target and do not name it: "Van Gogh style" is about Van Gogh
_FRAME = frozenset(
    "a an the of by in on at to for with from as style styled painting paintings art artwork picture photo image "
    "drawing character person who that which whose".split()
)
_ALSO = frozenset({"and", "or"})


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
    text, before = tidy(_INVISIBLE.sub("", unicodedata.normalize("NFC", text[:1000]))), ""
    while text != before:
        before = text
        text = _NUMBERING.sub("", text)
        for pair in _PAIRS:
            if len(text) > 2 and text.startswith(pair[0]) and text.endswith(pair[-1]):
                text = text[1:-1].strip()
        text = text.rstrip(",;: ")
        if not _ABBREVIATION.search(text):
            text = text.rstrip(".")
    rest = _ARTICLE.sub("", text)
    return rest if text[:1].islower() or rest == rest.lower() else text


def phrase_fault(text: str, *, any_length: bool = False) -> str | None:
    """Why the normalised `text` can't be proposed, or None."""
    if reason := text_fault(text):
        return "it " + reason.partition(". ")[0].removeprefix(f"{text!r} ")
    if "\N{REPLACEMENT CHARACTER}" in text or any(unicodedata.category(c) in ("Co", "Cn") for c in text):
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


def name_of(target: str) -> str:
    """The form in which two targets are one: that of `name_key`, with irregular plurals."""
    return name_key(key(target))


@cache
def words(text: str) -> tuple[str, ...]:
    """The words of a phrase in the singular, folded, without punctuation and a leading article."""
    from crce.suggest.wordnet import load_wordnet

    folded = re.sub(r"['’`]s\b", "", _ARTICLE.sub("", fold(normalise(text))))
    return tuple(fold(load_wordnet().base_form(word) or word) for word in re.findall(r"\w+", folded))


def head(text: str) -> str:
    """The word that a phrase is about: the last before a preposition, as in "painter of lilies", without a frame."""
    own = words(text)
    start = next((i for i, word in enumerate(own) if word not in _FRAME), 0)
    end = next((i for i, word in enumerate(own) if i > start and word in _FRAME), len(own))
    return next((word for word in reversed(own[start:end]) if word not in _ALSO), "")


def same_head(text: str, other: str) -> bool:
    """Whether one phrase is about a word that the other holds, so that either only re-words the other."""
    return head(text) in words(other) or head(other) in words(text)


# both must hold: MiniLM puts some different things closer than 0.97, and "brown bear" is spelt like "brown beer"
SAME_MEANING = 0.97
SAME_SPELLING = 0.85
# written by people who knew these rules and broke them on purpose: "baseball bat" is kept while the animal is erased
CURATED = frozenset({"atlas", "user"})


def clean(
    candidates: Iterable[Candidate], request: Request, *, settle: bool = True
) -> tuple[list[Candidate], list[Candidate]]:
    """Normalise the phrases and drop those that repeat or contradict others, or would undo the erasure.

    Without `settle`, a phrase that is proposed on both sides stays on both until a second question is answered.

    Returns:
        The candidates to keep, the most certain first and otherwise in the order of `candidates`; and those that are
        dropped, each with the reason, in words that follow "because".
    """
    usable: list[Candidate] = []
    kept: list[Candidate] = []
    dropped: list[Candidate] = []
    for candidate in candidates:
        candidate = replace(candidate, text=normalise(candidate.text))
        if reason := _fault(candidate, request):
            dropped.append(candidate.dropped(reason))
        else:
            usable.append(candidate)
    groups = _groups(sorted(usable, key=lambda c: -c.certainty))
    if not settle:
        groups = [[c for c in group if c.side == side] for group in groups for side in SIDES]
    for group in filter(None, groups):
        best = max(group, key=lambda c: c.certainty)  # the first of equals
        word = certainty_word(best.certainty)
        if any(c.side != best.side and c.certainty == best.certainty for c in group):
            dropped += [c.dropped(f"it was proposed as a coref and as a retain, both {word}") for c in group]
            continue
        kept.append(best)
        for c in group:
            if c.side != best.side:
                dropped.append(c.dropped(f"it was also proposed as a {best.side}, more certainly ({word})"))
            elif c is not best:
                dropped.append(c.dropped(f"it repeats {best.text!r}"))
    return kept, dropped


def _fault(candidate: Candidate, request: Request) -> str | None:
    """Why a candidate can't be used, whatever the others are, or None."""
    text, side = candidate.text, candidate.side
    if side not in SIDES:
        return f"side {side!r} is neither coref nor retain"
    if not 0 <= candidate.certainty <= 1:  # also NaN
        return f"its certainty {candidate.certainty} is outside [0, 1]"
    curated = candidate.source in CURATED
    if reason := phrase_fault(text, any_length=curated):
        return reason
    bare, target = (_BRACKETS.sub("", each) for each in (text, request.target))
    if key(text) == key(request.target) or key(bare) == key(target):
        return "it is the target itself"
    if side == "retain" and name_key(bare) == name_key(target):
        return "it is the target in another spelling"
    if any(side == avoided and key(text) == key(phrase) for avoided, phrase in request.avoid):
        return "it was rejected before"
    own, said = set(words(target)), set(words(text))
    own = own - _FRAME - _ALSO or own  # what makes it what it is: "van", "gogh" of "Van Gogh style"
    if side == "retain" and said and said <= own:
        return f"it is made of the target's own words ({request.target}), so it can't be kept while that is erased"
    if side == "retain" and not curated and own <= said:
        return f"it contains the target's own words ({request.target}), so erasing the target would erase it too"
    return None


def _groups(candidates: list[Candidate]) -> list[list[Candidate]]:
    """The candidates in groups that say the same thing, in the order of their first members."""
    by_key: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        by_key.setdefault(key(candidate.text), []).append(candidate)
    groups = list(by_key.values())
    texts = [group[0].text for group in groups]
    from crce.demo.embedding import load_embedder

    near = load_embedder().similarity(texts, texts) > SAME_MEANING
    home = list(range(len(groups)))  # the group that each was merged into
    for later, earlier in ((i, j) for i in range(len(groups)) for j in range(i) if near[i, j]):
        spelling = SequenceMatcher(None, key(texts[later]), key(texts[earlier]), autojunk=False).ratio()
        if home[later] == later and spelling > SAME_SPELLING:
            home[later] = home[earlier]
            groups[home[earlier]].extend(groups[later])
    return [group for i, group in enumerate(groups) if home[i] == i]
