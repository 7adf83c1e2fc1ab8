"""The suggester that asks Wikidata, against a server that answers in Wikidata's documented format."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import huggingface_hub.constants
import pytest

from crce import __version__
from crce.errors import SuggestError
from crce.suggest import Suggestion, read_record, replay, suggest, write_record
from crce.suggest import wikidata as module
from crce.suggest.wikidata import WikidataSuggester


def entity(
    number: int,
    label: str,
    about: str,
    *aliases: str,
    human: bool = False,
    articles: int = 50,
    shared: str = "",
) -> dict:
    """An entity as `wbgetentities` answers it; that in `shared` is one of every language ("mul")."""
    value = {"entity-type": "item", "numeric-id": 5 if human else 1, "id": "Q5" if human else "Q1"}
    snak = {"snaktype": "value", "property": "P31", "datavalue": {"value": value, "type": "wikibase-entityid"}}
    unknown = {"mainsnak": {"snaktype": "somevalue", "property": "P31"}, "type": "statement", "rank": "normal"}
    return {
        "type": "item",
        "id": f"Q{number}",
        "labels": {"en": {"language": "en", "value": label}},
        "descriptions": {"en": {"language": "en", "value": about}} if about else {},
        "aliases": {
            "en": [{"language": "en", "value": alias} for alias in aliases],
            "mul": [{"language": "mul", "value": shared}] if shared else [],
        },
        "claims": {"P31": [unknown, {"mainsnak": snak, "type": "statement", "rank": "normal"}]},
        "sitelinks": {f"wiki{i}": {"site": f"wiki{i}", "title": label, "badges": []} for i in range(articles)},
    }


ENTITIES = [
    entity(
        *(101, "Zorblax Quennell", "Martian dancer (born 1990)", "Zorby Q", "ZORBLAX QUENNELL", "Zorblax the Nimble"),
        **{"human": True, "shared": "Zorblax Maria Quennell"},
    ),
    entity(102, "Zorblax Quennell", "scientific article published in 2019", articles=0),
    entity(103, "Zorblax Quennells", "Wikimedia disambiguation page", articles=60),
    entity(201, "Vorkin", "fictional lizard of the Vorkin novels", "Lizard of Dimmelhorst", articles=40),
    entity(202, "Vorkin", "river in Neverland", "Vorkin Water", articles=20),
    entity(203, "Vorkin", "American singer (1950-1999)", "Vorky", human=True, articles=3),
    entity(204, "Vorkin", "video game developer", "Vorkin Games", articles=15),
    entity(301, "Pelé", "Brazilian footballer", "Pele", "Edson Arantes do Nascimento", "O Rei", "Athlete", human=True),
    entity(302, "Pelé", "village in Togo", articles=2),
    entity(401, "walrus", "species of marine mammal with tusks", "Odobenus rosmarus", "sea horse of the Arctic"),
    entity(402, "Walrus", "American rock band", "The Walrus", articles=4),
]


class Server(ThreadingHTTPServer):
    """Wikidata's API; `faults` are the answers of the next requests: a status, or a body."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, str]] = []
        self.agents: list[str | None] = []
        self.faults: list[int | str] = []
        self.url = f"http://127.0.0.1:{self.server_port}/w/api.php"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        self.server.asked.append(query)
        self.server.agents.append(self.headers["User-Agent"])
        fault = self.server.faults.pop(0) if self.server.faults else None
        body = fault if isinstance(fault, str) else json.dumps(self.answer(query))
        self.send_response(fault if isinstance(fault, int) else 200)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.end_headers()
        self.wfile.write(body.encode())

    def answer(self, query: dict[str, str]) -> dict:
        assert query["format"] == "json"
        if query["action"] == "wbgetentities":
            assert query["languages"] == "en|mul"
            known = {each["id"]: each for each in ENTITIES}
            return {"entities": {i: known[i] for i in query["ids"].split("|")}, "success": 1}
        assert (query["action"], query["language"], query["type"]) == ("wbsearchentities", "en", "item")
        hits = []
        for each in ENTITIES:
            names = [each["labels"]["en"]["value"], *(a["value"] for a in each["aliases"]["en"])]
            text = next((name for name in names if name.lower().startswith(query["search"].lower())), None)
            if text is not None:
                match = {"type": "label" if text == names[0] else "alias", "language": "en", "text": text}
                hits.append({"id": each["id"], "title": each["id"], "label": names[0], "match": match})
        return {"searchinfo": {"search": query["search"]}, "search": hits, "success": 1}

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("CRCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CRCE_DECISIONS", str(tmp_path / "decisions.jsonl"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(module, "_PAUSE", 0)
    with Server() as served:
        threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True).start()
        yield served
        served.shutdown()


def ask(server: Server, concept: str, **settings) -> Suggestion:
    return suggest(concept, suggester=WikidataSuggester(server.url), **settings)


def names(found: Suggestion) -> set[str]:
    return {c.text for c in found.record.proposed if c.source == "wikidata"}


def test_the_names_of_an_unknown_person_become_corefs(server, tmp_path):
    found = ask(server, "zorblax quennell")
    assert found.concepts.kind == "person", "what no list has is what Wikidata says that it is"
    assert names(found) == {"Zorby Q", "Zorblax the Nimble", "Zorblax Maria Quennell"}
    sources = {r.text: (r.source, r.certainty) for r in found.concepts.corefs}
    assert sources["Zorblax Maria Quennell"] == ("wikidata", 0.8)
    assert {c.reason for c in found.record.proposed if c.source == "wikidata"} == {
        "Q101 in Wikidata, Martian dancer (born 1990)"
    }
    assert len(found.concepts.retains) == 12, "other persons of the atlas"
    assert server.agents == [f"crce/{__version__} (https://pypi.org/project/crce)"] * 2
    write_record(tmp_path / "z.suggest.json", found.record)
    assert read_record(tmp_path / "z.suggest.json") == found.record
    assert replay(tmp_path / "z.suggest.json").concepts == found.concepts
    assert ask(server, "zorblax quennell").concepts == found.concepts
    assert len(server.asked) == 2, "an answer is kept"


def test_a_spelling_that_the_target_has_already_is_no_coref(server):
    found = ask(server, "Pele", kind="person")
    assert names(found) == {"Pelé", "Edson Arantes do Nascimento", "O Rei", "Athlete"}
    certainty = {c.text: c.certainty for c in found.record.proposed if c.source == "wikidata"}
    assert certainty["O Rei"] == 0.8
    assert certainty["Athlete"] == 0.4, "it means another thing to most"


@pytest.mark.parametrize(
    ("kind", "coref"), [("character", "Lizard of Dimmelhorst"), ("person", "Vorky"), ("style", "Vorky")]
)
def test_the_kind_chooses_among_several_things_of_one_name(server, kind, coref):
    assert coref in names(ask(server, "Vorkin", kind=kind))


def test_the_sense_is_asked_about_where_nothing_tells(server):
    with pytest.raises(SuggestError) as caught:
        ask(server, "Vorkin")
    assert str(caught.value) == (
        "'Vorkin' has several meanings in Wikidata. Is it 'Vorkin (fictional lizard of the Vorkin novels)'? Otherwise "
        "write 'Vorkin (river in Neverland)'; 'Vorkin (video game developer)'."
    )
    assert ask(server, "Vorkin (fictional lizard of the Vorkin novels)").concepts.kind == "character"
    found = ask(server, "Vorkin (river in Neverland)")
    assert found.concepts.kind == "object"
    assert names(found) == {"Vorkin Water"}


def test_what_the_lexicon_knows_is_found_by_its_definition(server):
    found = ask(server, "walrus")
    assert names(found) == {"Odobenus rosmarus", "sea horse of the Arctic"}
    assert found.concepts.train_retains, "those of the lexicon"
    assert names(ask(server, "cat")) == set(), "what Wikidata does not know is as without it"


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ([429, 429], "Wikidata can't be asked: .*429"),
        ([503, "<html>"], "Wikidata can't be asked: .*Try again later, or leave out --suggester wikidata"),
        (['{"error": {"code": "ratelimited", "info": "too many"}}'] * 2, "it answers .*too many"),
        (["[]"], "does not answer as Wikidata does"),
        (['{"search": [{"id": "Q1"}]}'], "does not answer as Wikidata does .*match"),
        ([200, '{"entities": {"Q101": 3}}'], "does not answer as Wikidata does"),
    ],
)
def test_a_fault_of_the_service_is_one_line(server, faults, said):
    server.faults = faults
    with pytest.raises(SuggestError, match=said) as caught:
        ask(server, "zorblax quennell")
    assert "\n" not in str(caught.value)
    assert not server.faults
    server.faults = [503]
    assert ask(server, "zorblax quennell").concepts.kind == "person", "one fault is tried again, and none is kept"


def test_without_a_network_it_says_so(server):
    server.shutdown()
    server.server_close()
    with pytest.raises(SuggestError, match="Wikidata can't be asked: "):
        ask(server, "zorblax quennell")
