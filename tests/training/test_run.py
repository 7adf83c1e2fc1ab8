"""Run folders: the same seed gives the same run; killed, stopped and cramped runs lose nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from crce.concepts import parse_concepts, read_concepts, write_concepts
from crce.errors import ModelError, RunError
from crce.training import Erasure, Finished, Saved, Started, Step, erase, load_config, resume


LONG = {"steps": 50, "checkpoint_every": 10}
SETTINGS = {"steps": 12, "ddim_steps": 4, "pool": 2, "learning_rate": 1e-3, "checkpoint_every": 5}


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def same_weights(a: Path, b: Path) -> bool:
    one, two = load_file(a / "adapter.safetensors"), load_file(b / "adapter.safetensors")
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_a_run_folder_tells_everything(tiny_backbone, tiny_folder, cats, tmp_path):
    events = []
    config = load_config("demo", SETTINGS)
    run = erase(cats, config=config, backbone=tiny_backbone, out=tmp_path / "run", on_event=events.append)
    kinds = [type(event) for event in events]
    assert kinds[0] is Started
    assert kinds[-1] is Finished
    assert kinds.count(Step) == 12
    assert kinds.count(Saved) == 2
    assert sorted(p.name for p in run.folder.iterdir()) == [
        "adapter.safetensors",
        "concepts.yaml",
        "metrics.jsonl",
        "run.json",
    ]
    info = json.loads((run.folder / "run.json").read_text())
    assert info["status"] == "finished"
    assert info["model"] == str(tiny_folder)
    assert info["revision"] == tiny_backbone.revision
    assert info["steps_done"] == 12
    assert info["config"] == config.model_dump(mode="json")
    assert info["seconds"]["train"] > 0
    assert info["peak_memory_mb"] > 0
    assert {"torch", "diffusers", "peft"} <= info["versions"].keys()
    assert read_concepts(run.folder / "concepts.yaml") == cats
    with safe_open(run.adapter, "pt") as f:
        metadata = f.metadata()
    assert metadata["base_model"] == str(tiny_folder)
    assert parse_concepts(metadata["concepts"], "metadata") == cats
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert all(row["loss"] == pytest.approx(row["target"] + row["coref"] + row["retain"]) for row in rows)
    again = Erasure.load(run.folder)
    assert (again.concepts, again.config) == (cats, config)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tiny_backbone, cats, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(time.time_ns() % 1000)  # the global generator must not matter
        erase(cats, config=load_config("demo", SETTINGS | {"seed": seed}), backbone=tiny_backbone, out=tmp_path / name)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert same_weights(tmp_path / "a", tmp_path / "b")
    assert losses(tmp_path / "a") != losses(tmp_path / "c")
    assert not same_weights(tmp_path / "a", tmp_path / "c")


class Command:
    """`crce erase` in a process of its own."""

    def __init__(self, model: Path, concepts: Path, folder: Path, **settings) -> None:
        flags = [f"--{k.replace('_', '-')}={v}" for k, v in (SETTINGS | settings).items()]
        self.concepts, self.folder = concepts, folder
        self.base = [sys.executable, "-m", "crce"]
        self.arguments = ["erase", str(concepts), "--model", str(model), "--out", str(folder), "--no-eval", *flags]
        self.arguments += ["--config", "demo"]

    def start(self, *arguments: str, preexec: Callable[[], None] | None = None) -> subprocess.Popen[str]:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(sys.path),
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
        }
        return subprocess.Popen(
            [*self.base, *(arguments or self.arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            preexec_fn=preexec,
        )

    def wait_for_steps(self, process: subprocess.Popen[str], steps: int) -> None:
        metrics = self.folder / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while not (metrics.exists() and len(metrics.read_text().splitlines()) >= steps):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture
def command(tiny_folder, cats, tmp_path) -> Command:
    write_concepts(tmp_path / "cats.yaml", cats)
    return Command(tiny_folder, tmp_path / "cats.yaml", tmp_path / "run", **LONG)


@pytest.fixture(scope="module")
def undisturbed(tiny_folder, cats, tmp_path_factory) -> Path:
    """The run that `command` makes when nothing happens to it."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    config = load_config("demo", SETTINGS | LONG)
    return erase(cats, config=config, model=str(tiny_folder), device="cpu", out=folder).folder


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_run_ends_with_the_weights_of_one_never_killed(command, undisturbed):
    process = command.start()
    command.wait_for_steps(process, 25)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (command.folder / "adapter.safetensors").exists()
    with pytest.raises(RunError, match="not finished"):
        Erasure.load(command.folder)
    resume(command.folder, device="cpu")
    assert same_weights(command.folder, undisturbed)
    assert losses(command.folder) == losses(undisturbed)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_saves_and_says_how_to_go_on(command, undisturbed):
    process = command.start()
    command.wait_for_steps(process, 15)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert f"crce erase --resume {command.folder}" in output
    assert "Traceback" not in output
    info = json.loads((command.folder / "run.json").read_text())
    assert info["status"] == "interrupted"
    assert info["steps_done"] == len(losses(command.folder)) < LONG["steps"]
    resume(command.folder, device="cpu")
    assert same_weights(command.folder, undisturbed)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_a_write_that_fails_is_one_line_and_keeps_what_was_there(command, tiny_folder):
    """The largest file that may be written is smaller than a checkpoint, as on a full disk."""
    import resource

    command = Command(tiny_folder, command.concepts, command.folder)  # with few steps

    def cramped() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    process = command.start(preexec=cramped)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 2, output
    assert "error: Cannot write" in output
    assert "Traceback" not in output
    assert not list(command.folder.glob("*.partial"))
    assert (command.folder / "run.json").exists()
    resume(command.folder, device="cpu")
    assert Erasure.load(command.folder).info["steps_done"] == SETTINGS["steps"]


def test_a_run_folder_is_never_overwritten_and_a_changed_model_is_not_continued(tiny_backbone, cats, tmp_path):
    config = load_config("demo", SETTINGS | {"steps": 1})
    run = erase(cats, config=config, backbone=tiny_backbone, out=tmp_path / "run")
    with pytest.raises(RunError, match="holds a run already"):
        erase(cats, config=config, backbone=tiny_backbone, out=run.folder)
    info = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps(info | {"status": "interrupted", "revision": "unet-sha256:0"}))
    with pytest.raises(RunError, match="has changed since"):
        resume(run.folder)
    with pytest.raises(RunError, match="is not a run folder"):
        resume(tmp_path)
    with pytest.raises(ModelError, match="There is no model at"):
        erase(cats, config=config, model=str(tmp_path / "none"), out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_damaged_checkpoint_says_what_to_do(tiny_backbone, cats, tmp_path):
    config = load_config("demo", SETTINGS | {"steps": 1})
    run = erase(cats, config=config, backbone=tiny_backbone, out=tmp_path / "run")
    info = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps(info | {"status": "interrupted"}))
    (run.folder / "checkpoint.safetensors").write_bytes(b"half a file")
    with pytest.raises(RunError, match="is damaged.*Delete it"):
        resume(run.folder, backbone=tiny_backbone)
