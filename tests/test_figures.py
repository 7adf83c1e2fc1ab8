"""Every figure in README stands in a committed JSON file, and the promises that README makes hold there."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import results
import tables
from scripts import load

from crce.concepts import find_concepts
from crce.methods import METHODS
from crce.training.run_folder import HEADLINES


ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def read(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / name).read_text(encoding="utf-8"))


def rows(crce: bool) -> list[dict[str, Any]]:
    """Those of the table in README: objects and characters."""
    name = "esd+crce" if crce else "esd"
    own = [row for row in read("erasure/methods.json")["rows"] if row.get("row") == name]
    return [row for row in own if find_concepts(row["concept"]).kind != "style"]


def mean(crce: bool, number: str) -> float:
    return statistics.fmean(row[number] for row in rows(crce) if row[number] is not None)


def test_crce_erases_its_names_keeps_neighbours_and_beats_plain_esd():
    assert len({row["concept"] for row in rows(True)}) >= 20
    assert {(r["concept"], r["seed"]) for r in rows(True)} == {(r["concept"], r["seed"]) for r in rows(False)}
    assert mean(True, "erased") >= 0.97
    assert mean(True, "coref_erased") >= 0.90
    assert mean(True, "kept") >= 0.90
    assert mean(True, "H") >= mean(False, "H") + 0.09
    for plain in ("esd", "esd at 60 steps"):
        made = next(
            found
            for found in results.methods_data()["comparisons"]
            if (found["base"], found["other"]) == (plain, "esd+crce")
        )
        assert made["H"]["low"] > 0
        assert made["p_adjusted"] <= 0.05


def test_the_loops_cost_what_is_recorded():
    """Passes of a step are counted anew; the seconds and the qualities are those of the record."""
    script, recorded = load("benchmarks/speed/loops.py"), read("speed/loops.json")
    rows = {row["loop"]: row for row in recorded["rows"] if row["model"] == "demo"}
    assert rows["crce"]["seconds_ratio"] >= 8
    assert rows["crce"]["time_to_quality_ratio"] >= 8
    assert rows["crce"]["H"] >= rows["official"]["H"]
    assert f"takes {rows['crce']['seconds_ratio']:.1f} times less time" in README
    for name in ("official", "ileco", "crce"):
        counted = script.count_passes(script.Loop(name, "dog", 0, 10))
        assert counted == pytest.approx({key: rows[name][key] for key in counted})


def test_a_hundred_deletions_are_fast_and_give_the_same_weights_in_any_order():
    found = read("speed/deletions.json")
    assert found["deletions"] == 100
    assert found["equal_bit_for_bit"] is True
    assert all(order[name] <= 5 for order in found["orders"] for name in ("median", "most", "last_ten"))


def test_what_deletions_cost_on_a_large_model_is_what_is_recorded():
    found, text = read("speed/flux_deletions.json"), (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert f"takes {found['seconds_each']:.1f} processor seconds and {found['folder_mb_each']:.1f} MB" in text
    assert f"a solve {found['seconds_solve']:.1f} processor seconds" in text
    assert f"{found['peak_mb']:.0f} MB at its peak" in text
    assert f"would take {found['seconds_2000']:.0f} processor" in text


def test_the_whole_job_costs_what_is_recorded(demo_backbone):
    job, recorded = load("benchmarks/speed/whole_job.py"), read("speed/whole_job.json")
    parts = job.count(demo_backbone)
    assert parts == pytest.approx(recorded["parts"], rel=0.01)
    assert sum(parts.values()) == pytest.approx(recorded["tflop"], rel=0.01)
    assert recorded["tflop"] <= 4.5
    assert recorded["beside_ratio"] <= 2.5
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert f"is {recorded['tflop']:.1f} teraflop on its first run: {recorded['parts']['training']:.1f} for" in text
    assert f"and {recorded['parts']['report']:.1f} for the report" in text
    assert f"takes {recorded['beside_ratio']:.2f} times as long" in text
    assert len(recorded["agreement"]) >= 10
    assert all(row["within"] for row in recorded["agreement"])
    assert recorded["agreement_difference"] <= 0.03
    text = (ROOT / "docs" / "backbones.md").read_text(encoding="utf-8")
    assert f"by {recorded['agreement_difference']:.3f} on average" in text
    flow = read("demo/flow_solver.json")
    assert flow["mean_difference"] <= 0.03
    steps, difference = (flow[side]["steps"] for side in ("short", "long")), flow["mean_difference"]
    assert "in {} steps, which differ from {} by {:.3f} on average".format(*steps, difference) in text


def test_the_time_that_a_plan_says_is_the_time_that_a_run_takes():
    recorded = read("plan/rehearsal.json")["rows"]
    ratios = [row["seconds"]["all"]["ratio"] for row in recorded]
    assert len(ratios) >= 5
    assert all(0.75 <= ratio <= 1.25 for ratio in ratios)
    assert all(row["images"]["planned"] == row["images"]["taken"] for row in recorded)
    text = (ROOT / "docs" / "backbones.md").read_text(encoding="utf-8")
    assert f"{min(ratios):.2f} to {max(ratios):.2f} of what" in text


@pytest.mark.parametrize(("crce", "name"), [(False, "ESD"), (True, "ESD + CRCE")])
def test_readme_shows_the_measured_erasure(crce, name):
    cells = [f"{mean(crce, number):.2f}" for number in HEADLINES]
    assert f"| {name} | {' | '.join(cells)} |" in README


def test_readme_shows_the_measured_model():
    model = read("demo/model.json")
    assert f"{model['parameters'] / 1e6:.1f} million parameters" in README
    for group in ("names", "held_out"):
        assert f"{100 * model[group]['recognised']:.0f} %" in README


@pytest.mark.parametrize("path", tables.documents(), ids=lambda path: path.name)
def test_the_tables_of_the_documents_are_up_to_date(path):
    text = path.read_text(encoding="utf-8")
    assert text == tables.filled(text), "run: python tools/docs/tables.py"


def test_every_table_stands_in_a_document():
    found = [name for path in tables.documents() for _, name, *_ in tables.PLACE.findall(path.read_text("utf-8"))]
    assert sorted(found) == sorted(tables.TABLES)


def test_a_plan_is_what_a_gpu_took_or_a_little_more():
    for row in read("plan/memory.json")["rows"]:
        assert 1 <= row["planned"] / row["measured"] < 1.1


def test_models_in_four_bits_fit_the_cards_that_people_own():
    most = {("flux_dev", 512): 10, ("flux_dev", 1024): 12, ("z_image_turbo", 1024): 9, ("sd35_medium", 1024): 8}
    most |= {("sdxl", 1024): 6, ("qwen_image", 1024): 16}  # GiB
    rows = {(row["model"], row["resolution"]): row for row in read("plan/memory.json")["quantized"]}
    assert all(rows[case]["peak"] / 2**30 <= bar for case, bar in most.items())


def test_the_defaults_of_models_are_those_of_the_code():
    import defaults

    assert read("plan/defaults.json")["rows"] == defaults.rows()


def test_the_documents_show_what_grounding_gains():
    measured, text = read("suggest/grounding.json"), (ROOT / "docs" / "suggest.md").read_text(encoding="utf-8")
    assert len({row["concept"] for row in measured["rows"]}) >= 6
    for name, means in measured["means"].items():
        cells = [f"{means[number]:.2f}" for number in ("erased", "coref_erased", "kept", "H3")]
        assert f"| {name} | {' | '.join(cells)} |" in text
    assert f"AUC {measured['closeness']['pooled_auc']:.3f}" in text


def test_the_page_of_results_shows_what_was_measured():
    assert results.DOCUMENT.read_text(encoding="utf-8") == results.document()
    assert results.CHART.read_text(encoding="utf-8") == results.chart()


def test_corefs_and_retains_raise_h_of_every_method_over_the_same_targets_and_seeds():
    table = results.methods_data()["means"]
    rows = results.methods_data()["rows"]
    measured = {(row["row"], row["concept"], row["seed"]) for row in rows}
    earlier = {row["method"] for row in rows if "run" not in row}  # six targets, three seeds
    for name in (name for name, entry in METHODS.items() if entry.results):
        plain, crce = (
            {(concept, seed) for row, concept, seed in measured if row == own} for own in (name, f"{name}+crce")
        )
        assert plain == crce
        concepts = {concept for concept, _ in plain}
        assert len(concepts) >= (6 if name in earlier else 20)
        assert {(concept, seed) for concept in concepts for seed in range(3 if name in earlier else 1)} <= plain
        assert table[f"{name}+crce"]["H"]["value"] > table[name]["H"]["value"]


def test_the_document_says_how_well_styles_are_recognised():
    text = (ROOT / "docs" / "evaluate.md").read_text(encoding="utf-8")
    styles = read("demo/styles.json")
    shares = sorted(style["recognised"] for style in styles["styles"].values())
    unseen = styles["judge_on_unseen_concepts"]["held_out"]["artwork"]["all"]
    for share in (shares[0], shares[-1], unseen):
        assert f"{100 * share:.0f} %" in text


def test_the_page_of_methods_names_what_tuning_found():
    text = " ".join((ROOT / "docs" / "methods.md").read_text(encoding="utf-8").split())
    tuned = read("erasure/tuning.json")["rows"]
    crce, plain = (tuned[name] for name in ("esd+crce", "esd"))
    assert {crce["best"]["layers"], plain["best"]["layers"]} == {"noxattn"}
    kv = max(h for _, h in crce["curves"]["kv"])
    assert f"with CRCE they have H {crce['best']['H']:.2f}, keys and values {kv:.2f}" in text
    assert f"on the same layers at {plain['best']['steps']} steps, with {plain['best']['H']:.2f}" in text
    crce, plain = (tuned[name]["best"] for name in ("ablation+crce", "ablation"))
    assert (crce["layers"], plain["layers"]) == ("noxattn", "kv")
    assert f"with CRCE on the same layers at {crce['steps']} steps (H {crce['H']:.2f})" in text
    assert f"plain on keys and values at {plain['steps']} (H {plain['H']:.2f})" in text
