"""Adapters for the tokens of the text alone, in layers that text and image share."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
import tiny_families
import torch
from torch import nn

from crce.backbones import Backbone, load_backbone
from crce.concepts import ConceptSet
from crce.errors import ConfigError, RunError
from crce.export import check, export
from crce.training import Trainer, apply_adapter, erase, load_config


TOKENS = 24  # of a prompt of FLUX
FEW = {"ddim_steps": 4, "pool": 2, "learning_rate": 0.02, "steps": 2, "corefs_per_step": 1, "retains_per_step": 1}


@pytest.fixture(scope="module", params=["flux_dev", "z_image"])
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """Families with shared layers; whoever puts an adapter on one takes it off again."""
    loaded = load_backbone(str(tiny_families.saved(request.param, tmp_path_factory.mktemp("family"))), device="cpu")
    if request.param == "flux_dev":
        loaded.pipe.default_sample_size, loaded.pipe.crce_tokens = 8, TOKENS
    return loaded


def predicted(backbone: Backbone) -> torch.Tensor:
    x_t = torch.randn(2, *backbone.latent_shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return backbone.predict(x_t, 500, backbone.encode(["cat", "a longer prompt, 3"]))


def answers(backbone: Backbone, pattern: str) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """By layer, its input and its output in one forward pass."""
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    layers = {
        path: layer
        for path, layer in backbone.network.named_modules()
        if re.fullmatch(pattern, path) and (isinstance(layer, nn.Linear) or hasattr(layer, "base_layer"))
    }
    hooks = [
        layer.register_forward_hook(lambda _, given, out, path=path: seen.update({path: (given[0], out)}))
        for path, layer in layers.items()
    ]
    predicted(backbone)
    for hook in hooks:
        hook.remove()
    assert seen.keys() == layers.keys()
    return seen


def test_text_and_image_pass_the_layers_that_are_said_to_be_theirs(backbone: Backbone):
    """By the number of tokens: text layers read those of the text, shared ones these and the image's."""
    text = {given.shape[1] if given.ndim == 3 else 0 for given, _ in answers(backbone, backbone.text_layers).values()}
    (shared,) = {given.shape[1] for given, _ in answers(backbone, backbone.shared_layers).values()}
    _, height, width = backbone.latent_shape
    padded = 32 if type(backbone.pipe).__name__ == "ZImagePipeline" else 1
    image = -(-(height // 2) * (width // 2) // padded) * padded
    assert text - {0} == {shared - image}  # 0: pooled states, or the prompts of a batch one after the other


def test_the_answers_to_image_tokens_stay_bit_for_bit(backbone: Backbone, cats: ConceptSet, tmp_path: Path):
    before = predicted(backbone)
    config = load_config("demo", FEW | {"layers": "qk", "text_tokens_only": True})
    run = erase(cats, config=config, backbone=backbone, out=tmp_path / "run")
    assert torch.equal(predicted(backbone), before)
    adapter = apply_adapter(backbone, run.adapter)
    kept = {path: out for path, (_, out) in answers(backbone, rf"({backbone.shared_layers})\.base_layer").items()}
    ours = {path: out for path, (_, out) in answers(backbone, backbone.shared_layers).items()}
    text = torch.zeros(next(iter(ours.values())).shape[1], dtype=torch.bool)
    text[slice(TOKENS) if "flux" in backbone.model else slice(32, None)] = True
    assert kept
    for path, base in kept.items():
        change = ours[path.removesuffix(".base_layer")] - base
        assert not change[:, ~text].any()
        assert change[:, text].any()
    assert not torch.equal(predicted(backbone), before)
    with adapter.disabled():
        assert torch.equal(predicted(backbone), before)
    adapter.close()
    assert torch.equal(predicted(backbone), before)
    for to in ("diffusers", "merged"):
        with pytest.raises(RunError, match="text's tokens alone .*it works in crce only"):
            export(run, to)
    assert check(run.adapter).readers == ["crce"]


def test_a_batch_in_parts_and_recomputed_activations_use_their_own_mask(backbone: Backbone, cats: ConceptSet):
    """The gradient is the same where the mask is needed again in the backward pass."""
    grads = []
    for more in ({}, {"micro_batch": 1, "gradient_checkpointing": True}):
        config = load_config("demo", FEW | {"layers": "kv", "text_tokens_only": True} | more)
        trainer = Trainer(backbone, [cats], config)
        trainer.step()
        grads.append([p.grad.clone() for p in trainer.adapter.parameters()])
        trainer.close()
    for whole, parts in zip(*grads, strict=True):
        torch.testing.assert_close(whole, parts, rtol=1e-3, atol=1e-6)


def test_shared_layers_warn_in_one_line(backbone: Backbone, cats: ConceptSet, caplog: pytest.LogCaptureFixture):
    shared = "to_k" if "flux" in backbone.model else None
    for settings, count in (({"layers": "text"}, 0), ({"layers": "kv", "target_modules": shared}, 1)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "crce.training"):
            Trainer(backbone, [cats], load_config("demo", FEW | settings)).close()
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == count
        assert all("--layers text or --text-tokens-only spares the image" in line for line in lines)


def test_a_mask_is_for_a_lora():
    with pytest.raises(ConfigError, match="text_tokens_only is for a LoRA, and adapter is 'weights'"):
        load_config("demo", {"text_tokens_only": True, "adapter": "weights"})
