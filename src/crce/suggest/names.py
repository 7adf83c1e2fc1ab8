"""Variants of the name of a person, a character or a style, for names that are in no list."""

import re

from crce.concepts.concept_set import CERTAINTY_WORDS, Kind, fold, tidy
from crce.concepts.library import atlas_entry
from crce.suggest.wordnet import load_wordnet


_HIGH, _NORMAL, _LOW, _VERY_LOW = (CERTAINTY_WORDS[word] for word in ("High", "Normal", "Low", "Very Low"))
_BEFORE = re.compile(
    r"^(?:(?:in )?the style of |in the manner of |(?:a |an )?(?:painting|paintings|art|artwork) (?:by|of) |by )", re.I
)
_STYLE = re.compile(r"(?:'s|’s)?[ -](?:style|styled)$", re.I)
_WORK = re.compile(r"(?:'s|’s)?[ -](?:painting|paintings|art|artwork)$", re.I)
_BY = re.compile(r"\bby ", re.I)
_PARTICLES = frozenset("van von de da di der den la le el al bin of the du del dos".split())
_TITLES = frozenset("mr mrs ms dr sir king queen prince princess saint st the pope president lady lord".split())
_SUFFIXES = frozenset("jr sr ii iii iv".split())


def style_core(target: str) -> str:
    """The name in a style: "Van Gogh" for "Van Gogh painting" and "in the style of Van Gogh", "pop art" for itself."""
    named = tidy(_STYLE.sub("", _BEFORE.sub("", tidy(target)))) or tidy(target)
    core = tidy(_WORK.sub("", named))
    entry = atlas_entry(named)
    if not core or core == named or load_wordnet().base_form(named) or (entry and fold(entry.target) == fold(named)):
        return named
    # "Van Gogh painting" is called after a person; "pixel art" is no style of pixels
    return core if is_artist(core) else named


def is_artist(name: str) -> bool:
    """Whether a style is called after a person: one that is known, or an unknown capitalised name."""
    senses = load_wordnet().senses(name)
    persons = [sense for sense in senses if sense.is_instance and sense.file == "person"]
    own = entry.target if (entry := atlas_entry(name)) else name
    capital = own[:1] != own[:1].lower()
    return bool(persons) and (capital or senses[0] in persons) if senses else capital


def name_variants(target: str, kind: Kind) -> list[tuple[str, float, str]]:
    """(phrase, certainty, reason) for other ways to write a name, the most certain first; none for other kinds."""
    if kind == "style":
        variants = _style_variants(target)
    elif kind in ("person", "character"):
        framed = _PERSON if kind == "person" else _CHARACTER
        variants = [*_name_forms(target, kind), *((text.format(name=target), sure, why) for text, sure, why in framed)]
    else:
        return []
    unique = {fold(text): (text, certainty, reason) for text, certainty, reason in reversed(variants)}
    unique.pop(fold(target), None)
    return sorted(unique.values(), key=lambda variant: -variant[1])


_PERSON = (
    ("photo of {name}", _NORMAL, "a picture of the person by name"),
    ("portrait of {name}", _NORMAL, "a picture of the person by name"),
    ("{name}'s face", _NORMAL, "the face by name"),
    ("person who looks like {name}", _LOW, "likeness by name"),
    ("{name} lookalike", _LOW, "likeness by name"),
)
_CHARACTER = (
    ("{name} character", _NORMAL, "the character by name"),
    ("drawing of {name}", _NORMAL, "a picture of the character by name"),
    ("{name} toy", _LOW, "a likeness by name"),
    ("person dressed as {name}", _LOW, "a likeness by name"),
    ("{name} costume", _LOW, "a likeness by name"),
)


def _name_forms(name: str, kind: Kind) -> list[tuple[str, float, str]]:
    """The family name, the first name and the initials, where there are several words."""
    words = re.sub("[{}]", "", name).split()
    if len(words) > 1 and words[0].lower() == "the":
        return [(" ".join(words[1:]), _NORMAL, "the name without its article")]
    if len(words) < 2 or any(word.lower() in ("of", "the", "from", "and") for word in words):
        return []
    given = words[0]
    rest = [word for word in words if word.lower().strip(".") not in _SUFFIXES]
    start = next((i for i, w in enumerate(rest[1:-1], 1) if w.lower() in _PARTICLES), len(rest) - 1)
    family = " ".join(rest[start:])
    forms = []
    if not any(family.lower() in sense.words for sense in load_wordnet().senses(family)):
        forms.append((family, _NORMAL, "family name alone; others bear it too"))
    elif kind == "person":  # "Swift" is a bird too, and "Mouse" alone no Mickey Mouse
        forms.append((family, _LOW, "family name alone; it is a common noun too"))
    if given.lower().strip(".") not in _TITLES:
        if kind == "person":
            forms.append((f"{given[0]}. {family}", _NORMAL, "initial and family name"))
        forms.append((given, _LOW if kind == "character" else _VERY_LOW, "first name alone; others bear it too"))
    return forms


def _style_variants(target: str) -> list[tuple[str, float, str]]:
    core = style_core(target)
    frame = _BEFORE.match(tidy(target))  # the words before the name, e.g. "painting by "
    work = "a work in the style by name"
    variants = [
        (f"in the style of {core}", _HIGH, "the style by name"),
        (f"{core} style", _HIGH, "the style by name"),
        (core, _HIGH, "the name of the style without its frame"),
    ]
    if not re.search(r"\bpaintings?$", fold(core)):
        variants.append((f"{core} painting", _NORMAL, work))
    if is_artist(core) or (frame and _BY.search(frame[0])):
        variants.append((f"painting by {core}", _NORMAL, work))
        variants.append((f"by {core}", _NORMAL, "the usual ending of a prompt for this style"))
    else:
        variants += [(text, _NORMAL, work) for text in (f"picture in {core} style", f"{core} picture")]
    if not _WORK.search(core):  # "pop art artwork" says it twice
        variants.append((f"{core} artwork", _NORMAL, work))
    return [*variants, (f"art inspired by {core}", _LOW, "near the style by name")]
