"""The solver that a model is drawn with, beside its own scheduler."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler

from crce.backbones.defaults import defaults_of, fill_sampling
from crce.sampling import draw


def test_a_solver_samples_over_the_noise_levels_of_the_model_and_leaves_its_scheduler(tiny_backbone):
    pipe = tiny_backbone.pipe
    own = pipe.scheduler
    (drawn,) = draw(pipe, ["cat"], [3], steps=3, guidance=2.0, solver="dpm++")
    assert pipe.scheduler is own
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(own.config, timestep_spacing="trailing")
    generator = torch.Generator().manual_seed(3)
    expected = pipe(["cat"], num_inference_steps=3, guidance_scale=2.0, generator=[generator]).images[0]
    pipe.scheduler = own
    assert np.array_equal(np.asarray(drawn), np.asarray(expected))
    (plain,) = draw(pipe, ["cat"], [3], steps=3, guidance=2.0)
    assert not np.array_equal(np.asarray(drawn), np.asarray(plain))


def test_a_prompt_is_encoded_once_for_its_images_which_are_those_of_single_calls(tiny_backbone):
    pipe, read = tiny_backbone.pipe, []
    handle = pipe.text_encoder.register_forward_pre_hook(lambda _, arguments: read.append(len(arguments[0])))
    prompts, seeds = ["cat"] * 4 + ["dog"] * 2, [0, 1, 2, 3, 0, 1]
    drawn = draw(pipe, prompts, seeds, steps=2, batch=6)
    handle.remove()
    assert read == [3, 3]  # a prompt for every two images, and the empty ones
    for image, prompt, seed in zip(drawn, prompts, seeds, strict=True):
        (alone,) = draw(pipe, [prompt], [seed], steps=2)
        assert np.abs(np.asarray(image).astype(int) - np.asarray(alone)).max() <= 1


def test_steps_of_the_user_are_those_of_the_models_own_scheduler(demo_backbone):
    default = defaults_of(demo_backbone).as_json()
    assert fill_sampling(default, None, None) == (5, 4.0, "dpm++")
    assert fill_sampling(default, 20, None) == (20, 4.0, None)
    assert fill_sampling({"steps": 20, "guidance": 4.0}, None, 3.0) == (20, 3.0, None)  # of an older run
