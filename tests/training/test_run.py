"""Run folders: the same seed gives the same run; stopped and cramped runs lose nothing (killed ones: tests/crash)."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from edited_run import edit_run
from safetensors import safe_open
from safetensors.torch import load_file

from crce.cli.main import main
from crce.concepts import ConceptSet, parse_concepts, read_concepts, write_concepts
from crce.errors import ConfigError, MemoryShortage, ModelError, RunError
from crce.training import Erasure, Finished, Saved, Started, Step, Trainer, apply_adapter, erase, load_config, resume


SETTINGS = {"steps": 8, "ddim_steps": 3, "pool": 2, "learning_rate": 1e-3, "checkpoint_every": 3}
SETTINGS |= {"corefs_per_step": 1, "retains_per_step": 1}
STOP = 5  # the step at which a run is disturbed: a checkpoint, some steps after it, and some left to do


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def same_weights(a: Path, b: Path) -> bool:
    one, two = load_file(a / "adapter.safetensors"), load_file(b / "adapter.safetensors")
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("every", [3, 1])
def test_training_stops_at_what_is_not_finite_and_keeps_the_last_good_checkpoint(tiny_backbone, cats, tmp_path, every):
    config = load_config("demo", {**SETTINGS, "checkpoint_every": every})

    def overflow(event):
        if isinstance(event, Step) and event.step == STOP:
            for weights in tiny_backbone.network.parameters():
                if weights.requires_grad:
                    weights.data.fill_(float("inf"))

    with pytest.raises(RunError, match=r"stopped at step \d+, at which .*checkpoint.safetensors is from before it"):
        erase(cats, config=config, backbone=tiny_backbone, out=tmp_path / "run", on_event=overflow)
    assert not (tmp_path / "run" / "adapter.safetensors").exists()
    kept = load_file(tmp_path / "run" / "checkpoint.safetensors")
    assert all(bool(tensor.isfinite().all()) for name, tensor in kept.items() if name.startswith("adapter."))
    assert all(math.isfinite(loss) for loss in losses(tmp_path / "run"))


def test_a_run_folder_tells_everything(tiny_backbone, tiny_folder, cats, tmp_path):
    events = []
    config = load_config("demo", SETTINGS)
    run = erase(cats, config=config, backbone=tiny_backbone, out=tmp_path / "run", on_event=events.append)
    kinds = [type(event) for event in events]
    assert kinds[0] is Started
    assert kinds[-1] is Finished
    assert kinds.count(Step) == 8
    assert kinds.count(Saved) == 2
    assert sorted(p.name for p in run.folder.iterdir()) == [
        ".lock",
        "adapter.safetensors",
        "concepts.yaml",
        "metrics.jsonl",
        "run.json",
    ]
    info = json.loads((run.folder / "run.json").read_text())
    assert info["status"] == "finished"
    assert info["model"] == str(tiny_folder)
    assert info["revision"] == tiny_backbone.revision
    assert info["steps_done"] == 8
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
    assert [row["step"] for row in rows] == list(range(1, 9))
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


@pytest.fixture(scope="module")
def undisturbed(tiny_folder, cats, tmp_path_factory) -> Path:
    """The run that the tests below disturb, when nothing happens to it."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    config = load_config("demo", SETTINGS)
    return erase(cats, config=config, model=str(tiny_folder), device="cpu", out=folder).folder


@pytest.fixture
def command(tiny_folder, cats, tmp_path) -> list[str]:
    """The same run at the command line."""
    write_concepts(tmp_path / "cats.yaml", cats)
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in SETTINGS.items()]
    files = [str(tmp_path / "cats.yaml"), "--model", str(tiny_folder), "--out", str(tmp_path / "run")]
    return ["erase", *files, "--no-eval", "--device", "cpu", "--config", "demo", *flags]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_saves_and_says_how_to_go_on(command, undisturbed, tmp_path, monkeypatch, capsys):
    folder, step = tmp_path / "run", Trainer.step

    def step_and_interrupt(trainer):
        done = step(trainer)
        if trainer.step_count == STOP:
            signal.raise_signal(signal.SIGINT)
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step_and_interrupt)
        code = main(command)
    out, err = capsys.readouterr()
    assert code == 130, err
    assert f"crce erase --resume {folder}" in err
    assert "Traceback" not in out + err
    info = json.loads((folder / "run.json").read_text())
    assert info["status"] == "interrupted"
    assert STOP <= info["steps_done"] == len(losses(folder)) < SETTINGS["steps"]
    resume(folder, device="cpu")
    assert same_weights(folder, undisturbed)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_a_write_that_fails_is_one_line_and_keeps_what_was_there(command, undisturbed, tmp_path, capsys):
    """The largest file that may be written is smaller than a checkpoint, as on a full disk."""
    import resource

    folder, (soft, hard) = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        code = main(command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    out, err = capsys.readouterr()
    assert code == 2, err
    assert "error: Cannot write" in err
    assert "Traceback" not in out + err
    assert not list(folder.glob("*.partial"))
    assert (folder / "run.json").exists()
    resume(folder, device="cpu")
    assert Erasure.load(folder).info["steps_done"] == SETTINGS["steps"]
    assert same_weights(folder, undisturbed)


def test_a_run_folder_is_never_overwritten_and_a_changed_model_is_not_continued(tiny_backbone, cats, tmp_path):
    config = load_config("demo", SETTINGS | {"steps": 1})
    run = erase(cats, config=config, backbone=tiny_backbone, out=tmp_path / "run")
    with pytest.raises(RunError, match="holds a run already"):
        erase(cats, config=config, backbone=tiny_backbone, out=run.folder)
    edit_run(run.folder, status="interrupted", revision="unet-sha256:0")
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
    edit_run(run.folder, status="interrupted")
    (run.folder / "checkpoint.safetensors").write_bytes(b"half a file")
    with pytest.raises(RunError, match="is damaged.*Delete it"):
        resume(run.folder, backbone=tiny_backbone)


def test_concept_ablation_with_erase_from_trains_the_target_towards_it(tiny_backbone, tmp_path):
    """`erase_from` is its anchor: answered like itself, nothing would be trained."""
    config = load_config("demo", {"method": "ablation", "steps": 2, "ddim_steps": 4, "pool": 1})
    run = erase(ConceptSet("cat", erase_from="pet"), config=config, backbone=tiny_backbone, out=tmp_path / "run")
    assert all(loss > 0 for loss in losses(run.folder))
    weights = load_file(run.folder / "adapter.safetensors")
    assert any(own.any() for name, own in weights.items() if "lora_B" in name)


@pytest.mark.parametrize("method", ["ablation", "uce"])
def test_a_training_that_changes_nothing_is_an_error(tiny_backbone, tmp_path, method):
    given = {"method": method, "steps": 2, "ddim_steps": 4, "pool": 1} if method == "ablation" else {}
    config = load_config("uce" if method == "uce" else "demo", given)
    with pytest.raises(RunError, match="has changed no weight"):
        erase(ConceptSet("cat", erase_from="cat"), config=config, backbone=tiny_backbone, out=tmp_path / "run")


def test_memory_that_runs_out_is_not_called_damage(tiny_backbone, cats, tmp_path, monkeypatch):
    def stop(event):
        if isinstance(event, Saved):
            raise RunError("stopped")

    config = load_config("demo", {"steps": 4, "ddim_steps": 3, "pool": 1, "checkpoint_every": 2, "layers": "kv"})
    with pytest.raises(RunError, match="stopped"):
        erase(cats, config=config, backbone=tiny_backbone, out=tmp_path / "run", on_event=stop)

    def full(*_):
        raise torch.OutOfMemoryError("full")

    with monkeypatch.context() as patch:
        patch.setattr("crce.training.trainer.Trainer.load_state", full)
        with pytest.raises(MemoryShortage):
            resume(tmp_path / "run", backbone=tiny_backbone)
    finished = resume(tmp_path / "run", backbone=tiny_backbone)
    monkeypatch.setattr("crce.training.adapters.LoRA.load", full)
    with pytest.raises(torch.OutOfMemoryError):
        apply_adapter(tiny_backbone, finished.adapter)


@pytest.mark.parametrize("settings", [{"quantize": "nf4"}, {"drop_t5": True}])
def test_a_model_that_is_loaded_otherwise_is_refused(tiny_backbone, cats, tmp_path, settings):
    with pytest.raises(ConfigError, match=f"{next(iter(settings))} is .* the given model was loaded with"):
        erase(cats, config=load_config("demo", settings), backbone=tiny_backbone, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
