"""Cells are measured once: after a stop, a kill or a failure, only what is missing is measured."""

from __future__ import annotations

import json
import shutil
from statistics import fmean

import dying
import pytest

from crce.bench import CellFinished, plan_grid, read_grid, run_bench
from crce.errors import ConfigError, RunError
from crce.evaluate import evaluate
from crce.training import Erasure


pytestmark = pytest.mark.usefixtures("few_unrelated_prompts")


def attempts(job):
    path = job.folder / "attempts.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def untimed(data):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in data["rows"]]


def test_every_cell_is_a_run_with_its_report(tiny_plan, bench):
    plan = tiny_plan("concepts: [cat]\nmethods: [uce]\ncrce: [false, true]\n")
    told = []
    made = bench(plan, on_event=told.append)
    assert [(event.label, event.done, event.total) for event in told if isinstance(event, CellFinished)] == [
        ("cat: uce, seed 0", 1, 2),
        ("cat: uce+crce, seed 0", 2, 2),
    ]
    for job, row in zip(plan.jobs, made.data["rows"], strict=True):
        run = Erasure.load(job.folder)
        assert (run.config, run.sets) == (job.cell.config, job.cell.task.sets)
        assert (job.folder / "report.html").is_file()
        assert row["run"] == job.folder.name
        assert row["settings"] == {
            "images_per_prompt": 1,
            "seed": 1000,
            "steps": 2,
            "guidance": 4.0,
            "phrases_per_group": 1,
        }
    assert json.loads((made.folder / "results.json").read_text()) == made.data
    assert (made.folder / "table.md").read_text() == made.table


def test_what_is_measured_is_not_measured_again(tiny_plan, bench, monkeypatch):
    text = "concepts: [cat]\nmethods: [uce]\n"
    first = bench(tiny_plan(text))
    written = {path.name: path.read_bytes() for path in first.files}
    monkeypatch.setattr("crce.bench.process_pool.run_here", None)  # nothing is left to be done
    plan = tiny_plan(text)
    assert [job.state for job in plan.jobs] == ["cached"]
    again = bench(plan)
    assert {path.name: path.read_bytes() for path in again.files} == written
    assert [attempts(job) for job in plan.jobs] == [1]


def test_the_usual_number_of_images_is_measured(tiny_folder, grid, bench, tmp_path):
    """With eight images or more a cell also records the number of images of a target."""
    text = "concepts: [cat]\nmethods: [uce]\nevaluate: {images_per_prompt: 8, phrases_per_group: 1, steps: 2}\n"
    plan = plan_grid(grid(f"models: ['{tiny_folder.as_posix()}']\n{text}"), cache=tmp_path / "cells", device="cpu")
    assert bench(plan).failed == []


def test_benchmarks_share_cells(tiny_plan, bench):
    bench(tiny_plan("concepts: [cat]\nmethods: [uce]\n"))
    wider = tiny_plan("concepts: [dog, cat]\nmethods: [{method: uce, name: other}]\n")
    assert [job.state for job in wider.jobs] == ["new", "cached"]
    assert [row["row"] for row in bench(wider).data["rows"]] == ["other+crce"] * 2


def test_a_cell_that_fails_is_told_and_tried_again(tiny_plan, bench):
    plan = tiny_plan("concepts: [cat, dog]\nmethods: [uce]\n")
    plan.jobs[0].folder.parent.mkdir(parents=True)
    plan.jobs[0].folder.write_text("in the way")
    made = bench(plan)
    (failure,) = made.failed
    assert (failure["concept"], failure["row"]) == ("cat", "uce+crce")
    assert str(plan.jobs[0].folder) in failure["error"]
    assert [row["concept"] for row in made.data["rows"]] == ["dog"]
    assert "- failed: cat, uce+crce, seed 0: " in made.table
    plan.jobs[0].folder.unlink()
    again = bench(plan)
    assert again.failed == []
    assert [row["concept"] for row in again.data["rows"]] == ["cat", "dog"]
    assert [attempts(job) for job in plan.jobs] == [1, 1]


def test_an_unexpected_error_leaves_its_traceback(tiny_plan, bench, monkeypatch):
    plan = tiny_plan("concepts: [cat]\nmethods: [uce]\n")
    with monkeypatch.context() as patch:
        patch.setattr("crce.bench.worker.evaluate", lambda *_, **__: 1 / 0)
        made = bench(plan)
    assert made.failed[0]["error"] == "ZeroDivisionError: division by zero"
    assert "1 / 0" in (plan.jobs[0].folder / "error.txt").read_text()
    trained = (plan.jobs[0].folder / "adapter.safetensors").stat().st_mtime_ns
    assert bench(plan).failed == []
    assert not (plan.jobs[0].folder / "error.txt").exists()
    assert (plan.jobs[0].folder / "adapter.safetensors").stat().st_mtime_ns == trained  # only the report was missing


def test_a_damaged_cell_begins_again(tiny_plan, bench, caplog):
    plan = tiny_plan("concepts: [cat]\nmethods: [uce]\n")
    first = untimed(bench(plan).data)
    (plan.jobs[0].folder / "cell.json").write_text("{")
    (plan.jobs[0].folder / "run.json").write_text("{")
    assert untimed(bench(plan).data) == first
    assert "measured again" in caplog.text
    assert "starts over" in caplog.text


def test_a_full_disk_is_told_cell_by_cell(tiny_plan, bench, monkeypatch):
    plan = tiny_plan("concepts: [cat]\nmethods: [uce]\n")

    def full(*_):
        raise RunError("Cannot write cell.json: No space left on device.")

    with monkeypatch.context() as patch:
        patch.setattr("crce.bench.worker.write_json", full)
        made = bench(plan)
    assert "No space left on device" in made.failed[0]["error"]
    assert bench(plan).failed == []


def test_results_need_a_place(tiny_plan, tmp_path):
    (tmp_path / "file").write_text("")
    plan = tiny_plan("concepts: [cat]\nmethods: [uce]\n")
    with pytest.raises(RunError, match="Choose another place"):
        run_bench(plan, out=tmp_path / "file" / "out")
    assert attempts(plan.jobs[0]) == 0


def test_methods_that_do_not_work_on_a_model_are_refused_before_any_work(grid, tmp_path, monkeypatch):
    monkeypatch.setattr("crce.backbones.loading.find_model", lambda *_, **__: ("Flux2KleinPipeline", "1"))
    with pytest.raises(ConfigError) as raised:
        plan_grid(grid("concepts: [cat]\nmethods: [esd, advunlearn]\nmodels: [flux, klein]\n"), cache=tmp_path)
    assert [str(raised.value).count(f"{model}: ") for model in ("flux", "klein")] == [1, 1]


def test_a_process_that_dies_takes_one_cell_with_it(tiny_plan, bench, tmp_path, monkeypatch):
    monkeypatch.setenv("DIES_ONCE", str(tmp_path / "died"))
    plan = tiny_plan("concepts: [cat, dog]\nmethods: [uce]\n")
    made = bench(plan, jobs=2, begin=dying.once)
    (failure,) = made.failed
    assert "killed by signal 9" in failure["error"]
    assert len(made.data["rows"]) == 1
    again = bench(plan)
    assert (again.failed, len(again.data["rows"])) == ([], 2)
    assert [attempts(job) for job in plan.jobs] == [1, 1]


def test_base_pictures_of_a_target_are_drawn_by_one_process():
    from types import SimpleNamespace

    from crce.bench.process_pool import _Queue

    queue = _Queue([SimpleNamespace(group=group, number=i) for i, group in enumerate("aaabbc")])
    taken = {"one": [], "two": []}
    for process in ("one", "two", "one", "two", "one", "two"):
        taken[process].append(queue.next(process).group)
    assert taken == {"one": ["a", "a", "a"], "two": ["b", "b", "c"]}
    assert queue.next("one") is None
    queue = _Queue([SimpleNamespace(group="a"), SimpleNamespace(group="a")])
    assert (queue.next("one").group, queue.next("two").group) == ("a", "a")  # better drawn twice than idle


GRID = """
concepts: [cat]
methods:
  - {method: esd, steps: 4, checkpoint_every: 2, pool: 2, ddim_steps: 4, layers: kv}
  - uce
crce: [false]
evaluate: {images_per_prompt: 1, phrases_per_group: 1, steps: 4}
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A benchmark on the bundled model."""
    folder = tmp_path_factory.mktemp("measured")
    (folder / "grid.yaml").write_text(GRID)
    plan = plan_grid(read_grid(folder / "grid.yaml"), cache=folder / "cells")
    assert run_bench(plan, out=folder / "out").failed == []
    return folder, plan


def test_numbers_of_the_table_are_those_of_the_reports(measured):
    folder, plan = measured
    data = run_bench(plan, out=folder / "out").data
    for row, job in zip(data["rows"], plan.jobs, strict=True):
        report = json.loads((job.folder / "report.json").read_text())
        assert {n: row[n] for n in ("erased", "coref_erased", "kept", "H")} == {
            n: report["summary"][n]["value"] for n in ("erased", "coref_erased", "kept", "H")
        }
    for name, means in data["means"].items():
        values = [row["kept"] for row in data["rows"] if row["row"] == name and row["kept"] is not None]
        assert values
        assert means["kept"]["value"] == pytest.approx(fmean(values), abs=1e-4)
        assert f"| {name} |" in (folder / "out" / "table.md").read_text()


def test_a_report_of_its_own_says_the_same(measured):
    """Base pictures kept from one cell to the next, and a model that had other adapters on, change no number."""
    folder, plan = measured
    data = run_bench(plan, out=folder / "out").data
    last = plan.jobs[-1]
    shutil.copytree(last.folder, folder / "copy")
    report = evaluate(folder / "copy", images_per_prompt=1, phrases_per_group=1, steps=4)
    assert {n: report.summary[n]["value"] for n in ("erased", "kept")} == {
        n: data["rows"][-1][n] for n in ("erased", "kept")
    }


def test_targets_are_erased_in_turn_or_together(tiny_plan, bench):
    text = "concepts: [{in_turn: [cat, dog]}, {together: [cat, dog]}]\n"
    text += "methods: [{method: esd, steps: 2, pool: 2, ddim_steps: 4}]\n"
    plan = tiny_plan(text)
    made = bench(plan)
    assert made.failed == []
    in_turn, together = plan.jobs
    first = Erasure.load(in_turn.folder / "turns" / "1")
    assert [c.target for c in first.sets] == ["cat"]
    last = Erasure.load(in_turn.folder)
    assert sorted(c.target for c in last.sets) == ["cat", "dog"]
    assert last.info["start_from"] is not None
    assert not (together.folder / "turns").exists()
    assert [(row["concept"], row["targets"], row["in_turn"]) for row in made.data["rows"]] == [
        ("2 in turn", 2, True),
        ("2 together", 2, False),
    ]
    assert made.data["rows"][0]["forwards"] > made.data["rows"][1]["forwards"] > 0


def test_targets_in_turn_go_on_after_a_stop(tiny_plan, bench, monkeypatch):
    text = "concepts: [{in_turn: [cat, dog]}]\nmethods: [uce]\n"
    plan = tiny_plan(text)
    with monkeypatch.context() as patch:
        patch.setattr("crce.bench.worker.evaluate", lambda *_, **__: 1 / 0)
        assert bench(plan).failed
    times = [f.stat().st_mtime_ns for f in sorted(plan.jobs[0].folder.rglob("adapter.safetensors"))]
    assert len(times) == 2
    assert bench(plan).failed == []
    assert [f.stat().st_mtime_ns for f in sorted(plan.jobs[0].folder.rglob("adapter.safetensors"))] == times


def test_finished_cells_are_attacked(tmp_path):
    (tmp_path / "grid.yaml").write_text(
        "concepts: [car]\nmethods: [uce]\ncrce: false\n"
        "evaluate: {images_per_prompt: 1, phrases_per_group: 1, steps: 4, quality: true}\n"
        "attacks: [{attack: typo, budget: 1, phrases: 1, images_per_prompt: 1, images_per_try: 1}]\n"
    )
    plan = plan_grid(read_grid(tmp_path / "grid.yaml"), cache=tmp_path / "cells")
    made = run_bench(plan, out=tmp_path / "out")
    assert made.failed == []
    told = json.loads((plan.jobs[0].folder / "attacks" / "typo.json").read_text())["summary"]
    (row,) = made.data["rows"]
    assert row["attacks"] == {"typo": told}
    assert told["prompts"] == 1
    assert row["quality"] == json.loads((plan.jobs[0].folder / "report.json").read_text())["quality"]
    assert made.data["means"]["uce"]["attacks"]["typo"]["after"]["value"] == told["after"]["value"]
    assert "| shows the concept | unattacked | typo |" in made.table
