"""What loads, and how what can't be loaded is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from diffusers import UNet2DConditionModel

from crce.backbones import load_backbone
from crce.errors import ConfigError, ModelError


def test_a_folder_loads_frozen_and_pinned(tiny_folder: Path):
    backbone = load_backbone(str(tiny_folder), device="cpu")
    assert backbone.model == str(tiny_folder)
    assert backbone.revision.startswith("unet-sha256:")
    assert not any(p.requires_grad for p in backbone.network.parameters())
    assert backbone.latent_shape == (4, 8, 8)
    assert backbone.dtype == torch.float32


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_ddim_grid_keeps_the_models_prediction_type(tmp_path, prediction_type):
    tiny.pipeline(tmp_path / "parts", prediction_type).save_pretrained(tmp_path / "model")
    grid = load_backbone(str(tmp_path / "model"), device="cpu").ddim(10)
    assert grid.config.prediction_type == prediction_type
    assert len(grid.timesteps) == 10


def test_predict_equals_the_network_and_encode_equals_the_pipeline(tiny_backbone):
    hidden = tiny_backbone.encode(["", "a cat"])
    expected, null = tiny_backbone.pipe.encode_prompt(["a cat"], "cpu", 1, True)
    torch.testing.assert_close(hidden, torch.cat([null, expected]))
    x_t = torch.randn(2, 4, 8, 8)
    out = tiny_backbone.predict(x_t, 500, hidden)
    assert torch.equal(out, tiny_backbone.network(x_t, 500, encoder_hidden_states=hidden).sample)


@pytest.mark.parametrize("name", ["StableDiffusionXLPipeline", "FluxPipeline", "StableDiffusion3Pipeline"])
def test_other_families_are_refused_by_name(tmp_path, name):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    with pytest.raises(ModelError, match=f"is a {name}. crce erases from StableDiffusionPipeline"):
        load_backbone(str(tmp_path))


def test_an_inpainting_model_is_refused(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "model")
    unet = UNet2DConditionModel.from_config(tmp_path / "model" / "unet", in_channels=9)
    unet.save_pretrained(tmp_path / "model" / "unet")
    with pytest.raises(ModelError, match="takes 9 input channels.*inpainting"):
        load_backbone(str(tmp_path / "model"))


def test_a_missing_path_a_folder_without_a_pipeline_and_a_pickle_are_refused(tmp_path):
    with pytest.raises(ModelError, match="There is no model at"):
        load_backbone(str(tmp_path / "none"))
    with pytest.raises(ModelError, match=r"no model_index\.json"):
        load_backbone(str(tmp_path))
    (tmp_path / "model.ckpt").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"not a \.safetensors file"):
        load_backbone(str(tmp_path / "model.ckpt"))


def test_a_damaged_model_is_one_clear_error(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "model")
    weights = tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="Cannot load the model"):
        load_backbone(str(tmp_path / "model"))
    (tmp_path / "one.safetensors").write_bytes(b"not a model")
    with pytest.raises(ModelError, match="Cannot load the model"):
        load_backbone(str(tmp_path / "one.safetensors"))


def test_unknown_device_and_dtype_say_what_is_allowed(tiny_folder):
    with pytest.raises(ConfigError, match="device is 'gpu'.*Use auto, or cpu"):
        load_backbone(str(tiny_folder), device="gpu")
    with pytest.raises(ConfigError, match="dtype is 'fp16'.*float16"):
        load_backbone(str(tiny_folder), dtype="fp16")


@pytest.mark.network
def test_a_hub_model_that_is_not_there():
    with pytest.raises(ModelError, match="Cannot load the model 'crce/none'"):
        load_backbone("crce/none")
