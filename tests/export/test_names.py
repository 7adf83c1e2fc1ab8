"""Layers outside a Stable Diffusion 1.x UNet: text encoders, SDXL, transformers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny
import torch
import xl
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from runs import latents, make_hand_written
from torch import nn

from crce.backbones import backbone_class
from crce.export import check, export
from crce.export.layers import read_adapter
from crce.export.names import kohya_name, read_file
from crce.export.pipeline import merge
from crce.files import read_tensors, write_tensors


CLOSE = {"rtol": 1e-3, "atol": 2e-4}
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


def linear_layers(pipe, component: str, *ends: str) -> list[str]:
    """The linear layers of a component whose path ends so."""
    named = getattr(pipe, component).named_modules()
    return [f"{component}.{path}" for path, m in named if isinstance(m, nn.Linear) and path.endswith(ends)]


@pytest.mark.parametrize("form", ["diffusers", "kohya"])
def test_a_lora_on_the_text_encoder_is_loaded_with_its_scale(tmp_path, tiny_folder, cats, form):
    pipe = tiny.pipeline(tmp_path / "parts")
    layers = linear_layers(pipe, "unet", "attn2.to_k") + linear_layers(pipe, "text_encoder", *TEXT)
    erasure = make_hand_written(tmp_path, str(tiny_folder), (cats,), pipe, layers, rank=4, alpha=2.0)
    done = export(erasure, form)
    state, _ = read_tensors(done.path)
    assert any(key.startswith("lora_te_text_model_encoder_layers_0_self_attn_q_proj.") for key in state) == (
        form == "kohya"
    )
    merged = StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None)
    before = latents(merged)
    merge(merged, read_adapter(erasure.adapter))
    loaded = StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None)
    loaded.load_lora_weights(done.path)
    assert (latents(merged) - before).abs().max() > 0.05
    torch.testing.assert_close(latents(loaded), latents(merged), **CLOSE)
    assert check(done.path, against=erasure).comparison.passed


@pytest.mark.parametrize("form", ["diffusers", "kohya"])
def test_whole_weights_of_a_text_encoder_become_a_lora_on_it(run, drawn, tiny_folder, form):
    erasure = run(method="advunlearn", adapter="weights", layers="text")
    done = export(erasure, form)
    loaded = StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None)
    loaded.load_lora_weights(done.path)
    torch.testing.assert_close(latents(loaded), drawn(erasure), rtol=1e-2, atol=2e-3)
    assert not check(done.path, against=erasure).faults
    merged = StableDiffusionPipeline.from_pretrained(export(erasure, "merged").path)
    torch.testing.assert_close(latents(merged), drawn(erasure), **CLOSE)


@pytest.mark.parametrize("form", ["diffusers", "kohya"])
def test_sdxl_loras_are_loaded_with_their_scale(tmp_path, cats, form):
    pipe = xl.pipeline(tmp_path / "parts")
    pipe.save_pretrained(tmp_path / "model")
    layers = linear_layers(pipe, "unet", "attn2.to_k", "attn2.to_v", "attn2.to_out.0")
    # all of them: diffusers reads no kohya file with a text encoder of which out_proj is left out
    layers += linear_layers(pipe, "text_encoder", *TEXT) + linear_layers(pipe, "text_encoder_2", *TEXT)
    layers += ["unet.down_blocks.1.resnets.0.conv1", "unet.up_blocks.0.upsamplers.0.conv"]
    erasure = make_hand_written(tmp_path, str(tmp_path / "model"), (cats,), pipe, layers, rank=4, alpha=1.0)
    done = export(erasure, form)
    before = latents(pipe)
    merge(pipe, read_adapter(erasure.adapter))
    loaded = StableDiffusionXLPipeline.from_pretrained(tmp_path / "model", add_watermarker=False)
    loaded.load_lora_weights(done.path)
    assert (latents(pipe) - before).abs().max() > 0.05
    torch.testing.assert_close(latents(loaded), latents(pipe), **CLOSE)
    assert check(done.path, against=erasure).comparison.passed
    state, metadata = read_tensors(done.path)
    assert metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert metadata["ss_base_model_version"] == "sdxl_base_v1-0"
    if form == "kohya":
        prefixes = {key.split("_")[1] for key in state}
        assert prefixes == {"unet", "te1", "te2"}


@pytest.mark.parametrize("form", ["diffusers", "kohya"])
def test_a_transformer_gets_the_keys_that_programs_map(tmp_path, cats, form):
    block = nn.ModuleDict({"attn": nn.ModuleDict({"to_q": nn.Linear(8, 8)})})
    pipe = SimpleNamespace(transformer=nn.ModuleDict({"transformer_blocks": nn.ModuleList([block])}))
    layers = ["transformer.transformer_blocks.0.attn.to_q"]
    erasure = make_hand_written(tmp_path, "user/flux", (cats,), pipe, layers, rank=4, alpha=1.0)
    done = export(erasure, form)
    state, _ = read_tensors(done.path)
    trained, _ = read_tensors(erasure.adapter)
    down, up = (f"transformer.transformer_blocks.0.attn.to_q.lora_{x}.weight" for x in "AB")
    assert set(state) == {down, up}
    # ComfyUI knows no alpha of these keys: the scale must be in the weights
    torch.testing.assert_close(state[up] @ state[down], 1.0 / 4 * trained[up] @ trained[down])
    assert bool(done.notes) == (form == "kohya")
    found = check(done.path, against=erasure)
    assert found.readers == ["diffusers", "ComfyUI"]
    assert not found.faults


def test_names_of_kohya():
    sd, sdxl = (backbone_class(f"StableDiffusion{name}Pipeline").kohya for name in ("", "XL"))
    name = "unet.up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_out.0"
    assert kohya_name(name, sd) == "lora_unet_up_blocks_1_attentions_2_transformer_blocks_0_attn2_to_out_0"
    # transformers before 5.6 has text_model in the path
    for path in ("encoder.layers.3.mlp.fc1", "text_model.encoder.layers.3.mlp.fc1"):
        end = "_text_model_encoder_layers_3_mlp_fc1"
        assert kohya_name(f"text_encoder.{path}", sd) == f"lora_te{end}"
        assert kohya_name(f"text_encoder.{path}", sdxl) == f"lora_te1{end}"
        assert kohya_name(f"text_encoder_2.{path}", sdxl) == f"lora_te2{end}"


def test_components_are_known_from_kohya_names(tmp_path):
    names = ["lora_unet_conv_in", "lora_te_a", "lora_te1_b", "lora_te2_c", "lora_te3_d"]
    tensors = {f"{name}.lora_down.weight": torch.ones(1, 1) for name in names}
    write_tensors(tmp_path / "file.safetensors", tensors, {})
    components = read_file(tmp_path / "file.safetensors").components
    assert sorted(components) == sorted(["unet", "text_encoder", "text_encoder_2", "lora_te3_d"])
