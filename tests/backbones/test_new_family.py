"""A family that crce does not know, or that does not say all, is refused: none gets the facts of another one."""

from __future__ import annotations

import json
from abc import ABC
from pathlib import Path
from typing import Any

import published
import pytest
import torch
from safetensors.torch import save_file

from crce.backbones import FAMILIES, Backbone, Conditioning, backbone_class, load_backbone
from crce.backbones.loading import find_model
from crce.backbones.meta_model import read_meta_model
from crce.errors import ModelError


FACTS: dict[str, Any] = {
    "component": "transformer",
    "models": "Example",
    "single_files": (),
    "half": torch.bfloat16,
    "encoder_tokens": {"text_encoder": None},
    "prompts_at_once": 8,
    "defaults": {},
}
CODE: dict[str, Any] = {
    "layer_role": staticmethod(lambda path: "other"),
    "native_shape": (4, 8, 8),
    "grid": lambda self, steps: None,
    "empty_conditioning": lambda self, count, tokens, dtype: Conditioning.empty(count, tokens, 8, dtype),
    "_encode": lambda self, prompts: None,
    "_forward": lambda self, x_t, t, cond, guidance: x_t,
}


class Pipe:
    components: dict[str, Any] = {}


def test_a_family_that_says_all_needs_nothing_else():
    made = type("ExampleBackbone", (Backbone,), FACTS | CODE)(Pipe(), "example")
    assert (made.kohya, made.architectures, made.reads_words, made.load_options({})) == ({}, (), False, {})


@pytest.mark.parametrize("fact", FACTS)
def test_a_fact_that_a_family_does_not_set_has_no_default(fact):
    with pytest.raises(TypeError, match=f"ExampleBackbone does not set {fact}; see"):
        type("ExampleBackbone", (Backbone,), {k: v for k, v in (FACTS | CODE).items() if k != fact})


@pytest.mark.parametrize("method", CODE)
def test_what_a_family_does_not_define_is_not_taken_from_another_one(method):
    made = type("ExampleBackbone", (Backbone,), {k: v for k, v in (FACTS | CODE).items() if k != method})
    with pytest.raises(TypeError, match=f"abstract method.*{method}"):
        made(Pipe(), "example")


@pytest.mark.parametrize("pipeline", FAMILIES)
def test_every_family_states_its_own_facts(pipeline):
    """SDXL shares the code of the smaller UNets, and none of what their files and prompts are."""
    own = vars(backbone_class(pipeline))
    assert {"models", "single_files", "encoder_tokens", "load_options", "architectures", "kohya"} - own.keys() <= {
        name
        for name in ("load_options", "architectures", "kohya")
        if ABC in backbone_class(pipeline).__base__.__bases__
    }


def test_an_unknown_pipeline_is_refused_wherever_a_family_is_asked_for(tmp_path: Path):
    folder = published.folder("sd15", tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "KandinskyPipeline"}))
    for ask in (load_backbone, find_model, read_meta_model):
        with pytest.raises(ModelError, match=r"is a KandinskyPipeline\. crce erases from StableDiffusionPipeline"):
            ask(str(folder))
    with pytest.raises(ModelError, match="no model family 'KandinskyPipeline'. Use one of: StableDiffusionPipeline"):
        backbone_class("KandinskyPipeline")
    save_file({"unknown.weight": torch.zeros(1)}, tmp_path / "file.safetensors")
    with pytest.raises(ModelError, match="is a file without a denoiser"):
        find_model(str(tmp_path / "file.safetensors"))


def test_prompts_of_an_unknown_text_encoder_are_not_counted_as_those_of_clip(tmp_path: Path):
    folder = published.folder("sd15", tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    index["text_encoder_2"] = index["text_encoder"]
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "text_encoder_2").mkdir()
    (folder / "text_encoder_2" / "config.json").write_text((folder / "text_encoder" / "config.json").read_text())
    with pytest.raises(
        ModelError, match="has a text_encoder_2, which crce does not expect in a StableDiffusionPipeline"
    ):
        read_meta_model(str(folder))
