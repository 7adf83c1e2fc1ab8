"""The table of formats, and exports of models whose family is unknown: they get no names of another one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from runs import make_hand_written
from torch import nn

from crce.backbones import FAMILIES, backbone_class
from crce.errors import ModelError
from crce.export import FORMATS, Exported, ExportFormat, export
from crce.export.base import Base, identify, kohya_prefixes
from crce.export.formats import BUNDLED
from crce.files import read_header


TO_K = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


def base(pipeline: str | None, prediction_type: str | None = "epsilon") -> Base:
    return Base("some/model", None, pipeline, prediction_type, None)


def test_a_format_of_another_package_is_written_by_its_function(run, monkeypatch):
    def write(erasure, path, *, rank, dtype):
        path.parent.mkdir()
        path.write_text(f"{rank} {dtype}")
        return Exported(path, "text")

    monkeypatch.setitem(BUNDLED, "text", ExportFormat("a text", write, low_rank=True, suffix=".txt"))
    done = export(run(), "text", rank=3)
    assert (done.path.name, done.path.read_text()) == ("erase-cat-text.txt", "3 None")
    assert list(FORMATS) == ["diffusers", "kohya", "merged", "single-file", "text"]


@pytest.mark.parametrize(
    ("pipeline", "width", "prediction_type", "name"),
    [
        ("StableDiffusionPipeline", 768, "epsilon", "stable-diffusion-v1"),
        ("StableDiffusionPipeline", 1024, None, "stable-diffusion-v2-512"),
        ("StableDiffusionPipeline", 1024, "v_prediction", "stable-diffusion-v2-768-v"),
        ("StableDiffusionPipeline", 32, "epsilon", None),
        ("StableDiffusionXLPipeline", 32, "epsilon", "stable-diffusion-xl-v1-base"),
        ("StableDiffusion3Pipeline", 1536, None, "stable-diffusion-3"),
        ("FluxPipeline", 1, None, "flux-1-dev"),
        ("Flux2KleinPipeline", 1, None, "flux-2-klein"),
        ("QwenImagePipeline", 1, None, "Qwen-Image"),
        ("ZImagePipeline", 768, None, "z-image"),
        ("KandinskyPipeline", 768, "epsilon", None),
        (None, 768, None, "stable-diffusion-v1"),
        (None, 2048, None, "stable-diffusion-xl-v1-base"),
        (None, 32, None, None),
    ],
)
def test_an_architecture_is_named_where_it_is_certain(pipeline, width, prediction_type, name):
    family, architecture = identify(base(pipeline, prediction_type), {TO_K: torch.Size((8, width))})
    assert (architecture and architecture.name) == name
    if pipeline in FAMILIES:
        assert family is backbone_class(pipeline)


def test_a_transformer_is_not_taken_for_a_unet_of_the_same_width():
    layers = {"transformer.transformer_blocks.0.attn2.to_k": torch.Size((8, 2048))}
    assert identify(base(None), layers) == (None, None)


def test_kohya_names_are_those_of_the_family_or_none():
    sdxl = backbone_class("StableDiffusionXLPipeline")
    assert kohya_prefixes(base(None), sdxl, ["unet", "text_encoder"]) == {
        "unet": "lora_unet",
        "text_encoder": "lora_te1",
    }
    assert kohya_prefixes(base(None), backbone_class("FluxPipeline"), ["transformer"]) == {}
    assert kohya_prefixes(base(None), None, ["unet"]) == {"unet": "lora_unet"}  # in all families
    with pytest.raises(ModelError, match="keys of text_encoder in a kohya file depend on the family"):
        kohya_prefixes(base(None), None, ["unet", "text_encoder"])
    with pytest.raises(ModelError, match="There is no model family 'KandinskyPipeline'"):
        kohya_prefixes(base("KandinskyPipeline"), None, ["unet"])


def test_a_run_of_an_unsupported_pipeline_becomes_no_kohya_file(tmp_path, cats):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text('{"_class_name": "KandinskyPipeline"}')
    pipe = SimpleNamespace(unet=nn.ModuleDict({"to_k": nn.Linear(8, 8)}))
    erasure = make_hand_written(tmp_path, str(tmp_path / "model"), (cats,), pipe, ["unet.to_k"], rank=2, alpha=1.0)
    with pytest.raises(ModelError, match="KandinskyPipeline"):
        export(erasure, "kohya")
    metadata = read_header(export(erasure, "diffusers").path)  # these keys are the same in every family
    assert "modelspec.architecture" not in metadata
    assert "ss_base_model_version" not in metadata
