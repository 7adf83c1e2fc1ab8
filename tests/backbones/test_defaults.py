"""Each model is sampled as its family and its kin are, whether only its configs are read or it is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import published
import pytest
import tiny_families
import torch

from crce.backbones import load_backbone
from crce.backbones.defaults import defaults_of, find_defaults
from crce.backbones.families import FAMILIES, backbone_class
from crce.backbones.noise import FlowGrid
from crce.concepts import ConceptSet
from crce.config import load_config
from crce.errors import ConfigError
from crce.sampling import draw
from crce.training.prompts import make_table
from crce.training.trajectories import GuidedSampler


@pytest.mark.parametrize(
    ("like", "folder", "kin", "steps", "guidance"),
    [
        ("sd15", "my-finetune", "", 50, 7.5),
        ("sd15", "sd-turbo", "turbo", 4, 0),
        ("sd15", "hyperreal-v2", "", 50, 7.5),
        ("sdxl", "stable-diffusion-xl-base-1.0", "", 50, 5),
        ("sdxl", "DreamShaperXL_Turbo_v2", "turbo", 4, 0),
        ("sdxl", "sdxl_lightning_4step", "lightning", 4, 0),
        ("sdxl", "Hyper-SDXL", "hyper", 8, 0),
        ("sd35_medium", "stable-diffusion-3.5-medium", "3.5", 28, 3.5),
        ("sd35_medium", "stable-diffusion-3.5-large-turbo", "turbo", 4, 0),
        ("flux_dev", "FLUX.1-dev", "", 28, 3.5),
        ("flux2_klein_4b", "FLUX.2-klein-4B", "distilled", 4, 0),
        ("flux2_klein_base_4b", "FLUX.2-klein-base-4B", "", 50, 4),
        ("qwen_image", "Qwen-Image", "", 50, 4),
        ("z_image_turbo", "Z-Image-Turbo", "turbo", 9, 0),
        ("z_image_turbo", "Z-Image", "", 50, 5),
    ],
)
def test_a_model_is_recognized_by_its_configs_and_its_name(like, folder, kin, steps, guidance, tmp_path):
    published.folder(like, tmp_path).rename(tmp_path / folder)
    found = find_defaults(str(tmp_path / folder))
    assert (found.kin, found.sampling.steps, found.sampling.guidance) == (kin, steps, guidance)
    assert found.sampling.source


def change(folder: Path, part: str, **values: object) -> None:
    """Change the config of a part of a model."""
    path = next((folder / part).glob("*config.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_configs_tell_what_a_name_does_not(tmp_path):
    flux, xl = published.folder("flux_dev", tmp_path), published.folder("sdxl", tmp_path)
    change(flux, "transformer", guidance_embeds=False)
    assert find_defaults(str(flux)).kin == "schnell"
    change(xl, "scheduler", timestep_spacing="trailing")
    assert find_defaults(str(xl)).kin == "turbo"
    change(xl, "scheduler", rescale_betas_zero_snr=True)  # a model whose noise has no signal left, not a distilled one
    assert find_defaults(str(xl)).kin == ""


@pytest.mark.parametrize("name", list(tiny_families.BUILDERS))
def test_the_loaded_model_says_the_same(name, tmp_path):
    folder = str(tiny_families.saved(name, tmp_path))
    found = find_defaults(folder)
    assert found == defaults_of(load_backbone(folder, device="cpu"))
    assert found.kin == {"flux_schnell": "schnell", "flux2_klein_distilled": "distilled"}.get(name, found.kin)


def test_a_file_of_another_kind_has_none(tmp_path):
    for name in ("model.ckpt", "model.safetensors"):
        (tmp_path / name).write_bytes(b"no tensors")
        assert find_defaults(str(tmp_path / name)) is None


def test_a_model_that_can_not_be_read_has_none(tmp_path):
    (tmp_path / "model_index.json").write_text("[]")
    for model in (str(tmp_path), str(tmp_path / "nowhere"), "nobody/nothing"):
        assert find_defaults(model) is None


def test_x_t_lies_on_the_levels_of_a_distilled_model(tmp_path):
    """Whatever the bundled recipe; a file of one's own and flags have the last word."""
    model = str(tiny_families.saved("flux_schnell", tmp_path))
    for recipe in (None, "ablation"):
        config = load_config(recipe, model=model)
        assert (config.ddim_steps, config.guidance) == (4, 1)
    assert load_config(None, {"ddim_steps": 9}, model=model).ddim_steps == 9
    (tmp_path / "mine.yaml").write_text("ddim_steps: 7")
    assert load_config(tmp_path / "mine.yaml", model=model).ddim_steps == 7
    backbone = load_backbone(model, device="cpu")
    assert isinstance(backbone.grid(4), FlowGrid)
    assert len(backbone.grid(4).timesteps) == 4


def test_a_named_recipe_is_kept_for_models_that_are_not_distilled(tmp_path):
    model = str(tiny_families.saved("flux_dev", tmp_path))
    assert (load_config(None, model=model).ddim_steps, load_config(None, model=model).guidance) == (28, 3.5)
    assert load_config("sd15", model=model).ddim_steps == 50
    assert load_config(None).ddim_steps == load_config("demo").ddim_steps


def test_every_entry_says_where_it_comes_from():
    for pipeline in FAMILIES:
        for kin, sampling in backbone_class(pipeline).defaults.items():
            assert sampling.steps >= 1
            assert len(sampling.source) > 10
            assert (sampling.guidance == 0) == (sampling.trajectory_guidance == 1), (pipeline, kin)


@pytest.mark.parametrize("name", ["sd1", "sdxl", "sd3", "flux_schnell", "flux2_klein", "qwen_image", "z_image"])
def test_a_resolution_is_that_of_training_and_images(name, tmp_path):
    backbone = load_backbone(str(tiny_families.saved(name, tmp_path)), device="cpu")
    native, factor = backbone.latent_shape, backbone.pipe.vae_scale_factor
    backbone.use_resolution(8 * factor)
    assert backbone.latent_shape == (native[0], 8, 8)
    (image,) = draw(backbone.pipe, ["a cat"], [0], steps=2, guidance=0.0)
    assert image.size == (8 * factor, 8 * factor)
    with pytest.raises(ConfigError, match=rf"resolution is {8 * factor + 1}, .* Use a multiple of {2 * factor}"):
        backbone.use_resolution(8 * factor + 1)
    backbone.use_resolution(None)
    assert backbone.latent_shape == native


@pytest.mark.parametrize("family", ["sd1", "sdxl", "sd3", "z_image"])
def test_a_distilled_model_is_never_asked_twice_for_guidance(family, tmp_path):
    """In images and in the x_t of its training the network sees each latent once for each step."""
    folder = tiny_families.saved(family, tmp_path).rename(tmp_path / "tiny-turbo")
    backbone, config = load_backbone(str(folder), device="cpu"), load_config(None, model=str(folder))
    seen: list[int] = []

    def count(module, args, kwargs):
        # Z-Image takes latents as a list
        seen.append(len(args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))))

    backbone.network.register_forward_pre_hook(count, with_kwargs=True)
    backbone.use_resolution(8 * backbone.pipe.vae_scale_factor)
    sampling = defaults_of(backbone).sampling
    draw(backbone.pipe, ["a cat", "a dog"], [0, 1], steps=sampling.steps, guidance=sampling.guidance)
    extra = family == "sd1"  # PNDM, the sampler of the tiny one, begins with a second look at its first level
    assert seen == [2] * (sampling.steps + extra)
    seen.clear()
    table = make_table(backbone, [ConceptSet("cat")], crce=True)
    sampler = GuidedSampler(backbone, table, config.ddim_steps, config.guidance, torch.Generator().manual_seed(0))
    sampler.fresh([1, 1], [len(sampler.timesteps)] * 2)
    assert seen == [2] * config.ddim_steps == [2] * sampling.steps
