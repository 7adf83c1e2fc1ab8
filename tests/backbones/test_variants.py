"""Text encoders that are freed before the denoiser is loaded, models without T5, and quantised models."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_families
import torch
from diffusers import DiffusionPipeline

from crce.backbones import load_backbone, text_side
from crce.backbones.memory_count import plan_memory
from crce.backbones.memory_plan import Workload
from crce.backbones.meta_model import read_meta_model
from crce.config import load_config
from crce.errors import ConfigError, RunError
from crce.evaluate import evaluate
from crce.sampling import draw
from crce.sampling.samples import generate
from crce.training import Erasure, Trainer, erase, load_base, resume


FAMILIES = ["sd1", "sdxl", "sd3", "flux_dev", "flux2_klein", "qwen_image", "z_image"]
FEW = {"ddim_steps": 4, "pool": 2, "learning_rate": 1e-3, "steps": 2, "corefs_per_step": 1, "retains_per_step": 1}
FEW |= {"layers": "xattn", "rank": 4}
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes has no wheel for this platform"
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tiny_families.saved(name, tmp_path_factory.mktemp("family"))
        return made[name]

    return folder


def parts(backbone) -> dict[str, torch.nn.Module]:
    return {name: part for name, part in backbone.pipe.components.items() if isinstance(part, torch.nn.Module)}


def losses(run: Erasure) -> list[float]:
    return [json.loads(line)["loss"] for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


# ---- text encoders first ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux_dev", "z_image"])
def test_images_of_kept_states_are_those_of_the_whole_model(folders, name, monkeypatch):
    prompts, how = ["a cat", "the dog"], {"steps": 2, "guidance": 3.0}
    monkeypatch.setattr(text_side, "SMALL", 0)
    images = []
    for first in (None, text_side.encoders_alone):
        backbone = load_backbone(str(folders(name)), device="cpu", offload=True, parts=first)
        if first:
            assert all(p.is_meta for p in backbone.network.parameters())
            text_side.keep_states(backbone, prompts)
            text_side.free_encoders(backbone)
            assert not any(part.startswith("text_encoder") for part in parts(backbone))
        backbone.use_resolution(None if name != "z_image" else 256)
        if name == "flux_dev":
            backbone.pipe.default_sample_size = 8
        images.append([np.asarray(image, float) for image in draw(backbone.pipe, prompts, [1, 2], **how)])
    for whole, kept in zip(*images, strict=True):
        assert np.abs(whole - kept).max() <= 1
    assert np.abs(images[0][0] - images[0][1]).max() > 1
    text_side.keep_states(backbone, ["a fox"])  # for which they are loaded again
    assert {part for part in parts(backbone) if part.startswith("text_encoder")} == {
        part for part in backbone.encoder_tokens if getattr(backbone.pipe, part)
    }
    assert len(draw(backbone.pipe, ["a fox"], [1], **how)) == 1


@pytest.mark.parametrize("name", ["sdxl", "sd3"])
def test_a_denoiser_is_loaded_after_the_text_encoders_are_freed(folders, cats, name, tmp_path, monkeypatch):
    config = load_config("demo", FEW | {"offload": True})
    how = {"config": config, "model": str(folders(name)), "device": "cpu"}
    whole = erase(cats, out=tmp_path / "whole", **how)
    assert whole.info["loaded"] == "whole"
    monkeypatch.setattr(text_side, "SMALL", 0)
    seen = []

    def loaded(self, *args, _own=text_side.Source.load, **given):
        seen.append({name for name, part in given.items() if part is None})
        return _own(self, *args, **given)

    monkeypatch.setattr(text_side.Source, "load", loaded)

    def stop(event):
        if getattr(event, "step", None) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        erase(cats, out=tmp_path / "first", on_event=stop, **how)
    assert resume(tmp_path / "first", device="cpu").info["loaded"] == "text side"
    first = Erasure.load(tmp_path / "first")
    assert losses(first) == losses(whole)  # bit for bit
    encoders = {
        part for part in ("text_encoder", "text_encoder_2", "text_encoder_3") if name == "sd3" or part[-1] != "3"
    }
    assert seen == [set(), encoders] * 2
    monkeypatch.undo()
    monkeypatch.setattr(text_side, "SMALL", 0)
    one, two = (generate(["a cat"], run=run, n=1, steps=2, device="cpu")[0] for run in (whole, first))
    assert np.array_equal(np.asarray(one.image), np.asarray(two.image))


# ---- without T5 ---------------------------------------------------------------------------------------------------


def test_stable_diffusion_3_is_loaded_without_t5_in_all_of_a_run(folders, cats, tmp_path):
    model = str(folders("sd3"))
    config = load_config("demo", FEW | {"drop_t5": True})
    run = erase(cats, config=config, model=model, out=tmp_path / "run", device="cpu")
    assert run.config.drop_t5
    base = load_base(run, device="cpu")
    assert "text_encoder_3" not in parts(base)
    assert generate(["a cat"], run=run, n=1, steps=2, device="cpu")[0].image is not None
    whole = load_backbone(model, device="cpu")
    assert not torch.equal(base.encode(["a cat"]).hidden, whole.encode(["a cat"]).hidden)
    with pytest.raises(RunError, match="loaded with drop_t5 False, unlike that of"):
        load_base(run, backbone=whole)
    meta = read_meta_model(model, drop_t5=True)
    assert "text_encoder_3" not in plan_memory(meta, Workload("kv", "lora", 4, 9, 8), torch.float32).weights


@pytest.mark.parametrize("name", ["sd1", "flux_dev"])
def test_other_families_need_their_text_encoders(folders, name):
    for read in (load_backbone, read_meta_model):
        with pytest.raises(ConfigError, match="drop_t5 is for Stable Diffusion 3 and 3.5, not for") as caught:
            read(str(folders(name)), drop_t5=True)
        assert "\n" not in str(caught.value)


# ---- quantised ----------------------------------------------------------------------------------------------------


@needs_bitsandbytes
@pytest.mark.parametrize(("name", "kind"), [*((name, "nf4") for name in FAMILIES), ("sd1", "int8"), ("sd3", "int8")])
def test_a_quantised_model_trains_and_has_the_planned_size(folders, cats, name, kind):
    import bitsandbytes as bnb

    backbone = load_backbone(str(folders(name)), device="cpu", quantize=kind)
    if name.startswith(("flux", "qwen")):
        backbone.pipe.default_sample_size = 8
    plan = plan_memory(read_meta_model(str(folders(name))), Workload("kv", "lora", 4, 9, 8), torch.float32, kind)
    for part, network in parts(backbone).items():
        stored = {id(t): t.nbytes for t in (*network.parameters(), *network.buffers())}
        for layer in network.modules():
            if isinstance(layer, bnb.nn.Linear4bit):
                state = layer.weight.quant_state
                stored |= {id(t): t.nbytes for t in (state.absmax, state.state2.absmax)}
            elif isinstance(layer, bnb.nn.Linear8bitLt):
                stored[id(layer)] = 4 * layer.out_features
        assert plan.weights[part] == sum(stored.values()), part
        if part != "vae":
            assert (plan.weights[part] < plan.files[part]) == any(
                isinstance(m, bnb.nn.Linear4bit | bnb.nn.Linear8bitLt) for m in network.modules()
            )
    if name not in ("sd1", "flux_dev", "z_image"):
        return  # the denoisers of the others have no other layers
    trainer = Trainer(backbone, [cats], load_config("demo", FEW | {"quantize": kind}))
    assert all(np.isfinite(trainer.step().loss) for _ in range(2))
    assert trainer.adapter.moved()
    trainer.close()


@needs_bitsandbytes
def test_what_is_trained_on_a_quantised_model_is_a_lora_of_the_published_one(folders, cats, tmp_path):
    model = str(folders("sd1"))
    config = load_config("demo", FEW | {"quantize": "nf4"})
    run = erase(cats, config=config, model=model, out=tmp_path / "run", device="cpu")
    assert run.info["config"]["quantize"] == "nf4"
    few = {"images_per_prompt": 1, "steps": 2, "phrases_per_group": 1, "device": "cpu"}
    for kind in (None, "nf4"):
        report = evaluate(run, quantize=kind, **few)
        assert report.data["settings"].get("quantize") == kind
    settings = [json.loads(path.read_text()) for path in sorted((run.folder / "pictures").glob("*/settings.json"))]
    assert sorted(own.get("variant", "") for own in settings) == ["", "", "nf4", "nf4"]
    pipe = DiffusionPipeline.from_pretrained(model, safety_checker=None)
    pipe.load_lora_weights(run.adapter)
    assert pipe.get_list_adapters()


def test_what_can_not_be_quantised_is_refused_in_one_line(folders, monkeypatch):
    refused = {"weights": {"adapter": "weights", "method": "esd"}, "closed form": {"method": "uce"}}
    for settings in refused.values():
        with pytest.raises(ConfigError, match="quantize rounds weights, and adapter is 'weights'. Use adapter: lora"):
            load_config(None, {"quantize": "nf4", **settings})
    with pytest.raises(ConfigError, match="quantize is 'nf5'. Use one of: nf4, int8"):
        load_backbone(str(folders("sd1")), device="cpu", quantize="nf5")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"Install it: pip install 'crce\[quantized\]'"):
        load_backbone(str(folders("sd1")), device="cpu", quantize="nf4")
