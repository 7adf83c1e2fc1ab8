"""A merged pipeline folder is the erased model, for crce and for diffusers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from runs import latents

from crce.backbones import load_backbone
from crce.concepts import read_concepts
from crce.errors import RunError
from crce.export import export, read_metadata
from crce.export.layers import read_adapter
from crce.export.pipeline import base_pipeline, merge
from crce.files import read_tensors, write_json, write_tensors


CLOSE = {"rtol": 1e-3, "atol": 2e-4}


@pytest.mark.parametrize(
    "settings",
    [
        {"rank": 4, "lora_alpha": 1.0},
        {"layers": "full", "rank": 2, "lora_alpha": 8.0, "size": 0.1},
        {"adapter": "weights"},
    ],
    ids=lambda s: "-".join(map(str, s.values())),
)
def test_a_merged_folder_draws_what_the_run_draws(run, drawn, cats, settings):
    erasure = run(**settings)
    done = export(erasure, "merged")
    pipe = DiffusionPipeline.from_pretrained(done.path)
    torch.testing.assert_close(latents(pipe), drawn(erasure), **CLOSE)
    torch.testing.assert_close(latents(load_backbone(str(done.path), device="cpu").pipe), latents(pipe))
    assert read_concepts(done.path / "concepts.yaml") == cats
    assert "# cat, erased" in (done.path / "README.md").read_text(encoding="utf-8")
    assert read_metadata(done.path)["base_revision"] == erasure.info["revision"]


def test_whole_weights_are_merged_bit_for_bit_and_biases_too(run):
    erasure = run(adapter="weights", layers="noxattn")
    state, metadata = read_tensors(erasure.adapter)
    state["unet.conv_in.bias"] += 1
    write_tensors(erasure.adapter, state, metadata)
    pipe = DiffusionPipeline.from_pretrained(export(erasure, "merged").path)
    for name, trained in state.items():
        assert torch.equal(pipe.unet.get_parameter(name.removeprefix("unet.")), trained), name


def test_nothing_but_the_trained_layers_changes_and_the_type_is_kept(run, tiny_folder):
    erasure = run(rank=4, lora_alpha=1.0)
    pipe = StableDiffusionPipeline.from_pretrained(
        export(erasure, "merged", dtype="float16").path, dtype=torch.float16
    )
    base = StableDiffusionPipeline.from_pretrained(tiny_folder, dtype=torch.float16, safety_checker=None)
    adapter = read_adapter(erasure.adapter)
    trained = {f"{name}.weight": factors for name, factors in adapter.layers.items()}
    for part in ("unet", "vae", "text_encoder"):
        before = getattr(base, part).state_dict()
        for name, after in getattr(pipe, part).state_dict().items():
            assert after.dtype == torch.float16
            if factors := trained.get(f"{part}.{name}"):
                # the sum is taken in float32 and rounded once
                expected = before[name].float() + 1.0 / 4 * factors.up @ factors.down
                torch.testing.assert_close(after, expected.half(), rtol=0, atol=0)
            else:
                assert torch.equal(after, before[name]), name


def test_a_folder_is_only_replaced_if_it_is_a_pipeline_and_that_is_wanted(run, tmp_path):
    erasure = run()
    with pytest.raises(RunError, match="exists already"):
        export(erasure, "merged", out=erasure.folder, force=True)
    assert erasure.adapter.is_file()
    done = export(erasure, "merged")
    (done.path / "old.txt").write_text("left from before")
    with pytest.raises(RunError, match="exists already"):
        export(erasure, "merged")
    export(erasure, "merged", force=True)
    assert not (done.path / "old.txt").exists()
    assert [p.name for p in done.path.parent.iterdir()] == [done.path.name]


def test_a_model_that_has_changed_is_refused(run):
    erasure = run(adapter="weights")
    path = erasure.folder / "run.json"
    write_json(path, json.loads(path.read_text()) | {"revision": "unet-sha256:0000"})
    for form in ("merged", "single-file", "kohya"):
        with pytest.raises(RunError, match="unet-sha256:0000"):
            export(erasure.folder, form)


def test_an_adapter_of_another_model_is_refused(run, v_folder):
    wide = base_pipeline(run(model=v_folder))
    adapter = read_adapter(run(layers="full").adapter)
    with pytest.raises(RunError, match="doesn't fit the model"):
        merge(wide, adapter)


def test_the_bundled_model_is_merged(run, drawn):
    erasure = run(model="demo")
    pipe = DiffusionPipeline.from_pretrained(export(erasure, "merged").path)
    torch.testing.assert_close(latents(pipe), drawn(erasure), **CLOSE)
    card = (erasure.folder / "export" / "erase-cat-merged" / "README.md").read_text(encoding="utf-8")
    assert "license: mit" in card


def test_an_export_that_cannot_take_its_place_leaves_the_one_before(run, tmp_path, monkeypatch):
    erasure = run()
    done = export(erasure, "merged", out=tmp_path / "merged").path
    rename = Path.rename

    def fails(path, target):
        if path.name == "merged.partial":
            raise OSError("no room")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(RunError, match="Cannot write"):
        export(erasure, "merged", out=done, force=True)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("merged")] == ["merged"]
    assert (done / "model_index.json").is_file()
