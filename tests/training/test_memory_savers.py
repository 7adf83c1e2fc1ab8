"""The settings that spare memory change nothing else, and running out of it says what helps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_families
import torch

from crce.backbones import Backbone, load_backbone
from crce.errors import ConfigError, MemoryShortage
from crce.training import Trainer, erase, load_config, resume


FAMILIES = ["sd1", "sdxl", "sd3", "flux_dev", "flux2_klein", "qwen_image", "z_image"]
FEW = {"ddim_steps": 4, "pool": 2, "learning_rate": 1e-3, "steps": 3, "corefs_per_step": 2, "retains_per_step": 1}
FEW |= {"layers": "xattn", "rank": 4}


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_families.saved(request.param, tmp_path_factory.mktemp("family"))


def load(folder: Path) -> Backbone:
    backbone = load_backbone(str(folder), device="cpu")
    if folder.name.startswith(("flux", "qwen")):
        backbone.pipe.default_sample_size = 8  # their pipelines know 128 only
    return backbone


class Trained:
    """Two steps: their losses, the gradients of the first, and the adapter after the second."""

    def __init__(self, backbone: Backbone, cats, **settings) -> None:
        trainer = Trainer(backbone, [cats], load_config("demo", FEW | settings))
        self.losses = [trainer.step().loss]
        self.gradients = [p.grad.clone() for p in trainer.adapter.parameters()]
        self.losses.append(trainer.step().loss)
        self.state = trainer.adapter.state()
        trainer.close()

    def agrees(self, other: Trained) -> None:
        assert self.losses == pytest.approx(other.losses, rel=1e-5)
        for name, tensor in other.state.items():
            torch.testing.assert_close(self.state[name], tensor, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def known() -> dict[str, Trained]:
    return {}


@pytest.fixture
def plain(folder: Path, cats, known: dict[str, Trained]) -> Trained:
    """A LoRA of this family, without what spares memory; trained once."""
    if folder.name not in known:
        known[folder.name] = Trained(load(folder), cats)
    return known[folder.name]


@pytest.mark.parametrize(
    ("folder", "adapter"),
    [*((name, "lora") for name in FAMILIES), ("sd1", "weights"), ("flux_dev", "weights")],
    indirect=["folder"],
)
def test_gradient_checkpointing_changes_no_gradient_and_no_step(folder, plain, cats, monkeypatch, adapter):
    own = plain if adapter == "lora" else Trained(load(folder), cats, adapter=adapter)
    backbone, calls = load(folder), []
    monkeypatch.setattr(
        "torch.utils.checkpoint.checkpoint",
        lambda part, *args, _own=torch.utils.checkpoint.checkpoint, **kwargs: (
            calls.append(backbone.network.training) or _own(part, *args, **kwargs)
        ),
    )
    again = Trained(backbone, cats, adapter=adapter, gradient_checkpointing=True)
    assert calls  # parts were computed again,
    assert not any(calls)  # in evaluation mode: dropout is off
    again.agrees(own)
    for gradient, same in zip(own.gradients, again.gradients, strict=True):
        torch.testing.assert_close(same, gradient, rtol=1e-5, atol=1e-5 * float(gradient.abs().max()))
    assert not backbone.network.is_gradient_checkpointing


def test_networks_that_take_turns_train_alike(folder, plain, cats):
    """Moved from the CPU to itself: the calls that move networks are there, under the same adapter and gradients."""
    backbone = load(folder)
    backbone.offload(torch.device("cpu"))
    networks = [part for part in backbone.pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert all(hasattr(network, "_hf_hook") for network in networks)
    # Weights that were moved may lie in memory otherwise, and then other kernels multiply them: not the same bits.
    Trained(backbone, cats).agrees(plain)


def test_offload_changes_nothing_on_a_cpu(tiny_folder, cats, tmp_path):
    backbone = load_backbone(str(tiny_folder), device="cpu", offload=True)
    assert not hasattr(backbone.network, "_hf_hook")
    runs = [
        erase(
            cats,
            config=load_config("demo", FEW | settings),
            model=str(tiny_folder),
            device="cpu",
            out=tmp_path / str(len(settings)),
        )
        for settings in ({}, {"offload": True, "gradient_checkpointing": True})
    ]
    assert runs[1].config.offload
    assert runs[1].config.gradient_checkpointing
    own, again = (
        [json.loads(line)["loss"] for line in (run.folder / "metrics.jsonl").read_text().splitlines()] for run in runs
    )
    assert again == pytest.approx(own, rel=1e-5)


def test_offload_is_for_a_lora():
    with pytest.raises(ConfigError, match="offload moves networks whole, and adapter is 'weights'"):
        load_config("demo", {"offload": True, "adapter": "weights"})


def test_the_last_shortage_of_memory_names_what_helps(tiny_backbone, cats, tmp_path, monkeypatch):
    sizes = []

    def short(x_t, t, cond):
        if not torch.is_grad_enabled():
            return x_t
        sizes.append(len(x_t))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(tiny_backbone, "predict", short)
    config = load_config("demo", FEW)
    with pytest.raises(MemoryShortage) as caught:
        erase(cats, config=config, backbone=tiny_backbone, out=tmp_path / "run")
    assert sizes == [4, 2, 1]
    message = str(caught.value)
    assert "\n" not in message
    for help_ in ("--micro-batch 1", "--gradient-checkpointing", "--offload", "crce plan"):
        assert help_ in message
    monkeypatch.undo()
    assert resume(tmp_path / "run", backbone=tiny_backbone).info["status"] == "finished"


def test_a_shortage_before_the_first_step_is_told_too(tiny_backbone, cats, tmp_path, monkeypatch):
    def short(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(tiny_backbone, "encode", short)
    with pytest.raises(MemoryShortage, match="--offload"):
        erase(cats, config=load_config("demo", FEW), backbone=tiny_backbone, out=tmp_path / "run")
