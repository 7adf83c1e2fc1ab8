"""Runs of one base model combined into one."""

from __future__ import annotations

import shutil

import pytest
import torch
from edited_run import edit_run

from crce.concepts import ConceptSet, Related
from crce.errors import RunError
from crce.export.layers import read_adapter, trained_deltas
from crce.training import erase, load_config
from crce.training.adapters import apply_adapter
from crce.training.combine import combine


FAST = {"steps": 2, "ddim_steps": 4, "pool": 1, "learning_rate": 1e-2}


@pytest.fixture
def runs(tiny_backbone, tmp_path):
    """LoRAs of other layers, ranks and scales."""
    made = []
    for name, own in {
        "ship": {"layers": "kv", "rank": 3, "lora_alpha": 6.0},
        "cat": {"layers": "xattn", "rank": 2},
    }.items():
        concepts = ConceptSet(name, retains=(Related("dog"),))
        config = load_config("demo", FAST | own)
        made.append(erase(concepts, config=config, backbone=tiny_backbone, out=tmp_path / name))
    return made


def test_the_combined_change_is_the_sum(tiny_backbone, runs, tmp_path):
    done = combine([run.folder for run in runs], tmp_path / "both")
    each = [trained_deltas(read_adapter(run.adapter)) for run in runs]
    assert each[0].keys() != each[1].keys(), "the second trains more layers"
    assert [c.target for c in done.sets] == ["ship", "cat"]
    base = {path: p.clone() for path, p in tiny_backbone.network.named_parameters()}
    adapter = apply_adapter(tiny_backbone, done.adapter)
    for name in each[0].keys() | each[1].keys():
        expected = sum(deltas[name] for deltas in each if name in deltas)
        assert expected.abs().max() > 0
        weight = f"{name.partition('.')[2]}.weight"
        torch.testing.assert_close(
            tiny_backbone.network.get_parameter(weight) - base[weight], expected, rtol=0, atol=1e-7
        )
    adapter.close()
    with pytest.raises(RunError, match="holds a run already"):
        combine([run.folder for run in runs], tmp_path / "both")


def test_what_has_no_exact_sum_is_refused(tiny_backbone, runs, tmp_path):
    ship, cat = (run.folder for run in runs)
    solved = erase(
        ConceptSet("car"), config=load_config(None, {"method": "uce"}), backbone=tiny_backbone, out=tmp_path / "car"
    )
    other = shutil.copytree(cat, tmp_path / "other")
    edit_run(other, revision="sha256:0")
    for given, words in (
        ((ship,), "Give two runs or more, not 1"),
        ((ship, solved.folder), "in a way that can't be added up exactly"),
        ((ship, ship), "'ship' is erased by two of these runs"),
        ((ship, other), "Runs of one base model can be combined"),
    ):
        with pytest.raises(RunError, match=words):
            combine(given, tmp_path / "out")
    assert not (tmp_path / "out").exists()
