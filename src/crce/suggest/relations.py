"""The two sides by WordNet's relations: synonyms and sorts of a target, and the things around it."""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from math import log10

from crce.concepts.concept_set import fold
from crce.suggest.phrases import SAME_SPELLING
from crce.suggest.wordnet import Sense, WordNet


MOST = 120  # phrases that are ranked; more takes too long
# Above these everything is a neighbour of everything.
TOO_WIDE = frozenset(
    "entity, object, whole, artifact, instrumentality, organism, matter, abstraction, person, thing, cognition, "
    "group, attribute, state, condition, act, activity, event, property, relation, measure, communication, location, "
    "shape, process, commodity, physical entity, living thing, natural object, causal agent, social group, "
    "psychological feature".split(", ")
)
# A sense whose nearest common hypernym has more sorts than this besides the target's own is far: violins and antennas
# are devices. It is considered all the same if fewer than _ENOUGH common ones are nearer.
_FAR, _ENOUGH, _SPOKEN_OF = 1200, 24, 0.5
SAID = 0.3  # how common a phrase is that is neither rare nor often said, on the scale of WordNet.common
_FELLOW = 0.2  # added to the certainty of a single thing of the same sort
_COMPOSED = 0.2  # and one that WordNet does not contain: "boxer dog"
_MISREAD = 0.14  # on that scale, a factor of 5 to the word's most common sense
_RIVAL = 0.1  # and one of 3 to the usual spelling
_LIVING = frozenset({"animal", "plant", "food"})
_DRAWN = _LIVING | {"artifact", "body", "object", "phenomenon", "substance"}
_RANK = re.compile(r"(?:sub|super|infra)?(?:kingdom|phylum|class|order|family|genus|species) [A-Z]")
# a definition such as "any animals kept for use or profit": the target may be one
_ROLE = (
    r"(?:an? |any )?(?:\w+ )?(?:{words})s? (?:\([^)]*\) )?"
    r"(?:that|which|who|kept|used|hunted|raised|trained|bred|being)\b"
)

_AFTER_GENUS = re.compile(r"[,;:(]|\b(?:of|with|that|which|who|having|in|from|for|to|at|by|on)\b")


@dataclass(frozen=True)
class Relative:
    """A phrase with its relation to the target."""

    text: str  # chosen among the words of its sense so that it is not misread
    certainty: float  # by the relation alone, in [0, 1]
    reason: str  # the relation in words
    common: float = SAID  # how common the phrase is, in [0, 1]
    weight: float = 0.5  # how much the similarity to the target adds to it


def other_words(net: WordNet, sense: Sense, target: str) -> list[Relative]:
    """Synonyms, sorts, instances and life forms of a target, which are erased with it; never its hypernyms."""
    found = []
    for word in sense.words:
        named = _holds(word, target)
        if fold(word) != fold(target) and (named or _is_usual(net, sense, word)):
            stiff = _is_latin(net, sense, word) or (not named and _defines(net, word))
            certainty = 0.55 if stiff else 0.7 + 0.3 * min(net.common(sense, word), 0.5)  # not so "bird of Jove"
            found.append(_relative(net, sense, word, target, certainty, "synonym"))
    definition = re.sub(r"^(?:an?|the) ", "", re.sub(r"\s*\([^)]*\)", "", sense.gloss)).strip()
    short = 3 <= len(definition.split()) <= 8 and not sense.is_instance  # "pot for brewing tea" fits into a prompt
    if short and definition not in net.words_above(sense):
        found.append(Relative(definition, 0.5, "its definition"))
    for other in net.life_forms(target) if sense.file == "animal" else []:
        found += [_relative(net, other, text, target, 0.6, other.gloss) for text in _phrases(net, other, target, {})]
    sorts = net.descendants(sense, 5)
    for other, steps in sorts.items():
        if other.is_instance:
            found.append(_relative(net, other, _full_name(net, other), target, 0.5, f"a single {target}"))
            continue
        reason = f"{'sort' if steps == 1 else 'sort of a sort'} of {target}"
        for text in _phrases(net, other, target, sorts):
            if text not in other.words:
                found.append(_relative(net, other, text, target, 0.55, reason))
            elif _holds(text, target) or fold(text).endswith(fold(target)):  # "tabby cat" is surely one
                said = 0.2 * (net.common(other, text) - SAID)
                found.append(_relative(net, other, text, target, 0.68 + said - 0.03 * (steps - 1), reason))
            else:  # the others stray step by step, and the commonest are things of their own: a van, a dolphin
                relative = _relative(net, other, text, target, 0.62 - 0.08 * (steps - 1), reason)
                found.append(replace(relative, common=min(relative.common, _SPOKEN_OF)))
    # Surely the target, and little news: beside few other words, never alone, nor for a rarer sense ("old crane").
    described = ("young" if sense.file == "animal" else "new", "old", "small", "big") if sense.file in _DRAWN else ()
    plain = found and not sense.is_instance and _is_usual(net, sense, target)
    for text in (f"{word} {target}" for word in described if plain):
        if net.base_form(text) is None:  # a "big cat" is something else
            found.append(Relative(text, 0.7, "its name, described", weight=0.2))
    return _foremost(found)


def things_around(net: WordNet, sense: Sense, target: str) -> list[Relative]:
    """Sisters, nieces and cousins of a target: near, but different things; never its parts, sorts or hypernyms."""
    own = {sense, *net.parts(sense), *net.descendants(sense), *net.life_forms(target)}
    above_words = set(map(fold, net.words_above(sense)))
    above, names = net.ancestors(sense), (target, *sense.words)
    taken = above_words | {fold(word) for each in own for word in each.words}  # "Maltese" is a cat and a dog
    role = re.compile(_ROLE.format(words="|".join(map(re.escape, above_words))))
    relatives = []
    for other, (width, down) in _near(net, sense, own, above).items():
        text = _full_name(net, other) if other.is_instance else _plain(net, other)
        if (
            text is None
            or {fold(text), fold(other.words[0])} & taken
            or any(_holds(text, word) for word in names)  # erasing the target would erase it too
            or (" " in text and fold(text).split()[-1] in above_words)  # "aquatic vertebrate" beside "frog"
            or other.file not in {sense.file, *_DRAWN}  # "wizardry" beside "dragon"
            or (other.file == "animal" and role.match(fold(other.gloss)))
            or (_genus(other.gloss) in map(fold, names) and not above.keys().isdisjoint(net.hypernyms(other)))
        ):
            continue
        parent = next(iter(net.hypernyms(other))).words[0]
        reason = f"another {parent}" if down == 1 else f"{parent}, near in WordNet"
        certainty, common = 1 - 0.15 * log10(max(width, 5)) - 0.02 * (down - 1), net.common(other, text)
        if other.is_instance and down == 1:  # of the same work, sport or movement
            certainty += _FELLOW
        if _holds(other.gloss, target):  # "hybrid of a male donkey and a female horse": near, perhaps too near
            certainty, reason = certainty - 0.3, f"{reason}; its definition names {target}"
        if _is_class(net, other, text):
            if common < SAID:  # "anapsid"
                continue
            certainty -= 0.15
        weight = 0.5 + 0.1 * log10(max(width, 5))  # distant relatives must be similar
        relatives.append(Relative(text, certainty, reason, common, weight))
    return _foremost(relatives)


def _near(net: WordNet, sense: Sense, own: set[Sense], above: dict[Sense, int]) -> dict[Sense, tuple[int, int]]:
    """The senses that may be kept while a sense is erased, the most promising first.

    Each has the number of sorts of the nearest common hypernym besides the sense's own, and the steps down from it.
    """
    found: dict[Sense, tuple[int, int]] = {}
    spoken_of = 0
    for ancestor in sorted(above, key=lambda each: each.sorts):
        width = ancestor.sorts - sense.sorts
        if TOO_WIDE & set(ancestor.words) or (width > _FAR and spoken_of >= _ENOUGH):
            continue
        for other, down in net.descendants(ancestor).items():
            new = other not in found and other not in own and other not in above
            if new and other.is_instance == sense.is_instance:
                found[other] = width, down
                spoken_of += net.common(other, other.words[0]) >= _SPOKEN_OF

    def promise(other: Sense) -> float:
        width, down = found[other]
        return 0.4 * max(net.common(other, word) for word in other.words) - 0.15 * log10(width + 1) - 0.02 * down

    return {other: found[other] for other in sorted(found, key=promise, reverse=True)[: 3 * MOST]}


def _relative(net: WordNet, sense: Sense, text: str, target: str, certainty: float, reason: str) -> Relative:
    weight = 0.2 if _holds(text, target) else 0.5  # a phrase with its name is similar to it anyway
    common = net.common(sense, text) if text in sense.words else _COMPOSED
    return Relative(text, certainty, reason, common, weight)


def _phrases(net: WordNet, sense: Sense, target: str, sorts: Collection[Sense]) -> list[str]:
    """At most two words of a sort of the target: one that usually means it, and one that contains its name."""
    words = _by_use(net, sense)
    own = [word for word in words if not _is_name(word)]
    clear = [word for word in own if _is_usual(net, sense, word) or net.choose(word) in sorts]  # "tarantula" is two
    named = [word for word in words if _holds(word, target)]
    found = dict.fromkeys(clear[:1] + named[:1])
    return list(found) or [f"{word} {target}" for word in words[:1]]  # "Empire apple"


def _plain(net: WordNet, sense: Sense) -> str | None:
    """A word that usually means this sense, or None; one that says its kind comes first ("tomcat" before "tom")."""
    words = [word for word in _by_use(net, sense) if _is_usual(net, sense, word)]
    if sense.file in _LIVING:
        words = [word for word in words if not _is_name(word)]
    kinds = tuple(fold(word).split()[-1] for above in net.hypernyms(sense) for word in above.words)
    return min(words, key=lambda word: (_is_name(word), not fold(word).endswith(kinds)), default=None)


def _by_use(net: WordNet, sense: Sense) -> list[str]:
    """The words of a sense but scientific names, the usual one first, rare spellings ("cutlas") last."""
    words = [word for word in sense.words if not _is_latin(net, sense, word)]

    def is_misspelt(word: str) -> bool:
        said = net.common(sense, word) + _RIVAL
        rivals = (other for other in words if net.common(sense, other) > said)
        return any(SequenceMatcher(None, word, other, autojunk=False).ratio() > SAME_SPELLING for other in rivals)

    return sorted(words, key=is_misspelt)


def _is_name(word: str) -> bool:
    """Whether it is called after a place or a person ("Maltese"), so that what it is must be said with it."""
    return word.split()[-1][0].isupper()


def _is_class(net: WordNet, sense: Sense, word: str) -> bool:
    """Whether `word` sorts things and names none ("feline"): something below it is more often spoken of."""
    common = net.common(sense, word)
    below = (other for other in net.descendants(sense, 3) if not other.is_instance) if sense.sorts > 2 else ()
    return any(net.common(s, s.words[0]) > common and _is_usual(net, s, s.words[0]) for s in below)


def _defines(net: WordNet, phrase: str) -> bool:
    """Whether a phrase is what a dictionary calls a thing, its last word a class of things: "passenger vehicle"."""
    head = phrase.split()[-1]
    meant = net.choose(head)
    return head != phrase and meant is not None and _is_class(net, meant, head)


def _is_usual(net: WordNet, sense: Sense, word: str) -> bool:
    """Whether people who write `word` mean this sense."""
    usual = word if sense.is_instance else word.lower()  # "Empire" is an apple, and "empire" is not
    senses = net.senses(word)
    if net.choose(usual) != sense and senses[0] != sense:
        return False
    return net.common(sense, word) >= max(net.common(other, word) for other in senses) - _MISREAD


def _full_name(net: WordNet, sense: Sense) -> str:
    """The unambiguous name of an instance: a person's first and family name, else the usual one."""
    several = [word for word in sense.words if " " in word]
    several = [word for word in several if not re.search(r"\b\w\.", word)] or several
    full = sense.file == "person" and any(_holds(word, sense.words[0]) for word in several)  # "Sigmund Freud"
    alone = not full and len(net.senses(sense.words[0])) == 1  # "Angel" is no waterfall to most
    return sense.words[0] if alone or not several else min(several, key=len)


def _is_latin(net: WordNet, sense: Sense, word: str) -> bool:
    """Whether it is a scientific name: "Felis catus", "Amniota"."""
    if _RANK.match(word):
        return True
    if sense.file not in ("animal", "plant") or sense.is_instance or not word[0].isupper():
        return False
    first, _, second = word.partition(" ")
    return first.endswith(("a", "ae", "us", "is")) if not second else second.islower() and not net.base_form(second)


def _holds(text: str, part: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(fold(part))}(?:s|es)?(?!\w)", fold(text)) is not None


def _genus(gloss: str) -> str:
    """What a definition says that a thing is: "hog" in "an adult female hog", whatever stands above it in WordNet."""
    words = _AFTER_GENUS.split(fold(gloss))[0].split()
    return words[-1] if words else ""


def _foremost(relatives: list[Relative]) -> list[Relative]:
    """Each phrase once, in its surest relation, as many as can be ranked."""
    ordered = sorted(relatives, key=lambda each: -(each.certainty + 0.4 * each.common))
    return list({fold(each.text): each for each in reversed(ordered)}.values())[::-1][:MOST]
