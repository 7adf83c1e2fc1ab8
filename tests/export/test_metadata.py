"""`info` reads from every export what the run knew."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from crce.errors import RunError
from crce.export import export, read_metadata
from crce.files import write_tensors


@pytest.mark.parametrize("form", ["diffusers", "kohya", "merged", "single-file"])
def test_every_form_tells_what_the_run_tells(run, form):
    erasure = run(lora_alpha=1.0)
    own, exported = read_metadata(erasure.folder), read_metadata(export(erasure, form).path)
    assert own["kind"] == "run (finished)"
    assert own["concepts"][0]["target"] == "cat"
    assert [r["text"] for r in own["concepts"][0]["corefs"] if r.get("held_out")] == ["kitten"]
    for name in ("base_revision", "method", "settings", "concepts", "concepts_sha256"):
        assert exported[name] == own[name], name
    assert read_metadata(erasure.adapter)["concepts_sha256"] == own["concepts_sha256"]


def test_files_of_others_say_what_they_have(tmp_path):
    save_file({"x": torch.ones(1)}, tmp_path / "x.safetensors", {"ss_network_dim": "4"})
    facts = read_metadata(tmp_path / "x.safetensors")
    assert facts["concepts"] is facts["method"] is facts["base_model"] is None
    assert facts["metadata"] == {"ss_network_dim": "4"}


def test_what_says_nothing_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"neither run\.json nor crce\.json"):
        read_metadata(tmp_path)
    with pytest.raises(RunError, match="Cannot read"):
        read_metadata(tmp_path / "nowhere.safetensors")
    write_tensors(tmp_path / "x.safetensors", {"x": torch.ones(1)}, {"config": "{"})
    with pytest.raises(RunError, match="damaged"):
        read_metadata(tmp_path / "x.safetensors")
