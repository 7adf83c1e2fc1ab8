"""Several targets in one run: what is written, what is read back, and what a break leaves."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load_file

from crce.concepts import ConceptSet
from crce.errors import ConceptError, RunError
from crce.training import Erasure, Interrupted, Step, erase, load_config, resume
from crce.training.run_folder import claim_folder


SETTINGS = {"steps": 6, "ddim_steps": 4, "pool": 2, "learning_rate": 1e-3, "checkpoint_every": 2}


def test_a_run_holds_all_its_sets(tiny_backbone, cats, ships, tmp_path):
    run = erase([cats, ships], config=load_config("demo", SETTINGS), backbone=tiny_backbone, out=tmp_path / "run")
    again = Erasure.load(run.folder)
    assert again.sets == (cats, ships)
    assert again.concepts == cats
    assert json.loads((run.folder / "run.json").read_text())["targets"] == ["cat", "ship"]


def test_a_stopped_run_of_several_ends_with_the_same_weights(tiny_backbone, cats, ships, tmp_path):
    config = load_config("demo", SETTINGS)
    whole = erase([cats, ships], config=config, backbone=tiny_backbone, out=tmp_path / "whole")

    def stop(event) -> None:
        if isinstance(event, Step) and event.step == 3:
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, Interrupted)):
        erase([cats, ships], config=config, backbone=tiny_backbone, out=tmp_path / "stopped", on_event=stop)
    resume(tmp_path / "stopped", backbone=tiny_backbone)
    one, two = (load_file(tmp_path / name / "adapter.safetensors") for name in ("whole", "stopped"))
    assert whole.adapter.exists()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_what_an_earlier_run_erased_is_erased_along(tiny_backbone, cats, ships, tmp_path):
    config = load_config("demo", SETTINGS)
    first = erase(cats, config=config, backbone=tiny_backbone, out=tmp_path / "first")
    second = erase(ships, config=config, backbone=tiny_backbone, out=tmp_path / "second", start_from=first.folder)
    assert [c.target for c in second.sets] == ["ship", "cat"]
    third = erase(ships, config=config, backbone=tiny_backbone, out=tmp_path / "third", start_from=second.folder)
    assert [c.target for c in third.sets] == ["ship", "cat"]


def test_nothing_and_one_target_twice_are_refused(tiny_backbone, cats, tmp_path):
    config = load_config("demo", SETTINGS)
    with pytest.raises(ConceptError, match="at least one"):
        erase([], config=config, backbone=tiny_backbone, out=tmp_path / "run")
    with pytest.raises(ConceptError, match="'CAT' is given twice"):
        erase([cats, ConceptSet("CAT")], config=config, backbone=tiny_backbone, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def claim(out, sets):
    """The folder that a run is given and begins in, or the error."""
    try:
        with claim_folder(out, sets) as folder:
            (folder / "run.json").write_text("begun")
            return folder
    except RunError as error:
        return error


def test_a_folder_is_named_after_the_first_targets(cats, ships, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert claim(None, [cats]).name == "cat-1"
    many = [cats, ships, ConceptSet("dog"), ConceptSet("fox"), ConceptSet("owl")]
    assert claim(None, many).name == "cat-ship-dog-2-more-1"


def test_runs_that_begin_together_get_a_folder_each(cats, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: claim(None, [cats]), range(8)))
    assert sorted(folder.name for folder in folders) == [f"cat-{number}" for number in range(1, 9)]


def test_of_runs_that_begin_together_in_one_folder_one_does(cats, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: claim(tmp_path / "same", [cats]), range(8)))
    assert results.count(tmp_path / "same") == 1
    refused = [str(result) for result in results if result != tmp_path / "same"]
    assert all("holds a run already" in text or "in use by another process" in text for text in refused)
