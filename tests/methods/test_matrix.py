"""Every method on every family: what it supports it trains, and nothing else; what it does not is refused early."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import tiny_families
import torch

from crce.backbones import load_backbone
from crce.backbones.families import FAMILIES
from crce.errors import ConfigError
from crce.methods import METHODS
from crce.methods.table import refuse_unsupported, support
from crce.training import Trainer, erase, hardening, load_config
from crce.training.closed_form_trainer import ClosedFormTrainer
from crce.training.text_trainer import TextTrainer


ALL = list(METHODS)
SOLVED = [name for name in METHODS if METHODS[name].solved]
FEW = {"ddim_steps": 4, "pool": 1, "learning_rate": 1e-3, "guidance": 2.0, "rank": 2}
FEW |= {"corefs_per_step": 1, "retains_per_step": 1}


# The others have the denoiser of one of these, and another guidance or fewer text encoders.
LIKE_OTHERS = ("sd3_without_t5", "flux_schnell", "flux2_klein_distilled")
FAMILIES_APART = [name for name in tiny_families.BUILDERS if name not in LIKE_OTHERS]


@pytest.fixture(scope="module", params=FAMILIES_APART)
def folder(request, tmp_path_factory) -> Path:
    return tiny_families.saved(request.param, tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
def backbone(folder):
    loaded = load_backbone(str(folder), device="cpu")
    if type(loaded.pipe).__name__ in ("FluxPipeline", "Flux2KleinPipeline", "QwenImagePipeline"):
        loaded.pipe.default_sample_size = 8  # their pipelines know 128 only
    return loaded


def parameters(backbone) -> dict[str, torch.Tensor]:
    parts = ((name, part) for name, part in backbone.pipe.components.items() if isinstance(part, torch.nn.Module))
    return {f"{name}.{path}": p for name, part in parts for path, p in part.named_parameters()}


@pytest.mark.parametrize("method", ALL)
def test_what_is_supported_is_trained_and_nothing_else(backbone, cats, method, monkeypatch):
    if support(method, type(backbone.pipe).__name__).level == "refused":
        with pytest.raises(ConfigError, match="Use one of: esd, "):
            erase(cats, config=load_config(None, {"method": method}), backbone=backbone, out="never")
        assert not Path("never").exists()
        return
    before = {name: p.detach().clone() for name, p in parameters(backbone).items()}
    monkeypatch.setattr(hardening, "SEARCH_STEPS", 2)
    own = {"advunlearn": {"attack_steps": 1}, "esd": {"harden": 1}}
    settings = {} if method in SOLVED else FEW | {"steps": 2} | own.get(method, {})
    config = load_config(None, {"method": method, **settings})
    kind = ClosedFormTrainer if method in SOLVED else TextTrainer if METHODS[method].trains_text else Trainer
    trainer = kind(backbone, [cats], config)
    start = [p.detach().clone() for p in trainer.adapter.parameters()]
    losses = [trainer.step().loss for _ in range(config.steps)]
    assert all(math.isfinite(loss) for loss in losses)
    trained = trainer.adapter.parameters()
    biases = [p.ndim == 1 for p in trained] if method in SOLVED else [False] * len(trained)
    still = [torch.equal(p, s) for p, s in zip(trained, start, strict=True)]
    assert still == biases  # a closed form leaves biases alone
    trainer.close()
    after = parameters(backbone)
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


@pytest.mark.parametrize("pipeline", FAMILIES)
def test_an_unsupported_pair_is_refused_before_weights_are_read(pipeline, tmp_path, cats):
    (tmp_path / "model_index.json").write_text(f'{{"_class_name": "{pipeline}"}}')  # there are no weights
    refused = [method for method in ALL if support(method, pipeline).level == "refused"]
    assert refused == ([] if pipeline == "StableDiffusionPipeline" else ["advunlearn"])
    for method in refused:
        with pytest.raises(ConfigError, match=rf"^{method} .* and (of )?{pipeline} .*Use one of: "):
            erase(cats, config=load_config(None, {"method": method}), model=str(tmp_path), out=tmp_path / "run")
        assert not (tmp_path / "run").exists()
    for method in set(ALL) - set(refused):
        refuse_unsupported(method, pipeline)
