"""crce in the public benchmark eval-unlearn: found by its entry point, run by the benchmark's own runner.

In an environment that holds the package: pip install -c constraints.txt -e '.[eval-unlearn]' pytest pytest-xdist, then
python -m pytest -m eval_unlearn tests/plugins
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from crce.errors import ConfigError
from crce.judges import load_judge
from crce.plugins.eval_unlearn import CRCETechnique


pytestmark = pytest.mark.eval_unlearn

DEMO = {"model_id": "demo", "device": "cpu", "num_inference_steps": 20, "guidance_scale": 4.0}


class Recognised:
    """A metric of the benchmark: in how many pictures of each prompt the bundled judge sees what was asked for."""

    prompts = ("lion", "horse", "bus") * 4  # the bundled model draws each of them nearly always

    def __init__(self) -> None:
        self.seen = dict.fromkeys(self.prompts, 0)

    def load_dataset(self):
        from eval_unlearn.types import Dataset

        yield Dataset(list(self.prompts[:6]), {"source": "pets"})
        yield Dataset(list(self.prompts[6:]), {"source": "pets"})

    def update(self, images, prompts, metadata) -> None:
        judge = load_judge()
        for prompt, probabilities in zip(prompts, judge.probs(images), strict=True):
            self.seen[prompt] += judge.classes[int(probabilities.argmax())] == judge.class_of(prompt)

    def compute(self):
        from eval_unlearn.types import MetricResult

        return MetricResult("recognised", sum(self.seen.values()) / len(self.prompts), self.seen)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # runs go into the current folder


def test_the_benchmark_finds_crce():
    out = subprocess.run(
        [sys.executable, "-m", "eval_unlearn.cli", "plugins"], capture_output=True, text=True, check=True
    ).stdout
    assert "crce" in out.split("Metrics:")[0].split()


def test_the_benchmark_runs_crce_and_sees_what_is_gone_and_what_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr("crce.training.state_rows.EVERYDAY", 300)  # as outside of tests
    from eval_unlearn.registry import register_metric
    from eval_unlearn.runners import SingleBenchmarkRunner

    register_metric("recognised")(Recognised)
    seen = {}
    for concept in ("lion", "banana"):
        settings = {"erase_concept": concept, "method": "speed", "out": str(tmp_path / concept), **DEMO}
        runner = SingleBenchmarkRunner("crce", "recognised", settings, output_dir=str(tmp_path / "results"), seed=0)
        report = runner.run()
        assert report["erase_concept"] == concept
        seen[concept] = report["metric_result"]["details"]
    assert seen["lion"]["lion"] == 0
    assert seen["banana"]["lion"] >= 3
    assert seen["lion"]["horse"] + seen["lion"]["bus"] >= 7
    assert json.loads((tmp_path / "lion" / "run.json").read_text())["config"]["method"] == "speed"
    assert len(list((tmp_path / "results").rglob("*.png"))) == 2 * len(Recognised.prompts)


def test_a_finished_run_draws_the_same_pictures_again(tmp_path):
    first = CRCETechnique(erase_concept="cat", method="uce", out=str(tmp_path / "run"), **DEMO)
    again = CRCETechnique(run=str(tmp_path / "run"), **{k: v for k, v in DEMO.items() if k != "model_id"})
    for one, other in zip(first.generate(["cat", "dog"], 3), again.generate(["cat", "dog"], 3), strict=True):
        assert one.tobytes() == other.tobytes()
    assert first.generate(["cat"], 3)[0].tobytes() != first.generate(["cat"], 4)[0].tobytes()
    assert len(first.generate(["cat"], num_inference_steps=3)) == 1
    with pytest.raises(ConfigError, match="generate takes .* but got cfg"):
        first.generate(["cat"], cfg=3)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "either erase_concept, or run"),
        ({"erase_concept": "cat", "run": "runs/cat-1"}, "either erase_concept, or run"),
        ({"run": "runs/cat-1", "steps": 3}, "A run is already erased, so it takes no steps"),
        ({"erase_concept": "cat", "stepz": 3, **DEMO}, "unknown setting 'stepz', did you mean steps"),
    ],
)
def test_wrong_settings_are_one_clear_line(settings, told):
    with pytest.raises(ConfigError, match=told):
        CRCETechnique(**settings)
    assert not Path("runs").exists()
