"""What loads, and how what can't be loaded is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import diffusers
import pytest
import tiny
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from crce.backbones import Backbone, load_backbone
from crce.backbones.families import FAMILIES, backbone_class, supported
from crce.backbones.loading import pick_dtype, single_file_pipeline
from crce.errors import ConfigError, ModelError


def test_a_folder_loads_frozen_and_pinned(tiny_folder: Path):
    backbone = load_backbone(str(tiny_folder), device="cpu")
    assert backbone.model == str(tiny_folder)
    assert backbone.revision.startswith("unet-sha256:")
    assert not any(p.requires_grad for p in backbone.network.parameters())
    assert backbone.latent_shape == (4, 8, 8)
    assert backbone.dtype == torch.float32


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_grid_keeps_the_models_prediction_type_and_clips_nothing(tmp_path, prediction_type):
    tiny.pipeline(tmp_path / "parts", prediction_type).save_pretrained(tmp_path / "model")
    backbone = load_backbone(str(tmp_path / "model"), device="cpu")
    grid = backbone.grid(10)
    assert len(grid.timesteps) == 10
    x_t, out, position = torch.full((1, 4, 8, 8), 30.0), torch.full((1, 4, 8, 8), 0.5), 6
    scheduler = backbone.pipe.scheduler
    before, after = (scheduler.alphas_cumprod[int(grid.timesteps[position + i])] for i in (0, 1))
    a, s = before.sqrt(), (1 - before).sqrt()
    x_0, eps = (
        (a * x_t - s * out, a * out + s * x_t) if prediction_type == "v_prediction" else ((x_t - s * out) / a, out)
    )
    torch.testing.assert_close(grid.step(out, position, x_t), after.sqrt() * x_0 + (1 - after).sqrt() * eps)


def test_predict_equals_the_network_and_encode_equals_the_pipeline(tiny_backbone):
    cond = tiny_backbone.encode(["", "a cat"])
    expected, null = tiny_backbone.pipe.encode_prompt(["a cat"], "cpu", 1, True)
    torch.testing.assert_close(cond.hidden, torch.cat([null, expected]))
    x_t = torch.randn(2, 4, 8, 8)
    out = tiny_backbone.predict(x_t, 500, cond)
    assert torch.equal(out, tiny_backbone.network(x_t, 500, encoder_hidden_states=cond.hidden).sample)


@pytest.mark.parametrize("name", ["StableDiffusionInpaintPipeline", "FluxFillPipeline", "QwenImageEditPipeline"])
def test_other_pipelines_are_refused_by_name_with_all_that_is_supported(tmp_path, name):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    with pytest.raises(ModelError, match=f"is a {name}. crce erases from StableDiffusionPipeline") as refused:
        load_backbone(str(tmp_path))
    assert all(family in str(refused.value) for family in FAMILIES)


def test_every_family_names_a_backbone_whose_pipeline_diffusers_has():
    for name in FAMILIES:
        assert hasattr(diffusers, name)
        assert issubclass(backbone_class(name), Backbone)
        assert backbone_class(name).models in supported()


def test_half_the_bits_are_those_of_the_family():
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    halves = {name: pick_dtype("auto", gpu, backbone_class(name).half) for name in FAMILIES}
    assert {name for name, half in halves.items() if half == torch.float16} == {
        "StableDiffusionPipeline",
        "StableDiffusionXLPipeline",
    }
    assert pick_dtype("auto", gpu) == torch.bfloat16  # a transformer may overflow in float16
    assert pick_dtype("auto", cpu, torch.float16) == torch.float32
    assert pick_dtype("float16", gpu, torch.bfloat16) == torch.float16


@pytest.mark.parametrize(
    ("tensors", "pipeline"),
    [
        ({"model.diffusion_model.output_blocks.11.0.skip_connection.weight": (4, 4)}, "StableDiffusionPipeline"),
        (
            {"model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": (4, 1024)},
            "StableDiffusionPipeline",
        ),
        (
            {"conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias": (4,)},
            "StableDiffusionXLPipeline",
        ),
        (
            {
                "model.diffusion_model.joint_blocks.0.context_block.adaLN_modulation.1.bias": (9216,),
                "model.diffusion_model.pos_embed": (1, 36864, 1),
            },
            "StableDiffusion3Pipeline",
        ),
        ({"double_blocks.0.img_attn.norm.key_norm.scale": (4,)}, "FluxPipeline"),
        ({"layers.0.adaLN_modulation.0.weight": (4, 4)}, "ZImagePipeline"),
    ],
)
def test_single_files_are_told_apart_by_their_tensors(tmp_path, tensors, pipeline):
    path = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, path)
    assert single_file_pipeline(path) == pipeline


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"model.diffusion_model.input_blocks.0.0.weight": (4, 9, 1, 1)}, "single file of kind inpainting"),
        ({"edm_mean": (4,)}, "single file of kind playground-v2-5"),
        ({"lora_unet_mid.lora_down.weight": (4, 4)}, "file without a denoiser that diffusers knows"),
    ],
)
def test_other_single_files_are_refused_before_they_are_read(tmp_path, tensors, reason):
    path = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, path)
    with pytest.raises(ModelError, match=f"is a {reason}. crce erases from"):
        load_backbone(str(path))


def test_a_scheduler_with_other_noise_levels_is_refused(tiny_folder, tmp_path):
    pipe = load_backbone(str(tiny_folder), device="cpu").pipe
    pipe.scheduler = diffusers.EDMEulerScheduler()
    pipe.save_pretrained(tmp_path / "edm")
    with pytest.raises(ModelError, match="scheduler is EDMEulerScheduler.*DDIMScheduler"):
        load_backbone(str(tmp_path / "edm"))


def test_a_consistency_model_is_refused(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "model")
    unet = UNet2DConditionModel.from_config(tmp_path / "model" / "unet", time_cond_proj_dim=8)
    unet.save_pretrained(tmp_path / "model" / "unet")
    with pytest.raises(ModelError, match="consistency model"):
        load_backbone(str(tmp_path / "model"))


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


def test_a_model_is_found_with_the_revision_that_it_loads_with(tiny_folder, tiny_backbone, demo_backbone):
    from crce.backbones.loading import find_model

    assert find_model(str(tiny_folder)) == ("StableDiffusionPipeline", tiny_backbone.revision)
    assert find_model("demo") == ("StableDiffusionPipeline", demo_backbone.revision)
    with pytest.raises(ModelError, match="no model at"):
        find_model("./nowhere")
