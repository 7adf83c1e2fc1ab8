from __future__ import annotations

import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from crce.concepts import ConceptSet, Related, dump_concepts
from crce.errors import CRCEError
from crce.training import Erasure, erase, load_config
from crce.training import register as registers
from crce.training.register import Register, RegisterEvent, change_register


@pytest.fixture
def sets(cats, ships):
    """Three sets of which two retain what another erases."""
    return [cats, ships, ConceptSet("dog", corefs=(Related("puppy"),), retains=(Related("fox"), Related("car")))]


def settings(method: str = "uce", everyday: float = 30.0):
    return load_config(None, {"method": method, "everyday": everyday})


def deletions(*sets: ConceptSet, **more: str) -> list[RegisterEvent]:
    return [RegisterEvent(action="delete", target=c.target, concepts=c, **more) for c in sets]


def undo(target: str, **more: str) -> list[RegisterEvent]:
    return [RegisterEvent(action="undo", target=target, **more)]


def delete(folder, sets, backbone, config=None, **more) -> bytes:
    """The weights after deleting sets one by one."""
    for concepts in sets:
        run = change_register(folder, deletions(concepts, **more), backbone, config or settings())
    return run.adapter.read_bytes()


@pytest.mark.parametrize("method", ["uce", "mace"])
def test_weights_do_not_depend_on_the_order_nor_on_what_was_taken_back(tiny_backbone, sets, tmp_path, method):
    config = settings(method)
    at_once = change_register(tmp_path / "at once", deletions(*sets), tiny_backbone, config)
    at_once = at_once.adapter.read_bytes()
    for number, order in enumerate((sets, sets[::-1])):
        assert delete(tmp_path / f"{number}", order, tiny_backbone, config) == at_once
    more = [ConceptSet("fox", retains=(Related("wolf"),)), *sets]
    assert delete(tmp_path / "more", more, tiny_backbone, config) != at_once
    run = change_register(tmp_path / "more", undo("Fox"), tiny_backbone, settings())
    assert run.adapter.read_bytes() == at_once
    shutil.rmtree(tmp_path / "more" / "sums")
    assert delete(tmp_path / "more", more[:1], tiny_backbone) != at_once
    assert change_register(tmp_path / "more", undo("fox"), tiny_backbone, settings()).adapter.read_bytes() == at_once


def test_the_weights_are_those_of_one_erasure_of_all(tiny_backbone, sets, tmp_path):
    config = settings(everyday=0.0).model_copy(update={"state_guidance": 0.0})
    delete(tmp_path / "register", sets, tiny_backbone, config)
    erased = load_file(erase(sets, config=config, backbone=tiny_backbone, out=tmp_path / "run").adapter)
    found = load_file(Erasure.load(tmp_path / "register").adapter)
    assert found.keys() == erased.keys()
    for name, weights in erased.items():
        torch.testing.assert_close(found[name], weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["uce", "rece", "speed", "mace"])
def test_an_erasure_of_several_concepts_does_not_depend_on_their_order(tiny_backbone, sets, tmp_path, method):
    runs = [
        erase(order, config=load_config(None, {"method": method}), backbone=tiny_backbone, out=tmp_path / f"{n}")
        for n, order in enumerate((sets, sets[::-1]))
    ]
    one, two = (load_file(run.adapter) for run in runs)
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("writer", ["write_tensors", "write_adapter", "write_sets", "write_run", "write_json"])
def test_a_deletion_that_was_killed_is_repeated(tiny_backbone, sets, tmp_path, monkeypatch, writer):
    whole = delete(tmp_path / "whole", sets[:2], tiny_backbone)
    delete(tmp_path / "killed", sets[:1], tiny_backbone)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(registers, writer, killed)
        with pytest.raises(KeyboardInterrupt):
            delete(tmp_path / "killed", sets[1:2], tiny_backbone)
    assert list(Register.read(tmp_path / "killed").deleted()) == ["cat"]
    assert delete(tmp_path / "killed", sets[1:2], tiny_backbone) == whole


def test_the_register_says_who_when_and_why_and_which_weights(tiny_backbone, cats, tmp_path):
    weights = delete(tmp_path, [cats], tiny_backbone, by="legal", reason="request 7")
    assert change_register(tmp_path, undo("cat", by="me"), tiny_backbone, settings()) is None
    assert not (tmp_path / "adapter.safetensors").exists()
    one, two = json.loads((tmp_path / "register.json").read_text())["events"]
    assert (one["action"], one["target"], one["by"], one["reason"]) == ("delete", "cat", "legal", "request 7")
    assert one["concepts_sha256"] == hashlib.sha256(dump_concepts(cats).encode()).hexdigest()[:32]
    assert one["weights"] == f"sha256:{hashlib.sha256(weights).hexdigest()}"
    assert (two["action"], two["by"], two["weights"]) == ("undo", "me", None)
    assert Register.read(tmp_path).events[0].concepts == cats
    assert delete(tmp_path, [cats], tiny_backbone) == weights


def test_what_can_not_be_done_is_one_line_and_changes_nothing(tiny_backbone, cats, ships, tmp_path, monkeypatch):
    weights = delete(tmp_path / "r", [cats], tiny_backbone)
    before = (tmp_path / "r" / "register.json").read_text()
    run = erase(cats, config=settings(), backbone=tiny_backbone, out=tmp_path / "run")
    for folder, events, config, words in (
        ("r", deletions(ships, cats), settings(), "'cat' was deleted on"),
        ("r", undo("ship"), settings(), "'ship' is not deleted. See "),
        ("new", deletions(cats), load_config("speed"), "speed can't delete concepts one by one"),
        ("new", deletions(cats), load_config("demo"), "esd can't delete concepts one by one"),
        (run.folder, deletions(ships), settings(), "holds a run already"),
    ):
        with pytest.raises(CRCEError, match=words) as fault:
            change_register(tmp_path / folder, events, tiny_backbone, config)
        assert "\n" not in str(fault.value)
    assert (tmp_path / "r" / "register.json").read_text() == before
    assert (tmp_path / "r" / "adapter.safetensors").read_bytes() == weights
    monkeypatch.setattr(registers, "LARGEST", 2**20)
    with pytest.raises(CRCEError, match="sums of all rows are too large"):
        change_register(tmp_path / "r", deletions(ships), tiny_backbone, settings())
    (tmp_path / "r" / "register.json").write_text("{}")
    with pytest.raises(CRCEError, match="Cannot read"):
        change_register(tmp_path / "r", deletions(ships), tiny_backbone, settings())
