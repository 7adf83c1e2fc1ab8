"""The bundled flow transformer is a real FLUX pipeline: diffusers loads it, and it is drawn from and erased from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline

from crce import demo
from crce.backbones import load_backbone
from crce.backbones.flux import FluxBackbone
from crce.backbones.meta_model import read_meta_model
from crce.concepts import ConceptSet
from crce.judges import choose_judge, load_judge
from crce.sampling import draw
from crce.training import erase, load_config


FLOW_JSON = Path(__file__).parents[2] / "benchmarks" / "demo" / "flow_model.json"


@pytest.fixture(scope="module")
def flow() -> FluxBackbone:
    return load_backbone("demo-flow", device="cpu")


def test_diffusers_alone_loads_it_and_draws_the_same(flow: FluxBackbone):
    pipe = FluxPipeline.from_pretrained(demo.model_path("demo-flow"))
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(1)
    size = {"height": 64, "width": 64, "max_sequence_length": 24}
    picture = pipe("a cat", generator=generator, num_inference_steps=3, guidance_scale=3.5, **size).images[0]
    ours = draw(flow.pipe, ["a cat"], [1], steps=3, guidance=3.5)[0]
    assert ours.size == (64, 64)
    assert picture.tobytes() == ours.tobytes()


def test_it_is_small_and_its_measured_quality_is_that_of_these_weights(flow: FluxBackbone):
    files = list((demo.weights_path() / "flow").iterdir())
    assert {path.suffix for path in files} == {".safetensors", ".json"}
    assert sum(path.stat().st_size for path in files) <= 25e6
    measured = json.loads(FLOW_JSON.read_text())
    assert measured["model"] == flow.revision
    assert measured["judge"]["hash"] == load_judge("emoji").hash
    assert measured["names"]["recognised"] >= 0.85
    assert measured["held_out"]["recognised"] >= 0.70


def test_its_plan_and_its_prompts_have_its_own_size(flow: FluxBackbone):
    assert flow.encode(["a cat"]).hidden.shape == (1, 24, 384)
    assert read_meta_model("demo-flow").backbone.latent_shape == flow.latent_shape == (8, 8, 8)


def test_it_is_erased_from_and_judged_like_the_other_bundled_model(
    flow: FluxBackbone, cats: ConceptSet, tmp_path: Path
):
    config = load_config(None, {"steps": 1, "pool": 2, "corefs_per_step": 1, "retains_per_step": 1}, model="demo-flow")
    assert config.layers == "text"
    run = erase(cats, config=config, backbone=flow, model="demo-flow", out=tmp_path / "run")
    assert (run.sampling["steps"], run.sampling["guidance"]) == (10, 3.5)
    assert choose_judge("auto", "demo-flow", [cats]).name == "emoji"
