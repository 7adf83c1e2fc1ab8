"""One erasure in two processes: this one is process 0, and one beside it computes every second row."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import crce as package
from crce.cli.main import main
from crce.concepts import ConceptSet, Related
from crce.errors import RunError
from crce.training import Saved, erase, load_config, processes, resume


FAST = {"steps": 4, "ddim_steps": 6, "pool": 2, "learning_rate": 1e-3, "checkpoint_every": 2, "layers": "kv"}
CATS = ConceptSet(
    "cat",
    corefs=(Related("kitty"), Related("tabby", 0.6)),
    retains=(Related("dog"), Related("fox", 0.8), Related("wolf", 0.5)),
)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The environment of process 0, and the process beside it, which runs the command too."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    source = {"PYTHONPATH": str(Path(package.__file__).parents[1]), "RANK": "1"}
    command = [sys.executable, "-m", "crce", "erase", "cat"]
    folder = tmp_path_factory.mktemp("other")
    process = subprocess.Popen(command, env=os.environ | own | source, cwd=folder, stderr=subprocess.PIPE, text=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (own | {"RANK": "0"}).items():
            patch.setenv(name, value)
        yield process
        process.kill()
        process.wait()


@pytest.fixture
def together(other):
    """Inside, runs are shared with the process beside this one."""
    if not torch.distributed.is_initialized():
        processes.begin()


def stop(event):
    if isinstance(event, Saved):
        raise RunError("stopped")


def same(a: Path, b: Path) -> None:
    one, two = load_file(a / "adapter.safetensors"), load_file(b / "adapter.safetensors")
    assert one.keys() == two.keys()
    for name, own in one.items():
        torch.testing.assert_close(own, two[name], rtol=0, atol=1e-5)
    lines = [[json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()] for run in (a, b)]
    assert len(lines[0]) == FAST["steps"]
    for alone, shared in zip(*lines, strict=True):
        for name in ("loss", "target", "coref", "retain", "timestep"):
            assert shared[name] == pytest.approx(alone[name], abs=1e-5)


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"gradient_surgery": True, "micro_batch": 1, "harden": 1},
        {"method": "ablation", "crce": False},
        {"method": "gem", "early_steps": 2, "x_t_source": "student"},
        {"method": "advunlearn", "layers": "text", "adapter": "weights", "attack_steps": 1},
    ],
    ids=["esd", "surgery, hardened", "a single row", "several places", "text"],
)
def test_two_processes_learn_as_one(tiny_backbone, together, tmp_path, monkeypatch, own):
    config = load_config("demo", FAST | own)
    shared = erase(CATS, config=config, backbone=tiny_backbone, out=tmp_path / "shared")
    monkeypatch.setattr(processes, "share", lambda: None)
    alone = erase(CATS, config=config, backbone=tiny_backbone, out=tmp_path / "alone")
    same(alone.folder, shared.folder)


def test_a_run_goes_on_in_another_number_of_processes(tiny_backbone, together, tmp_path, monkeypatch):
    config = load_config("demo", FAST)
    for name in ("one", "two", "whole"):
        with monkeypatch.context() as patch:
            if name != "two":
                patch.setattr(processes, "share", lambda: None)
            if name == "whole":
                erase(CATS, config=config, backbone=tiny_backbone, out=tmp_path / name)
                continue
            with pytest.raises(RunError, match="stopped"):
                erase(CATS, config=config, backbone=tiny_backbone, out=tmp_path / name, on_event=stop)
    with monkeypatch.context() as patch:
        patch.setattr(processes, "share", lambda: None)
        resume(tmp_path / "two", backbone=tiny_backbone)
    same(tmp_path / "whole", tmp_path / "two")
    resume(tmp_path / "one", backbone=tiny_backbone)
    same(tmp_path / "whole", tmp_path / "one")


def test_other_commands_are_refused(other, monkeypatch, capsys):
    assert main(["ls"]) == 2
    assert main(["erase", "cat", "--each"]) == 2
    assert capsys.readouterr().err.count("which share the steps of one crce erase") == 2


def test_the_other_process_ends_when_the_command_ends(other, together):
    processes.send(None)
    torch.distributed.destroy_process_group()
    assert other.wait(60) == 0, other.stderr.read()
