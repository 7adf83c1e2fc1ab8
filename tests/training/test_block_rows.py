"""Closed forms that are solved in the second block of a flow transformer."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_families
import torch
from safetensors.torch import load_file

from crce.backbones import load_backbone
from crce.backbones.scopes import state_layers
from crce.concepts import ConceptSet, Related
from crce.errors import ConfigError
from crce.export import export
from crce.training import apply_adapter, erase, load_config
from crce.training.block_rows import PURE_NOISE, block_layers, watched
from crce.training.register import RegisterEvent, change_register


CATS = ConceptSet("cat", anchor="dog", corefs=(Related("mew", 1.0),), retains=(Related("ox", 1.0),))
WORDS = slice(4)  # three letters and what ends them
EXACT = {"deep": True, "everyday": 0.0, "state_guidance": 0.0}


@pytest.fixture(scope="module")
def flux(tmp_path_factory) -> Path:
    return tiny_families.saved("flux_dev", tmp_path_factory.mktemp("flux"))


def seen(backbone, seed: int) -> dict[str, torch.Tensor]:
    """What cat, mew, dog and ox are in the block, each of shape (4, L, D), with keys and values of the image."""
    x_t = torch.randn(1, *backbone.latent_shape, generator=torch.Generator().manual_seed(seed)).expand(4, -1, -1, -1)
    with torch.no_grad(), watched(backbone.network, backbone.solved_block) as found:
        backbone.predict(x_t, PURE_NOISE, backbone.encode(["cat", "mew", "dog", "ox"]), 3.0)
    return found


def test_the_block_returns_the_base_for_what_is_erased_and_keeps_the_retain(flux, tmp_path):
    backbone = load_backbone(str(flux), device="cpu")
    before = seen(backbone, 0)["returned"]
    config = load_config(None, {"method": "uce", "ridge": 1e-4, **EXACT})
    run = erase(CATS, config=config, backbone=backbone, out=tmp_path / "run")
    adapter = apply_adapter(backbone, run.adapter)
    states = state_layers(backbone.network, type(backbone))
    adapter.set_weights({path: weight for path, weight in adapter.base_weights().items() if path in states})
    after = seen(backbone, 0)["returned"]
    adapter.close()
    cat, mew, dog, ox = (each[WORDS] for each in before)
    for own, erased in zip((cat, mew), after, strict=False):
        assert (erased[WORDS] - dog).norm() < 0.3 * (own - dog).norm()
    assert (after[3][WORDS] - ox).norm() < 0.2 * (cat - dog).norm()
    assert torch.equal(seen(backbone, 0)["returned"], before)  # closed, it is the base model
    changed = {key.removeprefix("transformer.").rpartition(".")[0] for key in load_file(run.adapter)}
    assert changed == {*block_layers(backbone), *states}


def test_a_run_loads_the_whole_network_and_can_be_exported(flux, tmp_path):
    config = load_config(None, {"method": "uce", **EXACT})
    run = erase(CATS, config=config, model=str(flux), device="cpu", out=tmp_path / "run")
    again = erase(CATS, config=config, model=str(flux), device="cpu", out=tmp_path / "again")
    assert run.adapter.read_bytes() == again.adapter.read_bytes()
    assert export(run, "diffusers", out=tmp_path / "cat.safetensors")


def test_other_models_refuse_it_as_deletions_do(flux, tiny_backbone, tmp_path):
    config = load_config(None, {"method": "uce", "deep": True})
    with pytest.raises(ConfigError, match="deep is for FluxPipeline, and this model is a StableDiffusionPipeline"):
        erase(CATS, config=config, backbone=tiny_backbone, out=tmp_path / "run")
    event = RegisterEvent(target="cat", action="delete", concepts=CATS)
    with pytest.raises(ConfigError, match="uce with deep can't delete concepts one by one"):
        change_register(tmp_path / "register", [event], load_backbone(str(flux), device="cpu"), config)
