"""What WordNet's relations say about the two sides: other words and sorts of a target, and the things around it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crce.concepts.concept_set import fold


if TYPE_CHECKING:
    from crce.suggest.wordnet import Sense, WordNet

MOST = 240  # phrases that are ranked; more takes too long
# Above these everything is a neighbour of everything.
TOO_WIDE = frozenset(
    "entity object whole artifact instrumentality organism matter abstraction person thing cognition group attribute "
    "state condition act activity event property relation measure communication location shape process".split()
) | {"physical entity", "living thing", "natural object", "causal agent", "social group", "psychological feature"}
_STEPS_UP = 4
_OFTEN, _WIDE = 5, 8  # a sense met less often that has more sorts than this is a class, not a thing


@dataclass(frozen=True)
class Relative:
    """A phrase with the relation it stands in.

    Attributes:
        text: the phrase, chosen among the words of its sense so that it is not misread.
        certainty: what the relation alone is worth, in [0, 1].
        reason: the relation in words.
        common: how often the sense was met in texts.
    """

    text: str
    certainty: float
    reason: str
    common: int = 0


def other_words(net: WordNet, sense: Sense, target: str) -> list[Relative]:
    """Synonyms, sorts, instances and life forms of a target: what is erased with it. Never what it is a sort of."""
    found = [
        Relative(_distinct(net, sense, word, target), 0.55 if _is_latin(net, sense, word) else 0.85, "synonym")
        for word in sense.words
        if fold(word) != fold(target)
    ]
    if description := _description(sense):
        found.append(Relative(description, 0.5, "its definition"))
    for other in net.life_forms(target) if sense.file == "animal" else []:
        for text in _phrases(net, other, target):
            found.append(Relative(text, 0.6, other.gloss, net.count(other)))
    for other, steps in net.descendants(sense, 4).items():
        if other.is_instance:
            found.append(Relative(_full_name(other), 0.5, f"a single {target}", net.count(other)))
            continue
        for text in _phrases(net, other, target):
            # a sort whose own name says what it is ("tabby cat") is surely one; others stray step by step
            named = text in other.words and (_holds(text, target) or fold(text).endswith(fold(target)))
            certainty = 0.75 - 0.03 * (steps - 1) if named else 0.65 - 0.1 * (steps - 1)
            reason = f"{'sort' if steps == 1 else 'sort of a sort'} of {target}"
            found.append(Relative(text, max(certainty, 0.2), reason, net.count(other)))
    return _first_of_each(found)[:MOST]


def things_around(net: WordNet, sense: Sense, target: str) -> list[Relative]:
    """Sisters, nieces and cousins of a target: what is near to it and not it. Never its parts, sorts or hypernyms."""
    above = net.ancestors(sense)
    above_words = {fold(word) for each in above for word in each.words}
    own = {sense, *above, *net.parts(sense), *net.descendants(sense), *net.life_forms(target)}
    own_words = {fold(word) for word in sense.words}
    found: dict[Sense, tuple[int, int]] = {}
    for up in range(1, _STEPS_UP + 1):
        for ancestor in [each for each, steps in above.items() if steps == up]:
            if TOO_WIDE & set(ancestor.words):
                continue
            for other, down in net.descendants(ancestor, 3 if up < 3 else 2).items():
                if other not in own and other.is_instance == sense.is_instance:
                    found.setdefault(other, (up, down))
    relatives = []
    for other, (up, down) in sorted(found.items(), key=lambda item: (sum(item[1]), -net.count(item[0]))):
        text = _full_name(other) if other.is_instance else _plain(net, other)
        if text is None or fold(text) in above_words or own_words & {fold(word) for word in other.words}:
            continue
        if any(_holds(text, word) for word in (target, *sense.words)):  # erasing the target would erase it too
            continue
        # "aquatic vertebrate" beside "frog" sorts things and names none
        if " " in text and fold(text).split()[-1] in above_words:
            continue
        parent = next(iter(net.hypernyms(other))).words[0]
        reason = f"another {parent}" if (up, down) == (1, 1) else f"{parent}, near in WordNet"
        certainty = 0.8 - 0.05 * (up + down - 2)
        if _holds(other.gloss, target):  # "hybrid of a male donkey and a female horse": near, perhaps too near
            certainty, reason = certainty - 0.2, f"{reason}; its definition names {target}"
        common = net.count(other)
        if common < _OFTEN and len(net.descendants(other, 2)) > _WIDE:
            certainty -= 0.1  # a word of classification, such as "carnivore"
        relatives.append(Relative(text, certainty, reason, common))
    return _first_of_each(relatives)[:MOST]


def _description(sense: Sense) -> str | None:
    """The definition where it is short enough to stand in a prompt: "pot for brewing tea"."""
    text = re.sub(r"^(?:an?|the) ", "", re.sub(r"\s*\([^)]*\)", "", sense.gloss)).strip()
    return text if 3 <= len(text.split()) <= 8 and not sense.is_instance else None


def _phrases(net: WordNet, sense: Sense, target: str) -> list[str]:
    """At most two words of a sort of the target: one that usually means it, and one that holds the target's name."""
    words = [word for word in sense.words if not _is_latin(net, sense, word)] or list(sense.words)
    clear = [word for word in words if _is_usual(net, sense, word)][:1]
    named = [word for word in words if _holds(word, target)][:1]
    return list(dict.fromkeys(clear + named)) or [_distinct(net, sense, words[0], target)]


def _distinct(net: WordNet, sense: Sense, word: str, target: str) -> str:
    """`word`, with the target after it where it usually means something else ("Empire apple")."""
    if _holds(word, target) or _is_usual(net, sense, word) or sense.is_instance:
        return word
    return f"{word} {target}"


def _plain(net: WordNet, sense: Sense) -> str | None:
    """A word that means this sense before others and that people write in prompts, or None."""
    words = [word for word in sense.words if not _is_latin(net, sense, word)]
    return next((word for word in words if _is_usual(net, sense, word)), None)


def _is_usual(net: WordNet, sense: Sense, word: str) -> bool:
    """Whether people who write `word` mean this sense."""
    usual = word if sense.is_instance else word.lower()  # "Empire" is an apple, and "empire" is not
    return net.choose(usual) == sense or net.senses(word)[0] == sense


def _full_name(sense: Sense) -> str:
    """The name by which an instance is told from others: a person's first and family name, else the usual one."""
    if sense.file != "person":
        return sense.words[0]
    several = [word for word in sense.words if " " in word and not re.search(r"\b\w\.", word)]
    return min(several, key=len) if several else sense.words[0]


def _is_latin(net: WordNet, sense: Sense, word: str) -> bool:
    """Whether it is a scientific name: "Felis catus", "Amniota"."""
    if sense.file not in ("animal", "plant") or sense.is_instance or not word[0].isupper():
        return False
    first, _, second = word.partition(" ")
    return first.endswith(("a", "ae", "us", "is")) if not second else second.islower() and not net.base_form(second)


def _holds(text: str, part: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(fold(part))}(?:s|es)?(?!\w)", fold(text)) is not None


def _first_of_each(relatives: list[Relative]) -> list[Relative]:
    return list({fold(each.text): each for each in reversed(relatives)}.values())[::-1]
