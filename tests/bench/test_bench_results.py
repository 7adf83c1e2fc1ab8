"""Rows, means, comparisons, the table and the heat maps, from records as cells leave them."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from statistics import fmean

import pytest
import results
from charts import heat_map

from crce.bench import plan_grid
from crce.bench.results import markdown, summarise
from crce.training.run_folder import HEADLINES


def records_of(plan, value):
    """A record for every job; `value(cell)` is its H."""
    found = {}
    for job in plan.jobs:
        cell = job.cell
        h = value(cell)
        found[job.key] = {
            "numbers": {"erased": 1.0, "coref_erased": 0.9, "kept": 0.5 if cell.config.crce else None}
            | {"unrelated": 1.0, "H": h, "H3": h},
            "seconds": 2.0,
            "forwards": 7,
            "groups": {},
            "settings": {},
            "judge": None,
            "device": "cpu",
            "threads": 1,
        }
    return found


@pytest.fixture
def eight(tmp_path, grid):
    names = "cat, dog, car, bird, horse, frog, apple, ship"
    return plan_grid(
        grid(f"concepts: [{names}]\nmethods: [esd]\ncrce: [false, true]\nseeds: [0, 1]\n"), cache=tmp_path
    )


def h_of(cell):
    return 0.5 + 0.3 * cell.config.crce + 0.01 * cell.config.seed + 0.005 * len(cell.task.name)


def test_rows_and_means(eight):
    data = summarise(eight, records_of(eight, h_of), {})
    assert len(data["rows"]) == 8 * 2 * 2
    assert {"method", "crce", "concept", "seed", *HEADLINES, "seconds", "forwards"} <= data["rows"][0].keys()
    for name, means in data["means"].items():
        part = [row for row in data["rows"] if row["row"] == name]
        assert means["rows"] == len(part) == 16
        for number in HEADLINES:
            values = [row[number] for row in part if row[number] is not None]
            assert means[number]["value"] == (pytest.approx(fmean(values), abs=1e-4) if values else None)
            assert means[number]["unmeasured"] == 16 - len(values)


def test_each_method_is_compared_with_its_plain_self(eight):
    (found,) = summarise(eight, records_of(eight, h_of), {})["comparisons"]
    assert (found["base"], found["other"]) == ("esd", "esd+crce")
    assert found["H"]["value"] == pytest.approx(0.3)
    assert found["H"]["p"] == pytest.approx(2 / 2**8, abs=1e-5)
    assert found["kept"]["value"] is None  # of the plain method it could not be measured
    assert "esd+crce against esd: H +0.30" in found["text"]
    assert ": significant at 5%" in found["text"]


def test_no_difference_is_not_significant(eight):
    noise = {
        c: (-1) ** i * 0.1 for i, c in enumerate(sorted({cell.task.name for cell in (job.cell for job in eight.jobs)}))
    }
    data = summarise(eight, records_of(eight, lambda c: 0.5 + c.config.crce * noise[c.task.name]), {})
    assert "not significant" in data["comparisons"][0]["text"]


def test_what_no_outcome_could_decide_is_not_called_insignificant(tmp_path, grid):
    """Six concepts give p = 0.031 at the least, which two comparisons double."""
    names = "[cat, dog, horse, car, ship, bird]"
    text = f"concepts: {names}\nmethods: [uce, speed, esd]\ncompare: [[uce+crce, speed+crce], [uce+crce, esd+crce]]\n"
    plan = plan_grid(grid(text), cache=tmp_path)
    found = summarise(plan, records_of(plan, lambda c: 0.1 + 0.5 * (c.name != "uce")), {})["comparisons"]
    assert [one["p"] for one in (made["H"] for made in found)] == [0.03125, 0.03125]
    for made in found:
        assert "it can't be decided with 6 concepts: p can't be below 0.062 after Holm's correction" in made["text"]
        assert "significant" not in made["text"]


def test_few_concepts_are_not_tested(tmp_path, grid):
    text = "concepts: [cat, dog]\nmethods: [uce, speed]\ncompare: [[uce+crce, speed+crce]]\n"
    plan = plan_grid(grid(text), cache=tmp_path)
    (found,) = summarise(plan, records_of(plan, lambda c: 0.1 + 0.5 * (c.name == "speed")), {})["comparisons"]
    assert found["H"]["value"] == pytest.approx(0.5)
    assert found["text"].endswith("it can't be decided with 2 concepts: p can't be below 0.5.")


def test_the_table_says_what_is_missing(eight):
    records = records_of(eight, h_of)
    lost = eight.jobs[0].key
    del records[lost]
    table = markdown(summarise(eight, records, {lost: "the disk is full"}))
    header, _, plain, crce, *notes = table.splitlines()
    assert header.startswith("| method | erased |")
    assert plain.startswith("| esd | 1.00 | 0.90 | – | 1.00 | 0.53 [0.52, 0.53] |")
    assert plain.endswith("| 2.0 | 15 |")
    assert crce.endswith("| 2.0 | 16 |")
    assert "- failed: cat, esd, seed 0: the disk is full" in notes
    assert "- esd: kept, held-out retains could not be measured in 15 of 15 cells." in notes


def test_what_no_row_could_measure_is_said_once(eight):
    records = records_of(eight, h_of)
    for record in records.values():
        record["numbers"] |= {"erased": None}
    notes = [line for line in markdown(summarise(eight, records, {})).splitlines() if "could not" in line]
    assert "- every row: erased could not be measured in 16 of 16 cells." in notes


def test_heat_map_of_m_and_n():
    means = {
        f"uce+crce corefs={m} retains={n}": {"H": {"value": 0.1 * m + 0.05 * n}} for m in (0, 3) for n in (0, 2, 4)
    }
    root = ET.fromstring(heat_map("uce+crce", means))
    squares = [e for e in root.iter("{http://www.w3.org/2000/svg}rect") if e.get("width") == e.get("height") == "64"]
    texts = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert len(squares) == 6
    assert {"0.00", "0.10", "0.20", "0.30", "0.40", "0.50"} <= set(texts)
    dark = min(squares, key=lambda e: int(e.get("fill")[1:], 16))
    assert (float(dark.get("x")), float(dark.get("y"))) == (134, 44)  # most corefs right, most retains on top
    assert results.HEAT_MAP.read_text(encoding="utf-8") == results.heat()
