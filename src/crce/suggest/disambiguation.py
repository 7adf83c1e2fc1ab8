"""The kind of a target, its entry in the atlas, and the sense of WordNet that is meant."""

import re

from crce.concepts.concept_set import ConceptSet, Kind, fold
from crce.concepts.faults import likely_slip
from crce.concepts.library import NAMED, atlas_entry, atlas_kind
from crce.demo.embedding import load_embedder
from crce.suggest.candidates import Request
from crce.suggest.names import style_core
from crce.suggest.relations import TOO_WIDE
from crce.suggest.wordnet import CONCRETE, Sense, load_wordnet


MIN_SENSE_SIMILARITY = 0.3  # of a given sense with a definition, below it they have nothing in common
_SAME_SENSE = 0.8  # similarity of two definitions that mean one thing; different things of one word stay below 0.75
_THINGS = frozenset({"animal", "artifact", "food", "plant", "body", "object"})
_ARTS = frozenset({"genre", "graphic art", "artistic style"})
_SELDOM, _AS_OFTEN = 0.26, 0.021  # on the scale of WordNet.common: 20 times less often, and at least 4 times in 5
_MIN_AGREEMENT = 1 / 3  # of a sense with an atlas entry, below it they are about different things


def infer_kind(target: str, sense: str | None = None) -> Kind | None:
    """The kind of a target, from the atlas, from its words ("... style") or from WordNet; None if it is unknown."""
    entry = _entry_named(target)
    if entry is not None and sense is None:
        return entry.kind
    if re.search(r"(?:^| )styled?$|^(?:in )?the (?:style|manner) of ", fold(target)):
        return "style"
    net = load_wordnet()
    senses = net.senses(target) if sense is None else []
    named = [s for s in senses if target[:1].isupper() and s.is_instance and target in s.words]  # "Hulk" is no ship
    named += [s for s in senses[:1] if not _is_painter(s)]
    called = (s for s in named if (s.is_instance and s.file == "person") or "artistic movement" in net.words_above(s))
    as_object = net.choose(target, "object", sense)
    meant = next(called, None) or as_object or net.choose(target, "other", sense)
    if meant is None:
        known = entry.kind if entry else atlas_kind(target)
        unlisted = known is None and target[:1].isupper() and net.is_given_name(target)
        return "person" if unlisted and likely_slip(target, net.lemmas()) is None else known
    if net.is_imagined(meant):
        return "character"
    if "artistic movement" in net.words_above(meant) or _is_painter(meant):
        return "style"
    if meant.is_instance and meant.file == "person":
        return "person"
    return "object" if as_object else "other"


def _is_painter(sense: Sense) -> bool:
    return sense.is_instance and "painter" in load_wordnet().words_above(sense)


def bare_name(request: Request) -> str:
    """The target as WordNet may know it: a style without its frame ("Van Gogh" for "Van Gogh style")."""
    return style_core(request.target) if request.kind == "style" else request.target


def _entry_named(target: str) -> ConceptSet | None:
    """The atlas entry of a target, also if it has the frame of a style ("Van Gogh style")."""
    framed = atlas_entry(style_core(target))
    return atlas_entry(target) or (framed if framed and framed.kind == "style" else None)


def entry_of(request: Request, meant: Sense | None) -> ConceptSet | None:
    """The atlas entry of a target, if it is about the sense that is meant."""
    entry = _entry_named(request.target)
    if entry is None or (request.kind in NAMED and entry.kind != request.kind):
        return None
    if request.sense is None:
        return entry
    # The entry is about one sense: the one that has most in common with what the entry keeps.
    net = load_wordnet()
    if meant is None:
        named = {word for r in (*entry.corefs, *entry.retains) for word in fold(r.text).split()}
        return entry if set(fold(request.sense).split()) & named else None
    kept = [net.ancestors(sense).keys() for r in entry.retains if (sense := net.choose(r.text)) is not None]
    shared = {s: sum(len(net.ancestors(s).keys() & above) for above in kept) for s in net.senses(entry.target)}
    return entry if kept and shared.get(meant) == max(shared.values(), default=0) else None


def meant_sense(request: Request) -> Sense | None:
    """The sense of the target that is meant, by what WordNet says or else by the nearest definition."""
    net = load_wordnet()
    target = bare_name(request)
    chosen = net.choose(target, request.kind, request.sense)
    if chosen is None and request.kind == "style" and request.sense is None:
        # "oil painting" is no movement, but a sort of art
        return next((s for s in net.senses(target) if _ARTS & net.words_above(s)), None)
    if chosen is not None or (request.sense is None and request.kind in NAMED):
        return chosen
    senses = net.senses(target)
    if request.sense is None or not senses:
        return net.choose(target, "other")
    near = load_embedder().similarity([request.sense], [_described(sense) for sense in senses])[0]
    return senses[int(near.argmax())] if near.max() >= MIN_SENSE_SIMILARITY else None


def sense_of_entry(entry: ConceptSet, request: Request, chosen: Sense | None) -> Sense | None:
    """The sense that an atlas entry is about, by its phrases; None if WordNet has nothing to add to it.

    An explicit entry is about images that nobody should see, which WordNet has no words for: its gore is cloth.
    """
    if "explicit" in (request.kind, entry.kind):
        return None
    if chosen is None or request.sense is not None:
        return chosen
    net = load_wordnet()
    target = bare_name(request)
    if not (senses := [s for s in net.senses(target) if request.kind not in NAMED or s.file == chosen.file]):
        return chosen
    near = load_embedder().similarity([_described(s) for s in senses], [r.text for r in entry.corefs]).mean(axis=1)
    if request.kind in NAMED:
        best = int(near.argmax())
        return senses[best] if near[best] >= MIN_SENSE_SIMILARITY else None
    agreed = [_agreement(each, entry) for each in senses]
    best = int((agreed + near).argmax())
    return senses[best] if agreed[best] >= _MIN_AGREEMENT else None


def _agreement(sense: Sense, entry: ConceptSet) -> float:
    """The share of an entry's corefs that are words or sorts of a sense, and of its retains that are its relatives."""
    net = load_wordnet()
    below = (sense, *net.descendants(sense), *net.life_forms(entry.target))
    own = {fold(word) for each in below for word in each.words}
    above = {each for each in net.ancestors(sense) if not TOO_WIDE & set(each.words)}
    kept = [other for r in entry.retains if (other := net.choose(r.text)) is not None]
    related = sum(not above.isdisjoint(net.ancestors(other)) for other in kept)
    sorts = sum(fold(r.text) in own for r in entry.corefs)
    return sorts / max(len(entry.corefs), 1) + related / max(len(kept), 1)


def question(request: Request, meant: Sense | None) -> tuple[str, bool]:
    """What else the target may mean that can be drawn, as a question, and whether it must be answered; or nothing.

    It must where another thing is met as often by this word, its usual one, or where no thing is meant.
    """
    net, target = load_wordnet(), request.target
    if meant is None or request.sense is not None or request.kind in NAMED:
        return "", False
    said = {each: net.common(each, target) for each in net.senses(target)}
    same = (meant, *twins(meant, target), *net.ancestors(meant), *net.descendants(meant))
    drawn = {*CONCRETE, meant.file} - ({"plant", "food"} - {meant.file} if meant.file in ("plant", "food") else set())
    near = [s for s in said if s not in same and s.file in drawn and said[s] > said[meant] - _SELDOM]
    usual = fold(net.base_form(target) or target)
    rivals = (
        (request.kind == "other" or (fold(s.words[0]) == usual and s.file in _THINGS - {meant.file}))
        for s in near
        if said[s] > said[meant] - _AS_OFTEN and not s.is_instance
    )
    named = [f"'{target} ({label})': {s.gloss}" for s in (meant, *near) if (label := _label(target, s))]
    text = f"'{target}' has several meanings. Is it {named[0]}? Otherwise write {'; '.join(named[1:5])}."
    return (text, any(rivals)) if len(named) > 1 else ("", False)


def _label(target: str, sense: Sense) -> str | None:
    """What to write in brackets for this sense: its file, a word above it or another word of it."""
    net = load_wordnet()
    words = [sense.file, *(word for each in (*net.hypernyms(sense), sense) for word in each.words)]
    return next((w for w in words if fold(w) != fold(target) and net.choose(target, sense=w) == sense), None)


def twins(sense: Sense, target: str) -> list[Sense]:
    """Other senses of the target with nearly the same meaning: WordNet has two for bats in sports."""
    known = [] if sense.is_instance else load_wordnet().senses(target)
    others = [s for s in known if s.file == sense.file and s != sense and not s.is_instance]
    near = load_embedder().similarity([_described(sense)], [_described(other) for other in others])[0].tolist()
    return [other for other, similarity in zip(others, near, strict=True) if similarity >= _SAME_SENSE]


def works_in(text: str, style: str) -> bool:
    """Whether a name belongs to a style: its definition or its atlas entry names it ("a leader of Pop Art")."""
    entry = _entry_named(text)
    said = [sense.gloss for sense in load_wordnet().senses(text)] + [r.text for r in (entry.corefs if entry else ())]
    # an impressionist works in Impressionism; "Post-impressionist" is another style
    stem = re.escape(fold(style))
    stem = rf"{stem[:-1]}(?:m|ts?|tic)" if stem.endswith("ism") else stem
    return any(re.search(rf"(?<![\w-]){stem}(?!\w)", fold(each)) for each in said)


def is_other_style(text: str, style: str) -> bool:
    """Whether a relative is a style too, and one apart: "Sinn Fein" is no movement in art."""
    net = load_wordnet()
    above = set().union(*map(net.words_above, net.senses(text)))
    return bool(above & {*_ARTS, "artistic movement", "artist"}) and not works_in(text, style)


def _described(sense: Sense) -> str:
    above = (each.words[0] for each in load_wordnet().hypernyms(sense))
    return f"{', '.join(sense.words)}: {sense.gloss} ({', '.join(above)})"
