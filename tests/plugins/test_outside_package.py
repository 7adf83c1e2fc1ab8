"""A package that is installed beside crce brings a part of each kind, and every part is used like crce's own."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from pathlib import Path

import pytest
import tiny
from diffusers import StableDiffusionPAGPipeline

import crce
from crce import registry
from crce.backbones import FAMILIES, load_backbone
from crce.cli.main import main
from crce.concepts import read_concepts
from crce.errors import ConfigError
from crce.methods.table import METHODS, support


PIPELINE = "StableDiffusionPAGPipeline"
ENTRY_POINTS = f"""\
[crce.methods]
to-nothing = outside_parts:METHOD
ghost = not_there:METHOD
[crce.backbones]
{PIPELINE} = outside_parts:GuidedBackbone
GhostPipeline = not_there:Backbone
[crce.judges]
brightness = outside_parts:Brightness
[crce.suggesters]
parrot = outside_parts:Parrot
[crce.attacks]
shout = outside_parts:ATTACK
[crce.prompt_sets]
lines = outside_parts:read_prompts
[crce.export_formats]
list = outside_parts:FORMAT
"""
FEW = {"steps": 2, "pool": 1, "ddim_steps": 3}


@pytest.fixture(scope="module", autouse=True)
def package(tmp_path_factory):
    """The package as pip would leave it: a module, and the metadata with its entry points."""
    site = tmp_path_factory.mktemp("site")
    info = site / "outside_parts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-parts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    shutil.copy(Path(__file__).with_name("outside_parts.py"), site)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        yield
    sys.modules.pop("outside_parts", None)


@pytest.fixture(scope="module")
def run(package, demo_backbone, tmp_path_factory):
    """Erased from the bundled model by the method of the package."""
    folder = tmp_path_factory.mktemp("run") / "cat"
    return crce.erase("cat", method="to-nothing", backbone=demo_backbone, out=folder, **FEW)


def command(*words: object) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main([str(word) for word in words])
    assert code == 0, err.getvalue()
    return out.getvalue()


def test_a_method(run):
    assert run.info["config"]["method"] == "to-nothing"
    assert run.adapter.is_file()
    assert "to-nothing" in command("methods")


def test_a_model_family(tmp_path):
    parts = tiny.pipeline(tmp_path / "parts").components
    parts = {name: parts[name] for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    pipe = StableDiffusionPAGPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipe.save_pretrained(tmp_path / "model")
    assert type(load_backbone(str(tmp_path / "model"), device="cpu")).__name__ == "GuidedBackbone"
    run = crce.erase("cat", model=str(tmp_path / "model"), device="cpu", out=tmp_path / "run", **FEW)
    assert run.info["steps_done"] == 2
    (sample,) = crce.generate("cat", run=run, n=1, steps=1, device="cpu")
    assert sample.image is not None
    assert support("esd", PIPELINE).level == "experimental"


def test_a_judge(run, demo_backbone):
    quick = {"images_per_prompt": 1, "steps": 1, "phrases_per_group": 1}
    report = crce.evaluate(run, judge="brightness", backbone=demo_backbone, **quick)
    assert report.data["judge"]["name"] == "brightness"


def test_a_suggester(tmp_path):
    command("suggest", "walrus", "--suggester", "parrot", "--held-out", 0, "--out", tmp_path / "walrus.yaml")
    concepts = read_concepts(tmp_path / "walrus.yaml")
    assert [c.text for c in concepts.corefs + concepts.retains] == ["big walrus", "parrot"]


def test_an_attack(run):
    few = ["--phrases", 1, "--images-per-prompt", 1, "--images-per-try", 1, "--steps", 1]
    command("attack", run.folder, "--attack", "shout", *few)
    data = json.loads((run.folder / "attacks" / "shout.json").read_text(encoding="utf-8"))
    assert data["attack"] == "shout"
    assert "shout" in command("attack", "--list")


def test_a_prompt_set(run, tmp_path):
    (tmp_path / "prompts.txt").write_text("a cat on a mat\n")
    few = ["--images-per-prompt", 1, "--steps", 1]
    command("evaluate", run.folder, "--prompts", f"lines:{tmp_path}", "--judge", "emoji", *few)
    assert (run.folder / "prompts" / "prompts" / "report.json").is_file()


def test_an_export_format(run):
    assert crce.export(run, to="list").path.read_text(encoding="utf-8") == "cat"
    with pytest.raises(ConfigError, match="Did you mean 'list'"):
        crce.export(run, to="lisst")


def test_parts_that_can_not_be_loaded_are_warned_of_and_leave_the_others_usable(caplog):
    registry._warn.cache_clear()
    assert METHODS["to-nothing"]
    assert "ghost" not in list(METHODS)
    assert "GhostPipeline" not in list(FAMILIES)
    assert PIPELINE in FAMILIES
    for name in ("ghost", "GhostPipeline"):
        assert f"{name!r} (not_there:" in caplog.text
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(["methods", "--json"]) == 0
    assert "to-nothing" in json.loads(out.getvalue())
    with pytest.raises(ConfigError, match="method 'ghost' .* can't be loaded: .*not_there"):
        METHODS.find("ghost")
