"""`crce erase --report-to`: the numbers of a run arrive at a tracker."""

from __future__ import annotations

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from crce.cli.trackers import TRACKERS


SET = """\
target: cat
corefs: [kitty, {text: kitten, held_out: true}]
retains: [dog, {text: tiger, held_out: true}]
"""
FEW = ["--steps", 3, "--pool", 1, "--corefs-per-step", 1, "--retains-per-step", 1, "--rank", 2]


def test_losses_settings_and_report_arrive(crce, sketched, tmp_path):
    run, concepts = tmp_path / "run", tmp_path / "cat.yaml"
    concepts.write_text(SET)
    result = crce("erase", concepts, "--out", run, *FEW, "--images-per-prompt", 1, "--report-to", "tensorboard")
    assert result.code == 0, result.err
    read = EventAccumulator(str(run / "crce"))
    read.Reload()
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [event.step for event in read.Scalars("loss")] == [1, 2, 3]
    assert [event.value for event in read.Scalars("loss")] == pytest.approx([step["loss"] for step in steps])
    assert {"loss/target", "loss/coref", "loss/retain"} <= set(read.Tags()["scalars"])
    summary = json.loads((run / "report.json").read_text())["summary"]
    for name, own in summary.items():
        if own["value"] is not None:
            assert [event.value for event in read.Scalars(f"report/{name}")] == pytest.approx([own["value"]])
    (settings,) = (run / "crce").glob("*/hparams.yml")
    assert "learning_rate: 0.001" in settings.read_text()
    again = crce("erase", "--resume", run, "--report-to", "tensorboard")  # there is nothing left to do
    assert again.code == 0, again.err


def test_a_tracker_that_is_none_or_is_not_installed_is_refused_in_a_line(crce, monkeypatch):
    result = crce("erase", "cat", "--report-to", "tensorbord")
    assert (result.code, result.err.strip()) == (
        2,
        f"error: --report-to is 'tensorbord'. Use one of: {', '.join(TRACKERS)}.",
    )
    monkeypatch.setattr("crce.cli.trackers.find_spec", lambda name: None)
    result = crce("erase", "cat", "--report-to", "wandb")
    assert (result.code, result.err.strip()) == (
        2,
        "error: --report-to wandb needs the package wandb: pip install wandb",
    )
