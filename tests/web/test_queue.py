"""The queue: real processes, and servers that come and go."""

from __future__ import annotations

import os
import re
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import short_run

from crce.cli.flags import flag_words
from crce.concepts import write_concepts
from crce.errors import ConfigError, RunError
from crce.training import Erasure
from crce.web.job import process_file
from crce.web.queue import LONGEST, Queue
from crce.web.runs import Runs
from crce.web.sampler import Sampler, Wanted
from crce.web.site import continued


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path, tmp_path / "home")


@pytest.fixture
def queue(tmp_path: Path, runs: Runs) -> Queue:
    return new_queue(tmp_path, runs)


def new_queue(root: Path, runs: Runs) -> Queue:
    """A queue as a server that starts opens it."""
    return Queue(root / "jobs", lambda job: continued(runs, job))


def wait(queue: Queue, until: Callable[[], bool], seconds: float = 120) -> None:
    """Work until something holds."""
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, [(job.title, job.state, queue.log(job)) for job in queue.jobs()]
        time.sleep(0.05)
        queue.step()


def states(queue: Queue) -> dict[str, str]:
    return {job.title: job.state for job in queue.jobs()}


def test_jobs_run_one_after_the_other_and_leave_their_output(queue):
    queue.add("good", ["ls", "--kind", "style"], "a")
    queue.add("bad", ["show", "no such concept"], "b")
    queue.step()
    assert states(queue) == {"good": "running", "bad": "queued"}
    wait(queue, lambda: states(queue) == {"good": "finished", "bad": "failed"})
    bad, good = queue.jobs()
    assert "Van Gogh" in queue.log(good)
    assert queue.error(bad)
    assert good.ended <= bad.started


def test_a_run_has_one_job_at_a_time_and_the_queue_is_bounded(queue, monkeypatch):
    monkeypatch.setattr(queue, "_start", lambda job: None)
    queue.add("first", ["ls"], "a")
    with pytest.raises(ConfigError, match="works on a too"):
        queue.add("second", ["ls"], "a")
    for number in range(LONGEST - 1):
        queue.add("more", ["ls"], f"run-{number}")
    with pytest.raises(ConfigError, match="Cancel one"):
        queue.add("one too many", ["ls"], "z")
    queue.ask(1, "cancel")
    assert queue.of_run("a").state == "cancelled"
    with pytest.raises(ConfigError, match="no job 99"):
        queue.ask(99, "pause")


def test_a_job_that_is_paused_before_its_process_is_there_does_not_begin(queue):
    queue.add("list", ["ls"], "a")
    queue.step()
    queue.ask(1, "pause")
    wait(queue, lambda: not queue.of_run("a").active)
    assert queue.of_run("a").state == "paused"
    queue.ask(1, "resume")
    wait(queue, lambda: queue.of_run("a").state == "finished")


@pytest.fixture
def erasing(tmp_path: Path, queue: Queue) -> Iterator[Queue]:
    """A queue whose job trains, with a thousand steps to go."""
    write_concepts(tmp_path / "cat" / "concepts.yaml", short_run.SET)
    settings, run = {**short_run.SETTINGS, "steps": 1000, "checkpoint_every": 100}, str(tmp_path / "cat")
    queue.add("Erase cat", ["erase", f"{run}/concepts.yaml", "--out", run, "--no-eval", *flag_words(settings)], "cat")
    wait(queue, lambda: lines(tmp_path) > 2)
    yield queue
    if queue.of_run("cat").active:
        queue.ask(1, "cancel")
        wait(queue, lambda: not queue.of_run("cat").active)


def lines(root: Path) -> int:
    """Steps that the run has done."""
    metrics = root / "cat" / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.is_file() else 0


def test_a_job_outlives_its_server_and_is_paused_resumed_and_killed(tmp_path, runs, erasing):
    # another server opens the folder: it finds the job running, and starts it no second time
    again = new_queue(tmp_path, runs)
    done = lines(tmp_path)
    wait(again, lambda: lines(tmp_path) > done)
    assert again.of_run("cat").state == "running"
    assert again.of_run("cat").attempt == 1

    again.ask(1, "pause")
    wait(again, lambda: again.of_run("cat").state == "paused")
    stopped = lines(tmp_path)
    assert (tmp_path / "cat" / "checkpoint.safetensors").is_file()

    again.ask(1, "resume")
    arguments = again.of_run("cat").arguments
    assert arguments[:2] == ["erase", "--resume"]
    assert ("--eval" in arguments) != ("--no-eval" in arguments)
    wait(again, lambda: lines(tmp_path) > stopped)  # goes on after the step where it was paused
    process = int(process_file(tmp_path / "jobs" / "0001", 2).read_text())
    os.kill(process, signal.SIGKILL)
    wait(again, lambda: again.of_run("cat").state == "stopped")
    assert again.of_run("cat").resumable

    third = new_queue(tmp_path, runs)
    third.ask(1, "cancel")
    assert third.of_run("cat").state == "cancelled"
    with pytest.raises(Exception, match="Continue it"):
        Erasure.load(tmp_path / "cat")


def test_a_full_disk_fails_the_job_and_loses_nothing(tmp_path, queue):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, hard))  # of a file, for the process of the job too
    try:
        queue.add("Suggest", ["suggest", "walrus", "--force", "--out", str(tmp_path / "walrus.yaml")], "cat")
        wait(queue, lambda: not queue.of_run("cat").active)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    job = queue.of_run("cat")
    assert job.state == "failed"
    assert "Cannot write" in queue.error(job)
    queue.ask(job.number, "resume")
    wait(queue, lambda: not queue.of_run("cat").active)
    assert queue.of_run("cat").state == "finished"
    assert (tmp_path / "walrus.suggest.json").is_file()


def test_a_run_has_the_job_that_works_on_it(queue, monkeypatch):
    monkeypatch.setattr(queue, "_start", lambda job: None)
    first = queue.add("erase", ["ls"], "cat")
    queue.ask(first.number, "pause")
    second = queue.add("measure", ["ls"], "cat")
    queue.ask(second.number, "cancel")
    queue.ask(first.number, "resume")
    assert queue.of_run("cat").number == first.number


def test_a_damaged_record_is_an_error_of_the_pages_and_does_not_end_the_queue(queue, tmp_path):
    job = queue.add("good", ["ls", "--kind", "style"], "a")
    record = tmp_path / "jobs" / "0001" / "job.json"
    whole = record.read_bytes()
    record.write_bytes(b"[")
    worker = threading.Thread(target=queue.work, daemon=True)
    worker.start()
    with pytest.raises(RunError, match=re.escape(f"Cannot read {record}")):
        queue.jobs()
    time.sleep(1)
    assert worker.is_alive()
    record.write_bytes(whole)
    deadline = time.monotonic() + 60
    while queue.of_run(job.run).state != "finished":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    queue.close()


def test_a_process_that_cannot_be_started_does_not_end_the_queue(queue, monkeypatch):
    def fails(*args, **kwargs):
        raise OSError("no memory")

    monkeypatch.setattr("crce.web.queue.subprocess.Popen", fails)
    queue.add("good", ["ls"], "a")
    worker = threading.Thread(target=queue.work, daemon=True)
    worker.start()
    time.sleep(1)
    assert worker.is_alive()
    queue.close()


def test_a_damaged_record_does_not_end_the_thread_that_draws(tmp_path):
    def busy():
        raise RunError("Cannot read job.json")

    sampler = Sampler(tmp_path / "images", busy)
    sampler.ask(Wanted("cat", "demo"))
    worker = threading.Thread(target=sampler.work, daemon=True)
    worker.start()
    time.sleep(1.5)
    assert worker.is_alive()
    sampler.close()
