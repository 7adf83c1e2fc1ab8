"""The first hour with a model that is not the bundled one: from `crce erase` to report, refinement, attack and export.

The pipelines are the families' real classes with random weights, and so is the CLIP that judges: it is tested that
every verb works on every family, not what the numbers are. They are named as distilled models are, whose images take a
few steps.
"""

from __future__ import annotations

import json

import pytest
import tiny_families
from judges import models
from PIL import Image

from crce.training import Erasure


FAMILIES = {
    "sd1": ("turbo", 32),
    "sdxl": ("turbo", 32),
    "sd3": ("turbo", 32),
    "flux_schnell": ("schnell", 32),
    "flux2_klein_distilled": ("distilled", 32),
    "z_image": ("turbo", 256),  # its tiny autoencoder makes 128 pixels of one latent
}
SETS = """\
target: cat
corefs: [kitty, {text: feline, held_out: true}, {text: kitten, held_out: true}]
retains: [dog, {text: fox, held_out: true}, {text: wolf, held_out: true}]
"""
FEW = ["--steps", 2, "--pool", 1, "--corefs-per-step", 1, "--retains-per-step", 1, "--rank", 2]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return f"clip:{models.clip(tmp_path_factory.mktemp('clip') / 'clip')}"


@pytest.fixture
def erase(crce, tmp_path):
    """Erases from a family; returns the run and what was printed."""

    def erase(name, *flags):
        kin, side = FAMILIES[name]
        model = tiny_families.saved(name, tmp_path).rename(tmp_path / f"{name}-{kin}")
        (tmp_path / "cat.yaml").write_text(SETS)
        run = tmp_path / "run"
        result = crce(
            "erase", tmp_path / "cat.yaml", "--model", model, "--resolution", side, "--out", run, *FEW, *flags
        )
        assert result.code == 0, result.err
        return run, result

    return erase


@pytest.mark.parametrize("name", FAMILIES)
def test_every_verb_works_on_every_family(name, crce, erase, clip, tmp_path):
    kin, side = FAMILIES[name]
    run, _ = erase(name, "--judge", clip, "--images-per-prompt", 1)
    info = Erasure.load(run).info
    assert info["sampling"]["kin"] == kin
    assert info["config"]["guidance"] == 1
    report = json.loads((run / "report.json").read_text())
    assert report["judge"]["name"] == clip
    assert report["settings"]["steps"] == info["sampling"]["steps"] == info["config"]["ddim_steps"]
    assert report["settings"]["guidance"] == 0
    assert report["failed"] == {"base": 0, "erased": 0}
    for group in report["groups"].values():
        assert all(len(prompt["words"]["erased"]) == 1 for prompt in group["prompts"])
    pictures = list((run / "pictures").rglob("*.png"))
    assert {Image.open(path).size for path in pictures} == {(side, side)}

    result = crce(
        "attack", run, "--attack", "typo", "--budget", 1, "--phrases", 1, "--images-per-prompt", 1, "--judge", clip
    )
    assert result.code == 0, result.err
    attack = json.loads((run / "attacks" / "typo.json").read_text())
    assert attack["pictures"]["steps"] == info["sampling"]["steps"]
    assert attack["judge"]["threshold"] == report["judge"]["threshold"]  # as calibrated on the base model's images
    result = crce("refine", run, "--rounds", 1, "--judge", clip, "--device", "cpu")
    if result.code == 0:
        assert json.loads((run / "refine.json").read_text())["rounds"]
    else:  # random weights draw nothing that a random judge calls a cat, and that is said in one line
        assert result.code == 2, result.err
        assert "but can't measure the target: the base model draws it as" in result.err
    result = crce("export", run, "--to", "diffusers", "--out", tmp_path / "lora.safetensors")
    assert result.code == 0, result.err
    assert (tmp_path / "lora.safetensors").is_file()


def test_without_a_judge_a_dozen_pairs_are_shown_and_nothing_is_scored(crce, erase):
    run, result = erase("sd1")
    assert "judge    none: openai/clip-vit-large-patch14 is not in the cache" in result.err
    report = json.loads((run / "report.json").read_text())
    assert report["judge"] is None
    assert len(list((run / "pictures").rglob("*.png"))) <= 2 * 12
    assert f"sheet    {run / 'sheet.png'}" in result.out
    assert Image.open(run / "sheet.png").size[0] > 200
    (command,) = (line for line in result.out.splitlines() if line.startswith("score "))
    assert command == f"score    crce evaluate {run} --judge clip:openai/clip-vit-large-patch14"
