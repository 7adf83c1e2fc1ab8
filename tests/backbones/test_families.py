"""Every family against its own pipeline: what it draws, what is trained, and what the pipeline loads again."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_families
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from crce.attacks.denoising import latents_of
from crce.backbones import Backbone, Conditioning, load_backbone
from crce.backbones.scopes import scope_modules
from crce.concepts import ConceptSet
from crce.errors import ConfigError
from crce.sampling.generate import draw
from crce.sampling.samples import generate
from crce.suggest.grounding import ground
from crce.training import Trainer, apply_adapter, erase, load_config
from crce.training.adapters import new_adapter


FAMILIES = [name for name in tiny_families.BUILDERS if name != "flux2_klein_distilled"]
PROMPTS = ["a cat", "the tall dog, 3"]  # of different lengths
FEW = {"ddim_steps": 4, "pool": 2, "learning_rate": 1e-3, "steps": 2, "corefs_per_step": 1, "retains_per_step": 1}


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Backbone]:
    """Loads a family from its folder, which is written once."""
    folders: dict[str, Path] = {}

    def load_family(name: str, dtype: str = "auto") -> Backbone:
        if name not in folders:
            folders[name] = tiny_families.saved(name, tmp_path_factory.mktemp("family"))
        backbone = load_backbone(str(folders[name]), device="cpu", dtype=dtype)
        if name.startswith(("flux", "qwen")):
            backbone.pipe.default_sample_size = 8  # their pipelines know 128 only
        return backbone

    return load_family


@pytest.fixture(scope="module", params=FAMILIES)
def backbone(request: pytest.FixtureRequest, load: Callable[..., Backbone]) -> Backbone:
    """Every family in turn; whoever puts an adapter on it takes it off again."""
    return load(request.param)


def noise(backbone: Backbone, count: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, *backbone.latent_shape, generator=torch.Generator().manual_seed(seed))


def by_the_pipeline(backbone: Backbone, guidance: float, output: str, steps: int = 3) -> object:
    """What the family's pipeline makes of PROMPTS from `noise`."""
    pipe, latents = backbone.pipe, noise(backbone)
    kind = type(pipe).__name__
    if kind in ("StableDiffusionPipeline", "StableDiffusionXLPipeline"):
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    elif kind in ("FluxPipeline", "QwenImagePipeline"):
        latents = pipe._pack_latents(latents, *latents.shape)
    elif kind == "Flux2KleinPipeline":
        latents = pipe._patchify_latents(latents)
    elif kind == "ZImagePipeline":
        guidance -= 1
    scale = {"guidance_scale": guidance}
    if kind == "FluxPipeline":
        scale["max_sequence_length"] = pipe.crce_tokens
    if kind == "QwenImagePipeline":
        scale = {"true_cfg_scale": guidance, "negative_prompt": [""] * len(PROMPTS)}
    out = pipe(prompt=list(PROMPTS), num_inference_steps=steps, latents=latents, output_type=output, **scale).images
    if kind in ("FluxPipeline", "QwenImagePipeline") and output == "latent":
        side = backbone.latent_shape[1] * pipe.vae_scale_factor
        return pipe._unpack_latents(out, side, side, pipe.vae_scale_factor).reshape(len(out), *backbone.latent_shape)
    return out


def by_the_backbone(backbone: Backbone, guidance: float, steps: int = 3) -> torch.Tensor:
    grid, cond, null = backbone.grid(steps), backbone.encode(PROMPTS), backbone.encode([""])
    x_t = noise(backbone) * grid.noise_scale
    with torch.no_grad():
        for position, t in enumerate(grid.timesteps):
            x_t = grid.step(backbone.predict_guided(x_t, t, cond, null, guidance), position, x_t)
    return x_t


@pytest.mark.parametrize("guidance", [1.0, 3.5])
def test_the_latents_of_a_picture_are_the_pipelines(backbone: Backbone, guidance):
    expected, found = by_the_pipeline(backbone, guidance, "latent"), by_the_backbone(backbone, guidance)
    if type(backbone.pipe).__name__ == "Flux2KleinPipeline":  # which scales them for its autoencoder before
        found = backbone.vae_latents(found)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_decoding_gives_the_pipelines_pictures(backbone: Backbone):
    expected = by_the_pipeline(backbone, 3.5, "pil", steps=2)
    pictures = backbone.decode(by_the_backbone(backbone, 3.5, steps=2))
    for picture, own in zip(pictures, expected, strict=True):
        assert picture.size == own.size
        assert np.abs(np.asarray(picture, int) - np.asarray(own, int)).max() <= 1


def test_prompts_are_encoded_and_predicted_alike_alone_and_in_a_batch(backbone: Backbone):
    cond = backbone.encode(["", *PROMPTS])
    x_t, t = noise(backbone, 3), torch.tensor([200.0, 500.0, 900.0])
    with torch.no_grad():
        together = backbone.predict(x_t, t, cond)
        for i, prompt in enumerate(["", *PROMPTS]):
            alone = backbone.predict(x_t[i : i + 1], float(t[i]), backbone.encode([prompt]))
            torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-4)
    assert together[0].std() > 0.01
    same = Conditioning.cat([cond[[1]], cond[[2]]])
    out = backbone.predict(x_t[:1].expand(2, -1, -1, -1), 500, same)
    assert (out[0] - out[1]).abs().max() > 1e-3  # the prompt makes a difference


def test_training_moves_every_trained_parameter_and_nothing_else(backbone: Backbone, cats: ConceptSet):
    """Of all layers; of those that each method trains by default: tests/methods/test_matrix.py."""
    before = {name: p.clone() for name, p in backbone.network.named_parameters()}
    cond, x_t = backbone.encode(["", "cat"]), noise(backbone)
    base = backbone.predict(x_t, 500, cond)
    trainer = Trainer(backbone, [cats], load_config("demo", FEW | {"layers": "full", "guidance": 2.0}))
    start = [p.detach().clone() for p in trainer.adapter.parameters()]
    assert all(np.isfinite(trainer.step().loss) for _ in range(2))
    moved = [not torch.equal(p, s) for p, s in zip(trainer.adapter.parameters(), start, strict=True)]
    assert all(moved)
    assert not torch.equal(backbone.predict(x_t, 500, cond), base)
    with trainer.adapter.disabled():
        assert torch.equal(backbone.predict(x_t, 500, cond), base)
    trainer.adapter.close()
    after = dict(backbone.network.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(backbone.predict(x_t, 500, cond), base)


def test_the_pipeline_loads_the_adapter_of_a_run(backbone: Backbone, cats: ConceptSet, tmp_path: Path):
    erasure = erase(
        cats,
        config=load_config("demo", FEW | {"layers": "xattn", "rank": 4, "lora_alpha": 8.0, "learning_rate": 0.02}),
        backbone=backbone,
        out=tmp_path / "run",
    )
    cond, x_t = backbone.encode(["cat"]), noise(backbone, 1)
    with torch.no_grad():
        base = backbone.predict(x_t, 500, cond)
        adapter = apply_adapter(backbone, erasure.adapter)
        ours = backbone.predict(x_t, 500, cond)
        adapter.close()
        backbone.pipe.load_lora_weights(str(tmp_path / "run"), weight_name="adapter.safetensors")
        theirs = backbone.predict(x_t, 500, cond)
        backbone.pipe.unload_lora_weights()
    backbone.network.requires_grad_(False)
    assert (ours - base).abs().max() > 1e-3
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)


def test_pictures_are_drawn_and_prompts_stay_as_they_are(backbone: Backbone):
    prompts = list(PROMPTS)
    pictures = draw(backbone.pipe, prompts, [1, 2], steps=2)
    assert prompts == PROMPTS
    assert [type(picture).__name__ for picture in pictures] == ["Image", "Image"]
    side = backbone.latent_shape[1] * backbone.pipe.vae_scale_factor
    assert {picture.size for picture in pictures} == {(side, side)}


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("sd2", "sd3_without_t5", "flux_schnell")])
def test_half_precision_predicts_and_trains(load: Callable[..., Backbone], cats: ConceptSet, name: str):
    whole, half = load(name), load(name, dtype="bfloat16")
    x_t = noise(whole, 1)
    with torch.no_grad():
        out, rough = (b.predict(x_t, 500.0, b.encode(["a cat"])) for b in (whole, half))
    assert rough.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(out.flatten(), rough.flatten(), dim=0) > 0.99
    trainer = Trainer(half, [cats], load_config("demo", FEW | {"layers": "xattn"}))
    assert np.isfinite(trainer.step().loss)
    assert all(p.dtype == torch.float32 and p.grad is not None for p in trainer.adapter.parameters())


# ---- what is special about one family -----------------------------------------------------------------------------


def test_the_empty_prompt_of_sdxl_is_zeros_as_in_its_sampler(load: Callable[..., Backbone]):
    backbone = load("sdxl")
    _, null, _, pooled_null = backbone.pipe.encode_prompt(["a cat"], device="cpu")
    cond = backbone.encode(["", "a cat"])
    assert not null.any()
    assert torch.equal(cond.hidden[:1], null)
    assert torch.equal(cond.pooled[:1], pooled_null)
    assert cond.hidden[1].any()
    backbone.pipe.register_to_config(force_zeros_for_empty_prompt=False)
    assert backbone.encode([""]).hidden.any()


def test_an_x_t_of_sdxl_is_what_euler_shows_the_unet_and_steps_to_the_same_latent(load: Callable[..., Backbone]):
    """x_euler = x_t sqrt(sigma^2 + 1): the UNet is shown it scaled back, and a step of Euler is one of DDIM."""
    backbone, steps = load("sdxl"), 8
    pipe, grid, cond = backbone.pipe, backbone.grid(8), backbone.encode(["a cat"])
    euler = pipe.scheduler
    assert isinstance(euler, EulerDiscreteScheduler)
    euler.set_timesteps(steps)
    assert euler.timesteps.tolist() == grid.timesteps
    seen: list[torch.Tensor] = []
    hook = backbone.network.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x_t = noise(backbone, 1)
    with torch.no_grad():
        for position, t in enumerate(euler.timesteps[:-1]):
            x_euler = x_t * (euler.sigmas[position] ** 2 + 1).sqrt()
            prediction = backbone.predict(x_t, grid.timesteps[position], cond)
            shown = euler.scale_model_input(x_euler, t)
            torch.testing.assert_close(seen[-1], shown)
            assert not torch.allclose(shown, x_euler, atol=0.01)
            size = torch.tensor([[16.0, 16, 0, 0, 16, 16]])  # 8 latents of 2 pixels
            told = {"text_embeds": cond.pooled, "time_ids": size}
            own = pipe.unet(shown, t, encoder_hidden_states=cond.hidden, added_cond_kwargs=told).sample
            torch.testing.assert_close(prediction, own, rtol=1e-4, atol=1e-5)
            x_t = grid.step(prediction, position, x_t)
            next_euler = euler.step(own, t, x_euler).prev_sample
            expected = next_euler / (euler.sigmas[position + 1] ** 2 + 1).sqrt()
            torch.testing.assert_close(x_t, expected, rtol=1e-3, atol=1e-3)
    hook.remove()


def test_flux_dev_is_told_its_guidance_in_one_forward_and_schnell_never(load: Callable[..., Backbone], monkeypatch):
    for name, told in (("flux_dev", [[1.0, 1.0], [3.5, 3.5]]), ("flux_schnell", [None, None])):
        backbone = load(name)
        seen: list[object] = []
        forward = backbone.network.forward

        def spy(*, guidance, _seen=seen, _forward=forward, **given):
            _seen.append(None if guidance is None else guidance.tolist())
            return _forward(guidance=guidance, **given)

        monkeypatch.setattr(backbone.network, "forward", spy)
        cond, x_t = backbone.encode(PROMPTS), noise(backbone)
        with torch.no_grad():
            plain = backbone.predict(x_t, 500, cond)
            guided = backbone.predict_guided(x_t, 500, cond, cond[:1], 3.5)
        assert seen == told
        assert torch.equal(plain, guided) == (name == "flux_schnell")


def test_flux_has_the_size_of_its_scheduler_and_reads_as_many_tokens_as_its_tokenizer(load: Callable[..., Backbone]):
    backbone = load("flux_schnell")
    backbone.pipe.tokenizer_2.model_max_length = 9999
    type(backbone).set_up(backbone.pipe)
    assert backbone.pipe.crce_tokens == 512  # as many as the pipeline takes
    backbone.pipe.scheduler.register_to_config(max_image_seq_len=9)
    backbone.pipe.tokenizer_2.model_max_length = 20
    type(backbone).set_up(backbone.pipe)
    assert backbone.native_shape == (4, 6, 6)
    assert backbone.encode(["a cat"]).hidden.shape[1] == 20
    (picture,) = draw(backbone.pipe, ["a cat"], [1], steps=1)
    assert picture.size == (12, 12)


def test_a_distilled_klein_is_sampled_without_guidance_whatever_is_asked_for(load: Callable[..., Backbone]):
    backbone = load("flux2_klein_distilled")
    plain, guided = by_the_backbone(backbone, 1.0), by_the_backbone(backbone, 3.5)
    torch.testing.assert_close(guided, plain, rtol=1e-4, atol=1e-4)
    expected = by_the_pipeline(backbone, 3.5, "latent")
    torch.testing.assert_close(backbone.vae_latents(guided), expected, rtol=1e-4, atol=1e-4)


def test_images_of_qwen_image_are_drawn_with_the_guidance_asked_for(load: Callable[..., Backbone]):
    """Its pipeline calls it `true_cfg_scale`, and ignores it where there is no negative prompt."""
    pipe = load("qwen_image").pipe
    drawn = {scale: draw(pipe, ["a cat"], [1], steps=2, guidance=scale)[0] for scale in (0.0, 1.0, 4.0)}
    assert drawn[0.0] == drawn[1.0]
    own = {"prompt": ["a cat"], "num_inference_steps": 2, "generator": [torch.Generator().manual_seed(1)]}
    assert drawn[4.0] == pipe(**own, true_cfg_scale=4.0, negative_prompt=[""]).images[0] != drawn[1.0]


@pytest.mark.parametrize("name", ["flux2_klein", "qwen_image"])
def test_the_layers_of_the_text_read_tokens_of_the_text_alone(load: Callable[..., Backbone], name: str):
    """Those of `state_layers` read the token states themselves, after a norm where one is named."""
    backbone, seen = load(name), {}
    network = backbone.network
    for path, module in network.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda _, args, out, path=path: seen.update({path: args[0]}))
    cond, x_t = backbone.encode(["a cat"]), noise(backbone, 1)
    with torch.no_grad():
        backbone.predict(x_t, 500, cond)
        tokens = cond.hidden.shape[1] if cond.mask is None else int(cond.mask.sum())
        for path, source in backbone.state_layers.items():
            states = cond.hidden if source == "hidden" else network.get_submodule(source)(cond.hidden)
            torch.testing.assert_close(seen[path], states[:, :tokens], rtol=1e-5, atol=1e-6)
    text = {path for path, given in seen.items() if given.ndim == 3 and given.shape[1] == tokens}
    assert text == {path for path in seen if re.fullmatch(backbone.text_layers, path)}


@pytest.mark.parametrize("name", ["sd3", "flux_dev", "z_image"])
def test_grounding_measures_a_flow_model(load: Callable[..., Backbone], name: str):
    grounded = ground("cat", ["kitty"], load(name), latents=1, timesteps=2, unrelated=["house"])
    assert grounded["cat"].closeness == 1
    assert 0 <= grounded["kitty"].closeness <= 1


def test_a_picture_becomes_the_latents_that_its_autoencoder_reads(backbone: Backbone):
    pictures = draw(backbone.pipe, list(PROMPTS), [1, 2], steps=2)
    latents = latents_of(backbone, pictures)
    assert latents.shape == (2, *backbone.latent_shape)
    pixels = backbone.pipe.image_processor.preprocess(pictures)
    read = backbone.vae_latents(latents)
    encoded = backbone.pipe.vae.encode(pixels.unsqueeze(2) if read.ndim == 5 else pixels).latent_dist.mode()
    torch.testing.assert_close(read, encoded, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["sd3", "flux_dev", "qwen_image"])
def test_presets_are_the_same_beside_a_lora(load: Callable[..., Backbone], name: str):
    backbone = load(name)
    before = {scope: scope_modules(backbone, scope) for scope in ("xattn", "kv", "noxattn")}
    adapter = new_adapter(backbone, load_config("demo", {"layers": "xattn"}))
    try:
        for scope, paths in before.items():
            found = {path.removesuffix(".base_layer") for path in scope_modules(backbone, scope)}
            assert set(paths) == found, scope
    finally:
        adapter.close()


@pytest.mark.parametrize("name", ["flux_dev", "flux2_klein"])
def test_a_negative_prompt_is_refused_where_it_would_not_be_read(name: str, tmp_path: Path):
    model = str(tiny_families.saved(name, tmp_path))
    with pytest.raises(ConfigError, match="negative is 'dog', but Flux.*Pipeline does without one"):
        generate("cat", model=model, negative="dog", steps=1, device="cpu")
