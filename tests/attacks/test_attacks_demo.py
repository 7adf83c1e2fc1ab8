"""Attacks on a real erasure: "cat" leaves the bundled model in closed form, and what brings it back is measured."""

from __future__ import annotations

import contextlib
import io
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from crce.attacks import attack, load_attack
from crce.cli.main import main
from crce.concepts import find_concepts
from crce.training import erase, load_config


QUICK = ["--phrases", 1, "--images-per-prompt", 2, "--images-per-try", 1, "--steps", 4]


@pytest.fixture(scope="module")
def run(demo_backbone, tmp_path_factory):
    # With guidance or fewer everyday words it goes further, and fine-tuning fails.
    overrides = {"method": "speed", "everyday": 100.0, "state_guidance": 0.0}
    folder, config = tmp_path_factory.mktemp("cat") / "run", load_config(overrides=overrides)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crce.training.state_rows.EVERYDAY", 300)
        return erase(find_concepts("cat"), config=config, backbone=demo_backbone, out=folder)


def crce(*arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(a) for a in arguments])
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def settings(demo_backbone):
    """The same for all, so that plain prompts are drawn once."""
    drawn = {"images_per_prompt": 10, "images_per_try": 3, "steps": 8}
    return {"backbone": demo_backbone, "phrases": 1, "plain": {}, **drawn}


def test_fine_tuning_brings_back_what_the_plain_prompt_does_not(run, settings):
    one = load_attack("relearning")
    one.every = 15
    result = attack(run, one, budget=30, **settings)
    summary = result.summary
    assert summary["base"]["hits"] >= 5
    assert summary["before"]["hits"] == 0
    assert summary["after"]["hits"] >= 5
    assert summary["p"] < 0.05
    details = result.data["outcomes"][0]["details"]
    assert details["curve"][0]["share"] < 0.5
    assert details["back_after"] in (15, 30)
    assert details["loss"]["last"] < details["loss"]["first"]


def test_learned_word_brings_it_back_too_and_loads_into_diffusers(run, settings):
    one = load_attack("inversion")
    one.batch = 2
    result = attack(run, one, budget=100, **settings)
    assert result.summary["before"]["hits"] == 0
    assert result.summary["after"]["hits"] >= 3
    word = load_file(result.folder / result.data["outcomes"][0]["found"]["word"])
    assert {name: tuple(tensor.shape) for name, tensor in word.items()} == {"<cat>": (1, 384)}


def test_spelling_does_not_bring_it_back_and_that_is_said(run, settings):
    result = attack(run, "homoglyph", budget=2, **settings)
    assert result.summary["before"]["hits"] == 0
    assert result.summary["p"] > 0.05
    assert result.summary["brought_back"] == 0


def test_genetic_search_comes_nearer_than_chance(run, settings):
    one = load_attack("ring-a-bell")
    one.population, one.words = 8, 4
    few = {"images_per_prompt": 1, "images_per_try": 1, "plain": {}}  # no image is asked what came nearer
    details = attack(run, one, budget=3, **settings | few).data["outcomes"][0]["details"]
    assert details["distance_best"] < details["distance_random"]
    assert details["words"] == 4


def test_erasure_is_still_the_erasure_afterwards(run, demo_backbone):
    from crce.training import apply_adapter

    x_t, cond = torch.randn(1, *demo_backbone.latent_shape), demo_backbone.encode(["cat"])
    plain = demo_backbone.predict(x_t, 500, cond)
    adapter = apply_adapter(demo_backbone, run.adapter)
    erased = demo_backbone.predict(x_t, 500, cond)
    adapter.close()
    assert not torch.equal(plain, erased)
    assert torch.equal(plain, demo_backbone.predict(x_t, 500, cond))


@pytest.fixture
def copy(run, tmp_path):
    """The run without attacks, for the command line."""
    shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("attacks"))
    return tmp_path / "run"


def test_command_line_attacks_tabulates_and_replays(copy):
    arguments = ["attack", copy, "--attack", "typo", "--attack", "translation", "--budget", 2, *QUICK]
    code, out, err = crce(*arguments)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].split()[:3] == ["attack", "before", "after"]
    assert [line.split()[0] for line in lines[1:3]] == ["typo", "translation"]
    assert lines[-1].endswith(str(copy / "attacks" / "translation.json"))
    assert all(line.startswith(("typo ", "translation ")) for line in err.splitlines())
    code, out, err = crce("attack", copy, "--replay", copy / "attacks" / "typo.json")
    assert code == 0, err
    assert out.splitlines()[-1] == "Every image was judged as before."
    code, out, err = crce(*arguments[:4], "--budget", 2, *QUICK, "--json")
    assert code == 0, err
    (data,) = json.loads(out)
    assert data["attack"] == "typo"
    assert data["spent"]["pictures"] == 0  # all of it was drawn before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--attack", "bell"], ["bell", "ring-a-bell", ", all."]),
        (["--budget", "0"], ["--budget", "crce attack --help"]),
        (["--target", "dog"], ["dog", "cat"]),
        (["--judge", "nobody"], ["nobody", "emoji"]),
        (["--replay", "nowhere.json"], ["nowhere.json"]),
    ],
)
def test_command_line_says_in_a_line_what_is_wrong(copy, arguments, words):
    code, out, err = crce("attack", copy, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err
    assert not (copy / "attacks").exists()


def test_command_line_lists_the_attacks():
    code, out, _ = crce("attack", "--list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()][:5] == [
        "paraphrase",
        "typo",
        "translation",
        "homoglyph",
        "ring-a-bell",
    ]
    code, _, err = crce("attack", "nowhere")
    assert code == 2
    assert "run.json" in err
