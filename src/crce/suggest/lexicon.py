"""Corefs and retains without a network: the bundled atlas, then WordNet, ranked by the bundled sentence embedding."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from crce.concepts.concept_set import ConceptSet, Kind, Related, fold
from crce.concepts.faults import did_you_mean
from crce.concepts.library import atlas
from crce.errors import SuggestError
from crce.suggest.candidates import Candidate, Request, Side
from crce.suggest.embedding import load_embedder
from crce.suggest.names import is_style_phrase, name_variants, style_core
from crce.suggest.relations import TOO_WIDE, Relative, other_words, things_around
from crce.suggest.wordnet import load_wordnet


if TYPE_CHECKING:
    from crce.suggest.wordnet import Sense

_NAMED: tuple[Kind, ...] = ("person", "character", "style")  # kinds whose names have variants
_MIN_SENSE_SIMILARITY = (
    0.3  # of a word that tells senses apart with a definition, below it they have nothing in common
)
_SAME_SENSE = 0.8  # similarity of two definitions that mean one thing; different things of one word stay below 0.75
_PEERS = {
    "person": ("performer", "politician", "athlete", "musician", "scientist", "head of state"),
    "character": ("fictional character", "fictional animal", "imaginary being"),
    "style": ("painter", "artistic movement"),
}
_MOST_PEERS = 300
_ARTS = frozenset({"genre", "graphic art", "artistic style"})
_MIN_AGREEMENT = 1 / 3  # of a sense with an atlas entry, below it they are about different things


class LexiconSuggester:
    """Proposes what the atlas and WordNet know about a target.

    Args:
        atlas: ask the atlas first; without it this is the suggester "wordnet".
    """

    def __init__(self, atlas: bool = True) -> None:
        self.use_atlas = atlas
        self.name = "lexicon" if atlas else "wordnet"

    def propose(self, request: Request) -> list[Candidate]:
        """Every phrase of the target's atlas entry, then its relatives in WordNet, then variants of its name.

        Raises:
            SuggestError: neither knows the target, and it is no name of a person, a character or a style.
        """
        entry = _atlas_entry(request) if self.use_atlas else None
        sense = known = _sense(request)
        if entry is not None:
            known = _sense_of_entry(entry, request)
        if entry is None and sense is None and request.kind not in _NAMED:
            raise SuggestError(_unknown(request))
        proposed = [
            *(_from_atlas(entry) if entry else ()),
            *(_from_wordnet(request, known, trust=0.7 if entry else 1.0) if known else ()),
        ]
        if sense is None or sense.is_instance or request.kind == "style":  # "dragon" is a character and no name
            variants = name_variants(request.target, request.kind)
            proposed += [
                Candidate(text, "coref", certainty, "lexicon", reason) for text, certainty, reason in variants
            ]
        if request.kind in _NAMED and sum(c.side == "retain" for c in proposed) < request.retains:
            proposed += self._peers(request, entry)
        first: dict[str, Candidate] = {}
        for candidate in proposed:  # the atlas before WordNet, corefs before retains
            first.setdefault(fold(candidate.text), candidate)
        avoid = {(side, fold(text)) for side, text in request.avoid}
        kept = (
            c for c in first.values() if (c.side, fold(c.text)) not in avoid and fold(c.text) != fold(request.target)
        )
        return sorted(kept, key=lambda c: -c.certainty)

    def _peers(self, request: Request, own: ConceptSet | None) -> list[Candidate]:
        """Other persons, characters or styles, the nearest first: retains for a name that no list places."""
        texts: dict[str, tuple[str, str]] = {}
        for concepts in atlas().values() if self.use_atlas else ():
            if concepts.kind == request.kind and concepts is not own:
                for text in (concepts.target, *(r.text for r in concepts.retains if r.text[0].isupper())):
                    texts.setdefault(text, ("atlas", f"another {request.kind} of the atlas"))
        net = load_wordnet()
        for word in _PEERS[request.kind]:
            for root in net.senses(word)[:1]:
                for other in list(net.descendants(root, 3))[:_MOST_PEERS]:
                    if len(texts) < 2 * _MOST_PEERS and (other.is_instance or request.kind == "style"):
                        name = next((w for w in other.words if " " in w), other.words[0])
                        texts.setdefault(name, ("wordnet", f"another {word}"))
        core = {*fold(request.target).split(), *fold(style_core(request.target)).split()}
        names = [text for text in texts if not core & set(fold(text).split())]
        if request.kind == "style":
            names = [text for text in names if not _works_in(text, style_core(request.target))]
        near = _similarities(request.target, names)
        found = []
        for name, similarity in zip(names, near, strict=True):
            source, reason = texts[name]
            certainty = (0.55 if source == "atlas" else 0.45) + 0.3 * (similarity - 0.3)
            reason = f"{reason}, similarity {similarity:.2f}"
            found.append(Candidate(name, "retain", _certainty(certainty), source, reason))
        return sorted(found, key=lambda c: -c.certainty)[: 3 * request.retains]


def infer_kind(target: str, sense: str | None = None) -> Kind | None:
    """What sort of thing a target is, from the atlas, from its words ("... style") or from WordNet.

    Returns:
        None where nothing is known about it.
    """
    entry = _entry_named(target)
    if entry is not None and sense is None:
        return entry.kind
    if is_style_phrase(target):
        return "style"
    net = load_wordnet()
    if sense is None and target[:1].isupper() and (named := net.choose(target, "person")) and target in named.words:
        return "style" if _is_painter(named) else "person"
    meant = net.choose(target, "object", sense) or net.choose(target, "other", sense)
    if meant is None:
        return entry.kind if entry else None
    above = {word for each in net.ancestors(meant) for word in each.words}
    if net.is_imagined(meant):
        return "character"
    if "artistic movement" in above or _is_painter(meant):
        return "style"
    if meant.is_instance and meant.file == "person":
        return "person"
    return "object" if net.choose(target, "object", sense) is not None else "other"


def _is_painter(sense: Sense) -> bool:
    return sense.is_instance and any("painter" in above.words for above in load_wordnet().ancestors(sense))


def _entry_named(target: str) -> ConceptSet | None:
    """The atlas entry of a target, also where it is called after a style's frame ("Van Gogh style")."""
    by_name = {fold(name): concepts for name, concepts in atlas().items()}
    entry = by_name.get(fold(target))
    if entry is None and (framed := by_name.get(fold(style_core(target)))) is not None and framed.kind == "style":
        return framed
    return entry


def _atlas_entry(request: Request) -> ConceptSet | None:
    entry = _entry_named(request.target)
    if entry is None or (request.kind in _NAMED and entry.kind != request.kind):
        return None
    if request.sense is None:
        return entry
    # The entry is about one sense: the one that has most in common with what the entry keeps.
    net = load_wordnet()
    meant = _sense(request)
    if meant is None:
        named = {word for r in (*entry.corefs, *entry.retains) for word in fold(r.text).split()}
        return entry if set(fold(request.sense).split()) & named else None
    kept = [sense for r in entry.retains if (sense := net.choose(r.text)) is not None]
    shared = {
        sense: sum(len(net.ancestors(sense).keys() & net.ancestors(other).keys()) for other in kept)
        for sense in net.senses(entry.target)
    }
    return entry if kept and shared.get(meant) == max(shared.values(), default=0) else None


def _sense_of_entry(entry: ConceptSet, request: Request) -> Sense | None:
    """The sense an atlas entry is about, told by its phrases; None where WordNet has nothing to add to it.

    An explicit entry is about pictures that nobody should see, which WordNet has no words for: its gore is cloth.
    """
    chosen = _sense(request)
    if "explicit" in (request.kind, entry.kind):
        return None
    if chosen is None or request.sense is not None:
        return chosen
    net = load_wordnet()
    target = style_core(request.target) if request.kind == "style" else request.target
    if not (senses := [s for s in net.senses(target) if request.kind not in _NAMED or s.file == chosen.file]):
        return chosen
    near = load_embedder().similarity([_described(s) for s in senses], [r.text for r in entry.corefs]).mean(axis=1)
    if request.kind in _NAMED:
        best = int(near.argmax())
        return senses[best] if near[best] >= _MIN_SENSE_SIMILARITY else None
    agreed = {each: _agreement(each, entry) for each in senses}
    best_sense, _ = max(zip(senses, near.tolist(), strict=True), key=lambda pair: agreed[pair[0]] + pair[1])
    return best_sense if agreed[best_sense] >= _MIN_AGREEMENT else None


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


def _works_in(text: str, style: str) -> bool:
    """Whether a name belongs to a style: its definition or its atlas entry names it ("a leader of Pop Art")."""
    entry = _entry_named(text)
    said = [sense.gloss for sense in load_wordnet().senses(text)] + [r.text for r in (entry.corefs if entry else ())]
    # an impressionist works in Impressionism; "Post-impressionist" is another style
    stem = re.escape(fold(style))
    stem = rf"{stem[:-1]}(?:m|ts?|tic)" if stem.endswith("ism") else stem
    return any(re.search(rf"(?<![\w-]){stem}(?!\w)", fold(each)) for each in said)


def _is_other_style(text: str, style: str) -> bool:
    """Whether a relative is a style too, and one apart: "Sinn Fein" is a movement that nobody paints."""
    net = load_wordnet()
    above = {word for sense in net.senses(text) for each in net.ancestors(sense) for word in each.words}
    return bool(above & {*_ARTS, "artistic movement", "artist"}) and not _works_in(text, style)


def _from_atlas(entry: ConceptSet) -> Iterator[Candidate]:
    sides: tuple[tuple[Side, Sequence[Related]], ...] = (("coref", entry.corefs), ("retain", entry.retains))
    for side, related in sides:
        for r in related:
            reason = f"{side} of '{entry.target}' in the atlas"
            yield Candidate(r.text, side, r.certainty, "atlas", reason, held_out=r.held_out)


def _from_wordnet(request: Request, sense: Sense, trust: float) -> list[Candidate]:
    """Relatives of the target; `trust` scales their certainty, below 1 where a set written by hand leads."""
    net = load_wordnet()
    target = style_core(request.target) if request.kind == "style" else request.target
    base = net.base_form(target) or target
    corefs = [relative for each in (sense, *_twins(sense, target)) for relative in other_words(net, each, base)]
    retains = things_around(net, sense, base)
    hint = request.sense or next((each.words[0] for each in net.hypernyms(sense)), "")
    query = f"{base} ({hint})" if hint else base
    near = _similarities(query, [r.text for r in (*corefs, *retains)])
    sides: tuple[tuple[Side, list[Relative], list[float]], ...] = (
        ("coref", corefs, near[: len(corefs)]),
        ("retain", retains, near[len(corefs) :]),
    )
    found = []
    for side, relatives, similarities in sides:
        for relative, similarity in zip(relatives, similarities, strict=True):
            if side == "retain" and request.kind == "style" and not _is_other_style(relative.text, target):
                continue
            found.append(_candidate(side, relative, similarity, trust))
    return found


def _candidate(side: Side, relative: Relative, similarity: float, trust: float) -> Candidate:
    # What is met in texts is known to the people who write prompts, and to the model; rare words are to neither.
    common = 0.08 if relative.common >= 5 else 0.04 if relative.common else 0.0
    rare = min(0.06 * load_embedder().rarity(relative.text), 0.2)
    certainty = _certainty(trust * (relative.certainty + 0.5 * (similarity - 0.5) + common - rare))
    return Candidate(relative.text, side, certainty, "wordnet", f"{relative.reason}, similarity {similarity:.2f}")


def _sense(request: Request) -> Sense | None:
    """The sense of the target that is meant, by what WordNet says or else by the nearest definition."""
    net = load_wordnet()
    target = style_core(request.target) if request.kind == "style" else request.target
    chosen = net.choose(target, request.kind, request.sense)
    if chosen is None and request.kind == "style" and request.sense is None:
        # "oil painting" is no movement, but a sort of art
        return next((s for s in net.senses(target) if _ARTS & {w for a in net.ancestors(s) for w in a.words}), None)
    if chosen is not None or (request.sense is None and request.kind in _NAMED):
        return chosen
    senses = net.senses(target)
    if request.sense is None or not senses:
        return net.choose(target, "other")
    near = load_embedder().similarity([request.sense], [_described(sense) for sense in senses])[0]
    return senses[int(near.argmax())] if near.max() >= _MIN_SENSE_SIMILARITY else None


def _twins(sense: Sense, target: str) -> list[Sense]:
    """Other senses of the target that say nearly the same: WordNet tells the bat of cricket from that of baseball."""
    others = [s for s in load_wordnet().senses(target) if s.file == sense.file and s != sense and not s.is_instance]
    if not others or sense.is_instance:
        return []
    near = load_embedder().similarity([_described(sense)], [_described(other) for other in others])[0].tolist()
    return [other for other, similarity in zip(others, near, strict=True) if similarity >= _SAME_SENSE]


def _described(sense: Sense) -> str:
    above = load_wordnet().hypernyms(sense)
    return f"{', '.join(sense.words)}: {sense.gloss} ({', '.join(each.words[0] for each in above)})"


def _similarities(query: str, texts: Iterable[str]) -> list[float]:
    return load_embedder().similarity([query], list(texts))[0].tolist()


def _certainty(value: float) -> float:
    return round(min(max(value, 0.1), 0.95), 2)


def _unknown(request: Request) -> str:
    """Says that nothing is known of the target, what is near, and what to do."""
    net = load_wordnet()
    senses = net.senses(request.target)
    if senses and request.sense is not None:
        known = "; ".join(f"{', '.join(sense.words[:3])} ({sense.file})" for sense in senses[:5])
        what = f"The lexicon knows no '{request.target}' in the sense '{request.sense}'. Its senses: {known}."
    else:
        name = f"{request.target} ({request.sense})" if request.sense else request.target
        near = did_you_mean(request.target, [*atlas(), *net.lemmas()])
        what = f"The lexicon does not know '{name}'.{near}"
    return (
        f"{what} Say what it is with --kind person, character or style, ask a language model with "
        "--suggester openai:MODEL, or write the set yourself as YAML."
    )
