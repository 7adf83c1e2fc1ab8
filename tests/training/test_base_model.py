"""The model that a run erased from, loaded again."""

from __future__ import annotations

import json

import pytest
import torch

from crce.errors import RunError
from crce.training import Erasure, apply_adapter, erase, load_base, load_config


@pytest.fixture(scope="module")
def run(tiny_folder, cats, tmp_path_factory):
    config = load_config("demo", {"steps": 2, "ddim_steps": 4, "pool": 2, "learning_rate": 1e-2})
    out = tmp_path_factory.mktemp("run") / "cat"
    return erase(cats, config=config, model=str(tiny_folder), device="cpu", dtype="bfloat16", out=out)


def test_it_is_the_model_of_the_run_in_its_type(run, tiny_backbone):
    base = load_base(run, device="cpu")
    assert (base.model, base.revision) == (run.info["model"], run.info["revision"])
    assert base.dtype == torch.bfloat16
    assert load_base(run, backbone=base) is base
    wide = load_base(run, device="cpu", dtype="float32")
    for name, tensor in tiny_backbone.network.state_dict().items():
        assert torch.equal(wide.network.state_dict()[name], tensor), name


def test_what_was_trained_goes_on_it(run):
    base = load_base(run, device="cpu")
    before = {name: tensor.clone() for name, tensor in base.network.state_dict().items()}
    adapter = apply_adapter(base, run.adapter)
    assert adapter.state().keys() > set()
    adapter.close()
    assert all(torch.equal(base.network.state_dict()[name], tensor) for name, tensor in before.items())


def test_a_model_that_has_changed_since_is_refused(run, tiny_backbone, tmp_path):
    info = json.loads((run.folder / "run.json").read_text()) | {"revision": "unet-sha256:0"}
    other = Erasure(tmp_path, run.sets, run.config, info)
    for loaded in (None, tiny_backbone):
        with pytest.raises(RunError, match=r"unet-sha256:0, but the model here is at unet-sha256:[0-9a-f]{16}\."):
            load_base(other, backbone=loaded, device="cpu")
