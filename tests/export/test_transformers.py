"""LoRA files of transformers: in both formats the keys of diffusers, which ComfyUI maps too, and the true change."""

from __future__ import annotations

import pytest
import tiny_families
import torch
from runs import make_run
from test_lora import deltas_of

from crce.concepts import ConceptSet
from crce.export import check, export
from crce.export.layers import read_adapter, trained_deltas
from crce.files import read_tensors, write_tensors


FAMILIES = {  # layers, and the programs that load a file
    "flux_dev": ("noxattn", {"diffusers", "ComfyUI", "Forge"}),
    "flux2_klein": ("kv", {"diffusers", "ComfyUI"}),
    "qwen_image": ("xattn", {"diffusers", "ComfyUI"}),
    "sd3": ("full", {"diffusers", "ComfyUI"}),
    "z_image": ("text", {"diffusers", "ComfyUI"}),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_keys_are_those_that_programs_map_and_the_change_is_the_trained_one(tmp_path, family):
    layers, readers = FAMILIES[family]
    model = str(tiny_families.saved(family, tmp_path / "family"))
    erasure = make_run(tmp_path / "run", model, [ConceptSet("cat")], layers=layers, rank=2, lora_alpha=1.0)
    done = export(erasure, "kohya")
    assert "written with diffusers keys, which ComfyUI maps" in done.notes[0]
    trained = trained_deltas(read_adapter(erasure.adapter))
    found = deltas_of(done.path)
    assert found.keys() == trained.keys()
    for name, delta in trained.items():
        assert name.startswith("transformer.")
        torch.testing.assert_close(found[name], delta, rtol=1e-4, atol=1e-6)
    inspection = check(done.path, against=erasure)
    assert not inspection.faults
    assert set(inspection.readers) == readers
    assert set(inspection.scales) == {1.0}  # ComfyUI knows no alpha of these keys
    state, metadata = read_tensors(done.path)
    key = next(key for key in state if key.endswith("lora_B.weight"))
    state[key][-1] += 1
    write_tensors(done.path, state, metadata)
    assert any("layers change otherwise than trained" in fault for fault in check(done.path, against=erasure).faults)


@pytest.mark.parametrize(
    ("family", "kin", "name"),
    [
        ("flux_dev", "dev", "flux-1-dev"),
        ("flux_schnell", "schnell", "flux-1-schnell"),
        ("flux2_klein", "4B", "flux-2-klein"),
        ("qwen_image", "", "Qwen-Image"),
        ("z_image", "turbo", "z-image"),
    ],
)
def test_the_metadata_name_the_architecture(tmp_path, family, kin, name):
    folder = tiny_families.saved(family, tmp_path).rename(tmp_path / f"tiny-{kin}")
    erasure = make_run(tmp_path / "run", str(folder), [ConceptSet("cat")], rank=2)
    _, metadata = read_tensors(export(erasure, "kohya").path)
    assert metadata["modelspec.architecture"] == f"{name}/lora"
