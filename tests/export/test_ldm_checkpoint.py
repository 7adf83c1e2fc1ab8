"""A single file in the original layout is read back by diffusers, tensor by tensor."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
import xl
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from runs import latents, same_weights

from crce.errors import ModelError
from crce.export import check, export
from crce.export.layers import read_adapter
from crce.export.ldm_checkpoint import ldm_state
from crce.export.pipeline import base_pipeline, merge
from crce.files import read_tensors, write_tensors


CLOSE = {"rtol": 1e-3, "atol": 2e-4}


def read_back(path: Path, config: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_single_file(
        path, config=str(config), safety_checker=None, local_files_only=True
    )


@pytest.mark.parametrize("settings", [{"rank": 4, "lora_alpha": 1.0}, {"adapter": "weights"}], ids=["lora", "weights"])
@pytest.mark.parametrize("kind", ["1.x", "2.x"])
def test_a_single_file_is_the_erased_model(run, drawn, tiny_folder, v_folder, kind, settings):
    folder = {"1.x": tiny_folder, "2.x": v_folder}[kind]
    erasure = run(model=folder, **settings)
    done = export(erasure, "single-file")
    erased = base_pipeline(erasure)
    merge(erased, read_adapter(erasure.adapter))
    again = read_back(done.path, folder)
    for part in ("unet", "vae", "text_encoder"):
        same_weights(getattr(again, part), getattr(erased, part))
    torch.testing.assert_close(latents(again), drawn(erasure), **CLOSE)
    assert bool(done.notes) == (kind == "2.x")  # one that predicts v needs a word
    state, metadata = read_tensors(done.path)
    open_clip = "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight" in state
    assert open_clip == (kind == "2.x")
    assert metadata["concepts"].startswith("target: cat")
    assert not check(done.path, against=erasure).faults


def test_names_are_those_of_the_original_code(tmp_path):
    """Some names of Stable Diffusion 1.x, whose UNet has four levels of two layers."""
    unet = UNet2DConditionModel(
        block_out_channels=(8, 8, 8, 8), cross_attention_dim=8, attention_head_dim=2, norm_num_groups=4, sample_size=8
    )
    pipe = tiny.pipeline(tmp_path)
    pipe.unet = unet
    state, mine = ldm_state(pipe), unet.state_dict()
    names = {
        "conv_in.weight": "input_blocks.0.0.weight",
        "down_blocks.0.resnets.0.conv1.weight": "input_blocks.1.0.in_layers.2.weight",
        "down_blocks.0.attentions.1.proj_in.weight": "input_blocks.2.1.proj_in.weight",
        "down_blocks.0.downsamplers.0.conv.bias": "input_blocks.3.0.op.bias",
        "down_blocks.3.resnets.1.time_emb_proj.weight": "input_blocks.11.0.emb_layers.1.weight",
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight": (
            "middle_block.1.transformer_blocks.0.attn2.to_k.weight"
        ),
        "mid_block.resnets.1.norm2.weight": "middle_block.2.out_layers.0.weight",
        "up_blocks.0.upsamplers.0.conv.weight": "output_blocks.2.1.conv.weight",
        "up_blocks.1.attentions.2.norm.weight": "output_blocks.5.1.norm.weight",
        "up_blocks.1.upsamplers.0.conv.weight": "output_blocks.5.2.conv.weight",
        "up_blocks.3.resnets.2.conv_shortcut.weight": "output_blocks.11.0.skip_connection.weight",
        "time_embedding.linear_2.weight": "time_embed.2.weight",
        "conv_norm_out.bias": "out.0.bias",
    }
    for diffusers, original in names.items():
        assert torch.equal(state[f"model.diffusion_model.{original}"], mine[diffusers]), original
    back = convert_ldm_unet_checkpoint(state, unet.config)
    assert back.keys() == mine.keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in mine.items())
    for name in ("encoder.mid.attn_1.q.weight", "decoder.mid.attn_1.proj_out.weight"):
        assert state[f"first_stage_model.{name}"].ndim == 4  # 1x1 convolutions, as the original code has them
    assert "first_stage_model.decoder.up.1.upsample.conv.weight" in state
    assert "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight" in state


def test_sdxl_is_read_back_tensor_by_tensor(tmp_path):
    pipe = xl.pipeline(tmp_path / "parts")
    pipe.save_pretrained(tmp_path / "model")
    write_tensors(tmp_path / "xl.safetensors", ldm_state(pipe), {})
    again = StableDiffusionXLPipeline.from_single_file(
        tmp_path / "xl.safetensors", config=str(tmp_path / "model"), local_files_only=True
    )
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        same_weights(getattr(again, part), getattr(pipe, part))
    state = ldm_state(pipe)
    assert torch.equal(state["model.diffusion_model.label_emb.0.0.weight"], pipe.unet.add_embedding.linear_1.weight)
    assert torch.equal(
        state["conditioner.embedders.1.model.text_projection"], pipe.text_encoder_2.text_projection.weight.T
    )
    # where an up block attends, its upsampler comes third
    assert {
        "model.diffusion_model.output_blocks.2.2.conv.weight",
        "model.diffusion_model.output_blocks.5.2.conv.bias",
    } <= state.keys()
    assert "v_pred" not in state
    pipe.scheduler.register_to_config(prediction_type="v_prediction")
    assert "v_pred" in ldm_state(pipe)


def test_what_the_original_code_does_not_have_is_refused_by_name(run, tmp_path):
    with pytest.raises(ModelError, match="AutoencoderTiny.*AutoencoderKL.*--to merged"):
        export(run(model="demo"), "single-file")
    pipe = tiny.pipeline(tmp_path)
    pipe.unet = type(pipe.unet).from_config(pipe.unet.config, class_embed_type="timestep")
    with pytest.raises(ModelError, match=r"class_embedding.*--to merged"):
        ldm_state(pipe)


def test_a_checkpoint_of_something_else_is_told(run, tiny_folder):
    erasure = run()
    done = export(erasure, "single-file")
    state, metadata = read_tensors(done.path)
    base = ldm_state(base_pipeline(erasure))
    key = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    assert not torch.equal(state[key], base[key])
    write_tensors(done.path, {**state, key: base[key]}, metadata)  # one layer not erased
    assert any(key in fault for fault in check(done.path, against=erasure).faults)
    key = "first_stage_model.decoder.conv_in.bias"
    write_tensors(done.path, {**state, key: base[key] + 1}, metadata)  # and one changed that wasn't trained
    assert any(key in fault for fault in check(done.path, against=erasure).faults)
