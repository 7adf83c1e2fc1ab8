"""A benchmark on a local Ray cluster, one of whose processes is killed while it works."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import pytest

from crce.bench import CellFinished, run_bench


pytestmark = pytest.mark.ray

CELLS = """
concepts: [cat, dog, car, bird]
methods:
  - {method: esd, steps: 60, checkpoint_every: 10, pool: 2, ddim_steps: 6, layers: kv}
  - uce
crce: [false]
"""


def tries(job):
    path = job.folder / "attempts.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def cluster():
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=3, num_gpus=0, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def test_a_killed_process_loses_nothing_and_nothing_is_measured_twice(cluster, tiny_plan, tmp_path):
    plan = tiny_plan(CELLS)
    victims = []

    def kill_one_that_trains():
        end = time.monotonic() + 600
        while not victims and time.monotonic() < end:
            for job in plan.jobs:
                if (job.folder / "checkpoint.safetensors").exists() and (made := tries(job)):
                    victims.append((job, made[0]["pid"]))
                    os.kill(made[0]["pid"], signal.SIGKILL)
                    return
            time.sleep(0.005)

    killer = threading.Thread(target=kill_one_that_trains)
    killer.start()
    told = []
    made = run_bench(plan, out=tmp_path / "out", ray=True, on_event=told.append)
    killer.join()

    ((victim, pid),) = victims
    assert made.failed == []
    assert len(made.data["rows"]) == len(plan.jobs) == 8
    assert sorted(event.done for event in told if isinstance(event, CellFinished)) == list(range(1, 9))
    counts = {job.key: len(tries(job)) for job in plan.jobs}
    assert counts.pop(victim.key) == 2
    assert set(counts.values()) == {1}
    assert tries(victim)[0]["pid"] == pid != tries(victim)[1]["pid"]
    assert len({attempt["pid"] for job in plan.jobs for attempt in tries(job)}) >= 3  # side by side
    steps = [json.loads(line)["step"] for line in (victim.folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 61))

    again = run_bench(plan, out=tmp_path / "again", ray=True)
    assert again.data == made.data
    assert {job.key: len(tries(job)) for job in plan.jobs} == {victim.key: 2, **counts}


def test_a_cell_that_fails_is_not_retried_by_ray(cluster, tiny_plan, tmp_path):
    plan = tiny_plan("concepts: [cat, dog]\nmethods: [uce]\n")
    plan.jobs[0].folder.parent.mkdir(parents=True)
    plan.jobs[0].folder.write_text("in the way")
    made = run_bench(plan, out=tmp_path / "out", ray=True)
    assert [failure["concept"] for failure in made.failed] == ["cat"]
    assert [row["concept"] for row in made.data["rows"]] == ["dog"]
