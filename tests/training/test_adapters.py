"""Adapters: off is the base bit for bit, training moves all of them and nothing else, files read back."""

from __future__ import annotations

import shutil

import pytest
import tiny
import torch
from diffusers import StableDiffusionPipeline

from crce.backbones import load_backbone
from crce.backbones.unet import UNetBackbone
from crce.errors import RunError
from crce.files import write_tensors
from crce.sampling import draw
from crce.training import Trainer, apply_adapter, erase, load_config
from crce.training.adapters import Weights


FAST = {"steps": 3, "ddim_steps": 4, "pool": 2, "learning_rate": 1e-2, "x_t_source": "rolling"}
KINDS = [("lora", "kv"), ("lora", "full"), ("weights", "qk"), ("weights", "noxattn")]


def outputs(backbone: UNetBackbone) -> torch.Tensor:
    x_t = torch.randn(2, *backbone.latent_shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return backbone.predict(x_t, 300, backbone.encode(["cat", "dog"]))


def trained(backbone: UNetBackbone, cats, **overrides) -> Trainer:
    trainer = Trainer(backbone, [cats], load_config("demo", FAST | overrides))
    for _ in range(3):
        trainer.step()
    return trainer


@pytest.mark.parametrize(("adapter", "layers"), KINDS)
def test_training_moves_every_trained_parameter_and_nothing_else(tiny_backbone, cats, adapter, layers):
    before = outputs(tiny_backbone)
    first = {n: p.detach().clone() for n, p in tiny_backbone.network.named_parameters()}
    trainer = Trainer(tiny_backbone, [cats], load_config("demo", FAST | {"adapter": adapter, "layers": layers}))
    start = [p.detach().clone() for p in trainer.adapter.parameters()]
    assert torch.equal(outputs(tiny_backbone), before)  # a new adapter changes nothing
    for _ in range(3):
        trainer.step()
    assert all(not torch.equal(a, b) for a, b in zip(start, trainer.adapter.parameters(), strict=True))
    assert not torch.equal(outputs(tiny_backbone), before)
    with trainer.adapter.disabled():
        assert torch.equal(outputs(tiny_backbone), before)
    changed = outputs(tiny_backbone)
    assert not torch.equal(changed, before)
    trainer.adapter.close()
    assert torch.equal(outputs(tiny_backbone), before)
    after = dict(tiny_backbone.network.named_parameters())
    assert after.keys() == first.keys()
    assert all(torch.equal(first[n], after[n]) and not after[n].requires_grad for n in first)


@pytest.mark.parametrize(("adapter", "layers"), KINDS)
def test_a_saved_adapter_reads_back(tiny_folder, tiny_backbone, cats, tmp_path, adapter, layers):
    trainer = trained(tiny_backbone, cats, adapter=adapter, layers=layers)
    write_tensors(tmp_path / "a.safetensors", trainer.adapter.state(), trainer.adapter.metadata())
    other = load_backbone(str(tiny_folder), device="cpu")
    before = outputs(other)
    again = apply_adapter(other, tmp_path / "a.safetensors")
    assert isinstance(again, Weights)  # a LoRA is merged, and then one product takes the place of three
    torch.testing.assert_close(outputs(other), outputs(tiny_backbone), rtol=1e-4, atol=1e-5)
    assert not any("lora" in path for path, _ in other.network.named_modules())
    assert not any(p.requires_grad for p in other.network.parameters())
    if adapter == "weights":
        assert torch.equal(outputs(other), outputs(tiny_backbone))
    with again.disabled():
        assert torch.equal(outputs(other), before)


@pytest.mark.parametrize("lora_alpha", [None, 2.0])
def test_diffusers_reads_a_lora_with_its_true_scale(tiny_folder, tiny_backbone, cats, tmp_path, lora_alpha):
    trainer = trained(tiny_backbone, cats, rank=8, lora_alpha=lora_alpha)
    write_tensors(tmp_path / "a.safetensors", trainer.adapter.state(), trainer.adapter.metadata())
    pipe = StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None, requires_safety_checker=False)
    pipe.load_lora_weights(tmp_path / "a.safetensors")
    torch.testing.assert_close(outputs(UNetBackbone(pipe, "again")), outputs(tiny_backbone))


def test_lora_scale_is_alpha_over_rank(tiny_folder, cats):
    changes = []
    for lora_alpha in (8.0, 4.0):
        backbone = load_backbone(str(tiny_folder), device="cpu")
        config = load_config("demo", FAST | {"rank": 8, "lora_alpha": lora_alpha, "layers": "kv"})
        trainer = Trainer(backbone, [cats], config)
        path = next(n for n, m in backbone.network.named_modules() if n.endswith("attn2.to_v"))
        layer = backbone.network.get_submodule(path)
        with torch.no_grad():
            layer.lora_B["crce"].weight.fill_(0.5)
        x = torch.ones(1, layer.in_features)
        changed = layer(x)
        with trainer.adapter.disabled():
            changes.append(changed - layer(x))
    torch.testing.assert_close(changes[0], 2 * changes[1])


def test_files_that_are_no_adapter_of_this_model_are_refused(tiny_backbone, cats, tmp_path):
    with pytest.raises(RunError, match="Cannot read the adapter"):
        apply_adapter(tiny_backbone, tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    with pytest.raises(RunError, match="Cannot read the adapter"):
        apply_adapter(tiny_backbone, tmp_path / "bad.safetensors")
    write_tensors(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, {"format": "pt"})
    with pytest.raises(RunError, match="not an adapter written by crce"):
        apply_adapter(tiny_backbone, tmp_path / "other.safetensors")
    for kind in ("lora", "weights"):
        trainer = trained(tiny_backbone, cats, adapter=kind, layers="kv")
        write_tensors(tmp_path / f"{kind}.safetensors", trainer.adapter.state(), trainer.adapter.metadata())
        trainer.adapter.close()
        pipe = tiny.pipeline(tmp_path / kind)
        pipe.unet = type(pipe.unet).from_config(pipe.unet.config, cross_attention_dim=48)
        wide = UNetBackbone(pipe, "wide")
        names = [n for n, _ in wide.network.named_modules()]
        with pytest.raises(RunError, match="does not fit the model 'wide'"):
            apply_adapter(wide, tmp_path / f"{kind}.safetensors")
        assert [n for n, _ in wide.network.named_modules()] == names  # nothing of it was left behind
        shutil.rmtree(tmp_path / kind)


@pytest.mark.parametrize("method", ["uce", "advunlearn", "esd"])
def test_in_half_precision_whole_weights_draw_as_a_lora_does(tiny_folder, tmp_path, cats, method):
    half = load_backbone(str(tiny_folder), device="cpu", dtype="bfloat16")
    few = {"ddim_steps": 4, "pool": 1, "steps": 1} if method != "uce" else {}
    few |= {"attack_steps": 1} if method == "advunlearn" else {}
    run = erase(cats, config=load_config(None, {"method": method, **few}), backbone=half, out=tmp_path / "run")
    adapter = apply_adapter(half, run.adapter)
    assert None not in draw(half.pipe, ["cat", "dog"], [0, 1], steps=2)
    adapter.close()
