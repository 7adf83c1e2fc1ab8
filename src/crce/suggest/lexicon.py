"""Corefs and retains offline: from the bundled atlas, then from WordNet, ranked by the bundled sentence embedding."""

import re
from dataclasses import replace

from crce.concepts.concept_set import ConceptSet, fold
from crce.concepts.faults import likely_slip
from crce.concepts.library import atlas
from crce.demo.embedding import load_embedder
from crce.errors import SuggestError
from crce.suggest import disambiguation
from crce.suggest.candidates import Candidate, Request, Side, sides_of
from crce.suggest.names import name_variants, style_core
from crce.suggest.phrases import words
from crce.suggest.relations import SAID, Relative, other_words, things_around
from crce.suggest.wordnet import Sense, load_wordnet


_FILLED = 0.5  # of the certainty of a phrase that only adds words to the name
_LONG, _OFTEN = 7, 0.4  # letters of a name that may have two wrong ones, and how common what is meant then is
_MARGIN = 2  # times as many phrases of WordNet as are asked for leave a choice


class LexiconSuggester:
    """Proposes what the atlas and WordNet know about a target."""

    name = "lexicon"
    use_atlas = True

    def propose(self, request: Request) -> list[Candidate]:
        """Every phrase of the target's atlas entry, then its relatives in WordNet, then variants of its name.

        Raises:
            SuggestError: neither knows the target, and it is no name of a person, a character or a style, and no sort
                of a thing that is known; or nothing tells which of several things is meant.
        """
        sense = disambiguation.meant_sense(request)
        entry = disambiguation.entry_of(request, sense) if self.use_atlas else None
        known = sense if entry is None else disambiguation.sense_of_entry(entry, request, sense)
        if entry is None and sense is None and request.kind not in disambiguation.NAMED:
            return _compound(request)
        asked, unclear = disambiguation.question(request, sense)
        if unclear and entry is None:
            raise SuggestError(asked)
        proposed: list[Candidate] = []
        if entry:
            proposed += [
                Candidate(r.text, side, r.certainty, "atlas", f"{side} of '{entry.target}' in the atlas", r.held_out)
                for side, r in sides_of(entry)
            ]
        if known:
            proposed += _from_wordnet(request, known, trust=0.7 if entry else 1.0)
        if sense is None or sense.is_instance or request.kind == "style":  # "dragon" is a character and no name
            variants = name_variants(request.target, request.kind)
            proposed += [Candidate(text, "coref", certainty, "lexicon", why) for text, certainty, why in variants]
        few = sum(c.side == "retain" for c in proposed) < request.retains
        if self.use_atlas and request.kind in disambiguation.NAMED and few:
            proposed += self._peers(request, entry)
        # each phrase once: the atlas before WordNet, corefs before retains
        first: dict[str, Candidate] = {}
        for c in proposed:
            filled = replace(c, certainty=_certainty(_FILLED * c.certainty)) if _is_filler(c, request) else c
            first.setdefault(fold(c.text), filled)
        usable = (c for c in first.values() if request.takes(c.text, c.side) and not _is_namesake(c, request))
        ranked = sorted(usable, key=lambda c: -c.certainty)
        # without the tail of WordNet's lists, which could be selected for its diversity only
        found = {side: [c.text for c in ranked if c.source == "wordnet" and c.side == side] for side in request.wanted}
        tail = {text for side, own in found.items() for text in own[_MARGIN * request.wanted[side] :]}
        return [c for c in ranked if c.text not in tail]

    def _peers(self, request: Request, own: ConceptSet | None) -> list[Candidate]:
        """Other persons, characters or styles of the atlas, nearest first: retains for a name that no list places."""
        others = [each for each in atlas().values() if each.kind == request.kind and each is not own]
        names = [n for each in others for n in (each.target, *(r.text for r in each.retains)) if n[0].isupper()]
        if request.kind == "style":
            names = [name for name in names if not disambiguation.works_in(name, style_core(request.target))]
        near = load_embedder().similarity([request.target], names)[0].tolist()
        pairs = sorted(zip(names, near, strict=True), key=lambda pair: -pair[1])[: 3 * request.retains]
        why = f"another {request.kind} of the atlas, similarity"
        return [Candidate(n, "retain", _certainty(0.46 + 0.3 * s), "lexicon", f"{why} {s:.2f}") for n, s in pairs]


class WordNetSuggester(LexiconSuggester):
    """Proposes what WordNet knows about a target."""

    name = "wordnet"
    use_atlas = False


def _from_wordnet(request: Request, sense: Sense, trust: float) -> list[Candidate]:
    """Relatives of the target; `trust` scales their certainty, below 1 where a set written by hand leads."""
    net, embedder = load_wordnet(), load_embedder()
    target = disambiguation.bare_name(request)
    base = net.base_form(target) or target
    senses = [sense, *disambiguation.twins(sense, target)]
    relatives: list[tuple[Side, Relative]] = [("coref", r) for each in senses for r in other_words(net, each, base)]
    relatives += [("retain", r) for r in things_around(net, sense, base)]
    said = (each.words[0] for each in net.ancestors(sense) if net.common(each, each.words[0]) >= 0.5)
    hint = request.sense or next(said, "")  # "reptile" and not "diapsid"
    query = f"{base} ({hint})" if hint else base
    found = []
    similarities = embedder.similarity([query], [r.text for _, r in relatives])[0].tolist()
    for (side, relative), similarity in zip(relatives, similarities, strict=True):
        if side == "retain" and request.kind == "style" and not disambiguation.is_other_style(relative.text, target):
            continue
        near = relative.weight * (similarity - 0.5)
        # Common words are known to the people who write prompts, and to the model; rare words to neither.
        # A common word that is far from the target is common for something else.
        common = 0.5 * (relative.common - SAID) * min(max(2.5 * (similarity - 0.05), 0), 1)
        rare = min(0.06 * embedder.rarity(relative.text), 0.2) * (1 - relative.common)
        certainty = _certainty(trust * (relative.certainty + near + common - rare))
        reason = f"{relative.reason}, similarity {similarity:.2f}"
        found.append(Candidate(relative.text, side, certainty, "wordnet", reason))
    return found


def _certainty(value: float) -> float:
    return round(min(max(value, 0.1), 0.95), 2)


def _compound(request: Request) -> list[Candidate]:
    """What is known of an unlisted sort of a thing, a "charging cable": its spellings, and other cables to keep."""
    net = load_wordnet()
    modifiers, _, head = request.target.rpartition(" ")
    plain = re.fullmatch(r"\w[\w -]*", modifiers) and request.sense is None
    kind = net.choose(head) if plain else None
    near = _slip(request.target) if request.sense is None else None
    if kind is None or (near is not None and near != near.lower()):
        senses = net.senses(request.target)
        if senses and request.sense is not None:
            known = "; ".join(f"{', '.join(sense.words[:3])} ({sense.file})" for sense in senses[:5])
            what = f"The lexicon knows no '{request.target}' in the sense '{request.sense}'. Its senses: {known}."
        else:
            what = f"The lexicon does not know '{request.name}'." + (f" Did you mean '{near}'?" if near else "")
        raise SuggestError(
            f"{what} Say what it is with --kind person, character or style, ask a language model with "
            "--suggester openai:MODEL, or write the set yourself as YAML."
        )
    why, spelt = "the name in another spelling", ("".join, "-".join)
    names = [Candidate(join([*modifiers.split(), head]), "coref", 0.6, "lexicon", why) for join in spelt]
    others = _from_wordnet(replace(request, target=head), kind, trust=0.9)
    sorts = [replace(c, side="retain") for c in others if c.side == "coref" and c.text != kind.gloss]
    return [*names, *sorted((*sorts, *(c for c in others if c.side == "retain")), key=lambda c: -c.certainty)]


def _slip(target: str) -> str | None:
    """The name of which the target is probably a slip, as it is written: of a capital one only a name ("Yodda").

    A word that is often said comes first, which may be two letters off where it is long ("elefant").
    """
    net, long, plain = load_wordnet(), len(target) >= _LONG, target == target.lower()
    near = likely_slip(target, net.lemmas(target[:1], _OFTEN), 2 if long else 1) if plain else None
    if near is None and (long or not plain):
        near = likely_slip(target, [*net.lemmas(), *atlas()])
    written = [word for sense in net.senses(near or "") for word in sense.words if fold(word) == near]
    near = next(iter(written), near)
    return near if near and (plain or near != near.lower()) else None


def _is_namesake(candidate: Candidate, request: Request) -> bool:
    """Whether a retain shares a word with a name, and no person wrote it: "Tom Cruise" for "Tom Hanks"."""
    named = candidate.side == "retain" and request.kind in disambiguation.NAMED and candidate.source != "atlas"
    return named and not set(words(candidate.text)).isdisjoint(words(style_core(request.target)))


def _is_filler(candidate: Candidate, request: Request) -> bool:
    """Whether a coref is the target's name with words added that make no other name: "juicy apple", no "oak tree"."""
    said, own = words(candidate.text), words(request.target)
    named = request.kind not in disambiguation.NAMED and candidate.side == "coref" and len(said) > len(own)
    lower = candidate.text == candidate.text.lower()  # a "Fuji apple" is a sort
    return named and lower and set(own) <= set(said) and not load_wordnet().base_form(candidate.text)
