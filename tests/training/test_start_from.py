"""A run may start from an earlier one's weights; its teacher stays the base model."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from edited_run import edit_run
from safetensors.torch import load_file

from crce.errors import RunError
from crce.training import Erasure, Interrupted, Step, Trainer, apply_adapter, erase, load_config, resume
from crce.training.run_folder import file_hash


SETTINGS = {"steps": 4, "ddim_steps": 4, "pool": 2, "learning_rate": 1e-3, "checkpoint_every": 2}
KINDS = [("lora", "kv"), ("weights", "qk")]


def config(**overrides):
    return load_config("demo", SETTINGS | overrides)


@pytest.fixture
def first(tiny_backbone, cats, tmp_path) -> Erasure:
    return erase(cats, config=config(), backbone=tiny_backbone, out=tmp_path / "first")


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(("adapter", "layers"), KINDS)
def test_the_student_starts_from_the_earlier_weights_and_the_teacher_is_the_base(
    tiny_backbone, cats, tmp_path, adapter, layers
):
    settings = config(adapter=adapter, layers=layers, learning_rate=1e-2)
    earlier = erase(cats, config=settings, backbone=tiny_backbone, out=tmp_path / "one")
    seen = []

    x_t = torch.randn(1, *tiny_backbone.latent_shape, generator=torch.Generator().manual_seed(1))
    hidden = tiny_backbone.encode(["cat"])
    with torch.no_grad():
        base = tiny_backbone.predict(x_t, 300, hidden)
    on_it = apply_adapter(tiny_backbone, earlier.adapter)
    with torch.no_grad():
        erased = tiny_backbone.predict(x_t, 300, hidden)
    on_it.close()
    assert not torch.equal(base, erased)

    class Spy(Trainer):
        def step(self):
            if self.step_count == 0:
                seen.append(self.adapter.state())
                with torch.no_grad():
                    seen.append(self.backbone.predict(x_t, 300, hidden))
                    with self.adapter.disabled():
                        seen.append(self.backbone.predict(x_t, 300, hidden))
            return super().step()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crce.training.run.Trainer", Spy)
        later = erase(cats, config=settings, backbone=tiny_backbone, out=tmp_path / "two", start_from=earlier.folder)
    assert same(seen[0], load_file(earlier.adapter))
    torch.testing.assert_close(seen[1], erased, rtol=1e-4, atol=1e-5)  # merged, and as a LoRA
    assert torch.equal(seen[2], base)
    assert not same(load_file(earlier.adapter), load_file(later.adapter))


def test_run_json_names_the_earlier_run(first, tiny_backbone, cats, tmp_path):
    assert first.info["start_from"] is None
    later = erase(cats, config=config(), backbone=tiny_backbone, out=tmp_path / "two", start_from=str(first.folder))
    recorded = json.loads((later.folder / "run.json").read_text())["start_from"]
    assert recorded == {"run": str(first.folder.resolve()), "adapter": file_hash(first.adapter)}


@pytest.mark.parametrize("stop_at", [1, 3])
def test_a_stopped_run_ends_with_the_same_weights(first, tiny_backbone, cats, tmp_path, stop_at):
    """With a checkpoint (3) and killed before the first one (1)."""
    whole = erase(cats, config=config(), backbone=tiny_backbone, out=tmp_path / "whole", start_from=first.folder)

    class Killed(Exception):
        pass

    def kill(event):
        if isinstance(event, Step) and event.step == stop_at:
            raise Killed

    with pytest.raises(Killed):
        erase(
            cats,
            config=config(),
            backbone=tiny_backbone,
            out=tmp_path / "stopped",
            start_from=first.folder,
            on_event=kill,
        )
    assert (tmp_path / "stopped" / "checkpoint.safetensors").exists() == (stop_at == 3)
    if stop_at == 3:
        shutil.rmtree(first.folder)  # no longer needed once there is a checkpoint
    again = resume(tmp_path / "stopped", backbone=tiny_backbone)
    assert same(load_file(again.adapter), load_file(whole.adapter))


def test_a_run_that_cannot_be_started_from_is_refused_before_anything_is_written(first, tiny_backbone, cats, tmp_path):
    def start(settings, run=first.folder):
        erase(cats, config=settings, backbone=tiny_backbone, out=tmp_path / "two", start_from=run)

    with pytest.raises(RunError, match="it has layers noxattn, these settings layers qk. Use the same"):
        start(config(layers="qk"))
    with pytest.raises(RunError, match="rank 16, lora_alpha 16, these settings rank 8, lora_alpha 8"):
        start(config(rank=8))
    with pytest.raises(RunError, match="it has adapter lora, these settings adapter weights"):
        start(config(adapter="weights"))
    with pytest.raises(RunError, match="is not a run folder"):
        start(config(), tmp_path / "none")
    edit_run(first.folder, status="interrupted")
    with pytest.raises(RunError, match="interrupted, not finished"):
        start(config())
    edit_run(first.folder, status="finished", revision="unet-sha256:0")
    with pytest.raises(RunError, match="Its weights fit the model they were trained on"):
        start(config())
    assert not (tmp_path / "two").exists()


def test_rank_does_not_matter_where_the_weights_themselves_are_trained(tiny_backbone, cats, tmp_path):
    earlier = erase(cats, config=config(adapter="weights"), backbone=tiny_backbone, out=tmp_path / "one")
    settings = config(adapter="weights", rank=2)
    later = erase(cats, config=settings, backbone=tiny_backbone, out=tmp_path / "two", start_from=earlier.folder)
    assert later.info["status"] == "finished"


def test_an_earlier_run_that_changed_meanwhile_is_not_continued_from(first, tiny_backbone, cats, tmp_path):
    def stop(event):
        raise Interrupted(tmp_path, 0)

    with pytest.raises(Interrupted):
        erase(
            cats,
            config=config(),
            backbone=tiny_backbone,
            out=tmp_path / "two",
            start_from=first.folder,
            on_event=stop,
        )
    first.adapter.write_bytes(b"other weights")
    with pytest.raises(RunError, match="has changed since .*two began from it"):
        resume(tmp_path / "two", backbone=tiny_backbone)
    first.adapter.unlink()
    with pytest.raises(RunError, match="Cannot read .*adapter.safetensors"):
        resume(tmp_path / "two", backbone=tiny_backbone)


def test_damaged_weights_are_named(first, tiny_backbone, cats, tmp_path):
    first.adapter.write_bytes(b"half a file")
    edit_run(first.folder)
    with pytest.raises(RunError, match="Can't start from .*adapter.safetensors"):
        erase(cats, config=config(), backbone=tiny_backbone, out=tmp_path / "two", start_from=first.folder)
