"""Several targets of one run: numbers of each and of all together, by hand."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from crce.concepts import ConceptSet, Related
from crce.evaluate import evaluate
from crce.evaluate.report import target_folders


GONE = {"cat": ["dog"], "kitty": ["dog"], "kitten": ["dog"], "feline": ["dog"]}


@pytest.fixture
def ships() -> ConceptSet:
    return ConceptSet(
        "ship",
        retains=(Related("cat"), Related("tree"), Related("kitty"), Related("dog", held_out=True)),
    )


@pytest.fixture
def both(erasure, ships):
    return replace(erasure, sets=(*erasure.sets, ships))


def prompts(data: dict, group: str) -> dict[str, dict]:
    return {prompt["text"]: prompt for prompt in data["groups"][group]["prompts"]}


def test_the_numbers_of_a_run_are_those_of_all_targets_together(both, backbone, judge, model):
    # cat: all 4 pictures gone; ship: 3 of 4 left. Held-out corefs: kitten gone, feline half left.
    model.erased = GONE | {"ship": ["ship", "ship", "ship", "dog"], "feline": ["cat", "dog"], "puppy": ["ship"]}
    report = evaluate(both, judge=judge, backbone=backbone, images_per_prompt=4)
    values = {name: number["value"] for name, number in report.summary.items()}
    assert values["erased"] == pytest.approx(1 - 3 / 8, abs=1e-4)
    assert values["coref_erased"] == pytest.approx(1 - 2 / 8, abs=1e-4)
    # held out and kept: puppy (gone), vixen, and for the ship no one: "dog" was trained with the cat
    assert values["kept"] == pytest.approx(4 / 8, abs=1e-4)
    assert values["H3"] == pytest.approx(3 / (1 / 0.625 + 1 / 0.75 + 1 / 0.5), abs=1e-3)
    assert "unrelated" in report.summary["H"]["reason"]  # in this small world both sets name nearly all there is
    assert report.summary["erased"]["n"] == 8
    targets = report.data["comparisons"]["target"]
    assert (targets["base"]["k"], targets["erased"]["k"], targets["base"]["n"]) == (8, 3, 8)
    assert not targets["difference"]["significant"]  # five pictures lost of two prompts, one of which kept most
    assert "What is significant" in report.path_html.read_text(encoding="utf-8")
    cat, ship = report.data["targets"]
    assert (cat["target"], cat["summary"]["erased"]["value"]) == ("cat", 1.0)
    assert (ship["target"], ship["summary"]["erased"]["value"]) == ("ship", 0.25)
    assert [(leak["target"], leak["text"]) for leak in report.data["leaks"]] == [("cat", "feline")]
    assert [(change["target"], change["text"]) for change in report.data["broken"]] == [("cat", "puppy")]
    assert "1 is gone" in report.verdict
    assert '"ship"' in report.verdict


def test_what_one_set_erases_is_not_counted_as_kept_by_another(both, backbone, judge, model):
    model.erased = GONE | {"ship": ["dog"]}
    evaluate(both, judge=judge, backbone=backbone, images_per_prompt=2)
    ship = json.loads((both.folder / "targets/ship/report.json").read_text())
    kept = prompts(ship, "retain")
    assert kept["cat"]["left_out"] == "erased by this run too"
    assert kept["kitty"]["left_out"] == 'erased by this run too, as another name of "cat"'
    assert kept["tree"]["left_out"] is None
    assert prompts(ship, "retain_held_out")["dog"]["left_out"] == 'trained by this run, with "cat"'
    cat = json.loads((both.folder / "targets/cat/report.json").read_text())
    assert "ship" not in prompts(cat, "unrelated")


def test_a_text_is_drawn_once_for_all_sets(both, backbone, judge, model):
    evaluate(both, judge=judge, backbone=backbone, images_per_prompt=2)
    assert set(Counter(model.calls).values()) == {1}


def test_every_target_has_a_page_and_the_overview_leads_to_it(both, backbone, judge, model):
    model.erased = GONE
    report = evaluate(both, judge=judge, backbone=backbone, images_per_prompt=2)
    page = report.path_html.read_text(encoding="utf-8")
    addresses: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag, attributes):
            addresses.extend(value for name, value in attributes if name in ("href", "src"))

    Links().feed(page)
    pages = {a for a in addresses if not a.startswith(("data:", "#"))}
    assert pages == {"targets/cat/report.html", "targets/ship/report.html"}
    for address in pages:
        own = (both.folder / address).read_text(encoding="utf-8")
        assert "../../report.html" in own
    assert "cat and ship" in page


def test_one_target_has_the_report_it_always_had(erasure, backbone, judge, model):
    report = evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=2)
    assert "targets" not in report.data
    assert report.data["target"] == "cat"
    assert not (erasure.folder / "targets").exists()


def test_all_gone_is_said_of_all(both, backbone, judge, model):
    model.erased = GONE | {"ship": ["dog"]}
    verdict = evaluate(both, judge=judge, backbone=backbone, images_per_prompt=2).verdict
    assert verdict.startswith("Erased: all 2 targets are gone")
    assert "No leaks" in verdict
    assert "Nothing broke" in verdict


def test_targets_of_one_name_on_disk_have_two_folders():
    folders = target_folders([ConceptSet("café"), ConceptSet("cafe"), ConceptSet("Cafe!")])
    assert len(set(folders)) == 3
