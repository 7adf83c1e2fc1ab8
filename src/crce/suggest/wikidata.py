"""The other names of a concept in Wikidata, which is asked with `--suggester wikidata` only; the answers are kept.

Its data are in the public domain (CC0).
"""

import re
import time
from typing import Any, NamedTuple

from crce import __version__
from crce.concepts.concept_set import CERTAINTY_WORDS, Kind, name_key
from crce.demo.embedding import load_embedder
from crce.errors import SuggestError, first_line
from crce.files import cache_folder, read_json, slug, text_hash, write_json
from crce.suggest import disambiguation
from crce.suggest.candidates import Candidate, Request
from crce.suggest.lexicon import LexiconSuggester
from crce.suggest.wordnet import load_wordnet


API = "https://www.wikidata.org/w/api.php"
_AGENT = f"crce/{__version__} (https://pypi.org/project/crce)"  # who does not say who he is, is refused
_PARTS = ("labels", "aliases", "descriptions", "claims")  # of an entity, beside its articles
_TIMEOUT, _PAUSE = 10, 2  # seconds for an answer, and before the second try
_RIVAL = 0.25  # of the Wikipedias that have an article about the best-known meaning: another one is asked about
_NO_THING = re.compile(r"disambiguation|\bname\b|surname|Wikimedia|scholarly article|scientific article")
_IMAGINED = re.compile(r"\bfiction|\bcharacter\b|superhero|supervillain|mytholog|legendary creature")


class Entity(NamedTuple):
    """One meaning of a name in Wikidata."""

    id: str
    description: str
    kind: Kind  # person, character or object
    articles: int  # how many Wikipedias and other projects have one about it
    names: list[str]  # in English: its label, then its aliases


class WikidataSuggester(LexiconSuggester):
    """Proposes the English names that Wikidata has for a target, and what the lexicon knows."""

    name = "wikidata"

    def __init__(self, url: str = API) -> None:
        self.url = url

    def infer_kind(self, target: str, sense: str | None = None) -> Kind | None:
        """The kind of a target by its words, as `disambiguation.infer_kind` does, else by Wikidata."""
        if kind := disambiguation.infer_kind(target, sense):
            return kind
        entity = self.meant(target, None, sense)
        return entity.kind if entity else None

    def meant(self, target: str, kind: Kind | None = None, about: str | None = None) -> Entity | None:
        """The entity of a name and a kind that is nearest to a sense or a definition, else the best-known one.

        Raises:
            SuggestError: Wikidata can't be asked, or another one is nearly as well known.
            RunError: the stored answer can't be read or written.
        """
        digest = text_hash(f"{self.url} {target}")[:12]
        file = cache_folder() / "wikidata" / f"{slug(target)}-{digest}.json"
        if not file.is_file():
            write_json(file, self._fetch(target))
        known = [Entity(*each) for each in read_json(file, list[Entity], "Delete it")]
        wanted = "person" if kind == "style" else kind if kind in disambiguation.NAMED else "object"
        known = [each for each in known if kind is None or each.kind == wanted]
        if about and known:
            near = load_embedder().similarity([about], [each.description for each in known])[0]
            return known[int(near.argmax())] if near.max() >= disambiguation.MIN_SENSE_SIMILARITY else None
        rivals = [each for each in known if each.articles >= _RIVAL * known[0].articles]
        if len(rivals) > 1:
            said = [f"'{target} ({re.sub(' *[(].*?[)]', '', each.description)})'" for each in rivals[:5]]
            asked = f"Is it {said[0]}? Otherwise write {'; '.join(said[1:])}."
            raise SuggestError(f"'{target}' has several meanings in Wikidata. {asked}")
        return known[0] if known else None

    def propose(self, request: Request) -> list[Candidate]:
        """The names of the entity that is meant, and what the lexicon proposes.

        Raises:
            SuggestError: as `meant`, or neither knows the target.
        """
        net, sense = load_wordnet(), disambiguation.meant_sense(request)
        about = request.sense or (sense.gloss if sense else None)
        entity = self.meant(disambiguation.bare_name(request), request.kind, about)
        found = []
        for name in entity.names if entity else ():
            other = net.senses(name)  # "Blade" alone is no vampire hunter to most
            certainty = CERTAINTY_WORDS["Low" if other and sense not in other else "High"]
            why = f"{entity.id} in Wikidata, {entity.description}" if entity else ""
            found.append(Candidate(name, "coref", certainty, self.name, why))
        found = [candidate for candidate in found if request.takes(candidate.text, "coref")]
        try:
            return sorted([*found, *super().propose(request)], key=lambda candidate: -candidate.certainty)
        except SuggestError:  # the lexicon does not know the target, or asks which of its senses is meant
            if sense or not found:
                raise
            return found

    def _fetch(self, name: str) -> list[Entity]:
        """The things of this name, the best-known first."""
        search = {"action": "wbsearchentities", "language": "en", "uselang": "en", "type": "item"}
        details = {"action": "wbgetentities", "languages": "en|mul", "props": "|".join((*_PARTS, "sitelinks"))}
        try:
            hits = self._ask(**search, search=name)["search"]
            ids = "|".join(hit["id"] for hit in hits if name_key(hit["match"]["text"]) == name_key(name))
            found = [_entity(each) for each in self._ask(**details, ids=ids)["entities"].values()] if ids else []
        except (KeyError, TypeError, AttributeError) as error:
            raise SuggestError(f"{self.url} does not answer as Wikidata does ({error!r}).") from error
        return sorted((e for e in found if not _NO_THING.search(e.description)), key=lambda e: -e.articles)

    def _ask(self, **query: str) -> dict[str, Any]:
        """The answer to a query, which is repeated once."""
        from huggingface_hub import get_session

        for pause in (_PAUSE, 0):
            try:
                asked, agent = {"format": "json", **query}, {"User-Agent": _AGENT}
                response = get_session().get(self.url, params=asked, headers=agent, timeout=_TIMEOUT)
                answer: dict[str, Any] = response.raise_for_status().json()
                if "error" in answer:
                    raise ValueError(f"it answers {answer['error']}")
                return answer
            except Exception as error:  # of requests or httpx, by the version of huggingface_hub
                fault = first_line(error)
            time.sleep(pause)
        raise SuggestError(f"Wikidata can't be asked: {fault}. Try again later, or leave out --suggester wikidata.")


def _entity(found: dict[str, Any]) -> Entity:
    """One entity of an answer; the names that all languages share are those of "mul"."""
    labels, aliases, about, claims = (found.get(part) or {} for part in _PARTS)
    label = labels.get("en") or labels.get("mul")
    terms = [*([label] if label else []), *aliases.get("en", ()), *aliases.get("mul", ())]
    description = about.get("en", {}).get("value", "")
    sorts = [claim["mainsnak"].get("datavalue", {}).get("value", {}).get("id") for claim in claims.get("P31", ())]
    kind: Kind = "person" if "Q5" in sorts else "character" if _IMAGINED.search(description) else "object"
    names = list(dict.fromkeys(term["value"] for term in terms))
    return Entity(found["id"], description, kind, len(found.get("sitelinks") or {}), names)
