"""The table of docs/suggest.md is the one that the benchmark makes of its committed result."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import scripts

from crce.concepts import ConceptSet, Related
from crce.errors import SuggestError
from crce.suggest.candidates import Candidate, Request


ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return scripts.load("benchmarks/suggest/corefconcept.py")


@pytest.fixture(scope="module")
def result() -> dict:
    return json.loads((ROOT / "benchmarks/suggest/corefconcept.json").read_text(encoding="utf-8"))


def test_the_docs_show_the_measured_table(benchmark, result):
    assert benchmark.table(result) in (ROOT / "docs/suggest.md").read_text(encoding="utf-8")


def test_the_means_are_those_of_the_rows(benchmark, result):
    assert benchmark.means(result["rows"]) == result["means"]
    assert {row["suggester"] for row in result["rows"]} >= {"lexicon", "wordnet", "nearest"}


class Fixed:
    """Answers what it is given, to score the scoring."""

    name = "fixed"

    def __init__(self, *candidates: Candidate) -> None:
        self.candidates = candidates

    def propose(self, request: Request) -> list[Candidate]:
        if not self.candidates:
            raise SuggestError("nothing known")
        return list(self.candidates)


def candidate(text: str, side: str) -> Candidate:
    return Candidate(text, side, 0.8, "fixed", "given")


BAT = ConceptSet(
    "bat (sports equipment)",
    corefs=(Related("cricket bat"), Related("hitting stick"), Related("baseball bat", held_out=True)),
    retains=(Related("tennis racket"),),
)


def test_a_perfect_answer_scores_one(benchmark):
    name, request = benchmark.asked(BAT)
    assert (request.target, request.sense) == ("bat", "sports equipment")
    fixed = Fixed(
        candidate("cricket bat", "coref"),
        candidate("Baseball bat", "coref"),
        candidate("hitting stick", "coref"),
        candidate("tennis racket", "retain"),
    )
    row = benchmark.score(BAT, name, request, fixed)
    assert [row[number] for number in benchmark.NUMBERS] == [1, 0.667, 1, 1, 1, 1, 0, 0]


def test_the_free_columns_leave_out_what_holds_the_own_name(benchmark):
    name, request = benchmark.asked(BAT)
    row = benchmark.score(
        BAT, name, request, Fixed(*(candidate(f"{word} bat", "coref") for word in ("cricket", "big")))
    )
    assert row["coref_precision"] == 1, "matched for free"
    assert row["free_precision"] is None, "nothing is proposed without it"
    assert row["free_recall"] == 0, "of the hitting stick"
    row = benchmark.score(
        BAT, name, request, Fixed(candidate("hitting stick", "coref"), candidate("helicopter", "coref"))
    )
    assert (row["free_precision"], row["free_recall"]) == (0.5, 1)


def test_the_coverage_is_counted_by_list():
    found = json.loads((ROOT / "benchmarks/suggest/coverage.json").read_text(encoding="utf-8"))
    most = {"coco": 2, "modern nouns": 2, "celebrities": 4, "styles": 2, "characters": 4}
    for name, unknown in most.items():
        assert found[name]["unknown"] <= unknown
    assert [found[name]["n"] for name in most] == [80, 50, 20, 20, 20]
    for row in found.values():
        assert {"n", "unknown", "no_corefs", "full"} <= row.keys()
        assert row["n"] == row["unknown"] + row["no_corefs"] + row["full"] + len(row["names"]["incomplete"])


def test_mistakes_are_counted(benchmark):
    name, request = benchmark.asked(BAT)
    given = [
        ("fruit bat", "coref"),
        ("helicopter", "coref"),
        ("table lamp", "retain"),
        ("Hitting stick", "retain"),
    ]
    row = benchmark.score(BAT, name, request, Fixed(*(candidate(*each) for each in given)))
    assert row["coref_recall"] < 1
    assert row["own_name"] == 0.5
    assert row["sense_errors"] == 1
    assert row["retain_confusion"] == 0.5


def test_knowing_nothing_is_recall_zero(benchmark):
    name, request = benchmark.asked(BAT)
    row = benchmark.score(BAT, name, request, Fixed())
    assert row["coref_recall"] == 0
    assert row["coref_precision"] is None
    assert row["error"] == "nothing known"
