"""`push` writes a folder that stands by itself, and uploads it."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import hub
import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline
from huggingface_hub import constants
from markdown_it import MarkdownIt
from PIL import Image
from runs import latents

from crce.concepts import ConceptSet, Related, read_concepts
from crce.errors import ConfigError, RunError
from crce.export import check, push
from crce.export.base import public_judge
from crce.files import read_tensors, write_json


MEASURE = {"value": 0.91, "low": 0.8, "high": 1.0, "n": 40}
REPORT = {
    "target": "cat",
    "kind": "object",
    "model": "/home/someone/model",
    "verdict": "Cat is erased.",
    "summary": {"erased": MEASURE, "coref_erased": {"value": None, "n": 0, "reason": "no held-out corefs"}},
    "judge": {"name": "emoji", "version": "1", "hash": "00ff", "classes": 126},
    "settings": {"images_per_prompt": 8, "seed": 1, "steps": 20, "guidance": 4.0},
    "groups": {"target": {"prompts": [{"text": "cat", "image": "images/00-target-cat.webp"}]}},
}


def evaluated(erasure):
    """The run with a report and a picture."""
    write_json(erasure.folder / "report.json", REPORT)
    (erasure.folder / "images").mkdir()
    Image.new("RGB", (8, 8)).save(erasure.folder / "images" / "00-target-cat.webp")
    return erasure


def header(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_a_dry_run_writes_a_folder_that_diffusers_loads(run, drawn, cats, tiny_folder):
    erasure = run(lora_alpha=1.0)
    done = push(erasure, "me/erase-cat", dry_run=True)
    assert done.url is None
    assert done.folder == erasure.folder / "push-1"
    assert done.files == (
        "README.md",
        "concepts.yaml",
        "erase-cat-kohya-comfyui.json",
        "erase-cat-kohya.safetensors",
        "pytorch_lora_weights.safetensors",
    )
    assert read_concepts(done.folder / "concepts.yaml") == cats
    pipe = StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None)
    pipe.load_lora_weights(done.folder)
    torch.testing.assert_close(latents(pipe), drawn(erasure), rtol=1e-3, atol=2e-4)
    for name in done.files[3:]:
        assert not check(done.folder / name, against=erasure).faults
    assert push(erasure, "me/erase-cat", dry_run=True).folder == erasure.folder / "push-2"


def test_the_card_tells_what_was_erased_and_that_nothing_was_measured(run):
    done = push(run(), "me/erase-cat", dry_run=True)
    card = (done.folder / "README.md").read_text(encoding="utf-8")
    facts = header(card)
    assert facts["library_name"] == "diffusers"
    assert "concept-erasure" in facts["tags"]
    assert (facts["license"], facts["license_name"]) == ("other", "see-the-base-model")
    assert "base_model" not in facts  # a folder of this machine is no model of the Hub
    for words in ("house cat (High)", "kitten (Very High, held out)", "dog", "was not evaluated", "me/erase-cat"):
        assert words in card
    assert 'pipe.load_lora_weights("me/erase-cat", weight_name="pytorch_lora_weights.safetensors")' in card
    assert "<lora:erase-cat-kohya:1>" in card
    assert "not a guarantee" in card


def test_the_card_shows_the_report_and_its_pictures(run):
    done = push(evaluated(run()), "me/erase-cat", dry_run=True)
    card = (done.folder / "README.md").read_text(encoding="utf-8")
    assert "Cat is erased." in card
    assert "| erased | 0.91 (95 % 0.80 to 1.00, 40 images) |" in card
    assert "| erased, held-out corefs | not measured: no held-out corefs |" in card
    assert "emoji 1" in card
    assert "(images/00-00-target-cat.webp)" in card
    assert (done.folder / "images" / "00-00-target-cat.webp").is_file()
    assert "/home/someone" not in (done.folder / "report.json").read_text(encoding="utf-8")


EVIL = (
    "<script>alert(1)</script>",
    "![cat](http://evil.example/cat.png)",
    "[a cat](javascript:alert(1))",
    "<img src=x onerror=alert(1)>",
    "http://evil.example www.evil.example <http://evil.example>",
    "`| a | b |` **loud** ~~gone~~ # title",
    "&lt;b&gt; \\[x](y) --- {{ base }} {% raw %}",
)


def test_names_and_phrases_stay_text_in_the_card(run):
    phrases = tuple(Related(text) for text in EVIL)
    erasure = evaluated(run(sets=(ConceptSet("<b>cat</b> [x](http://evil.example)", corefs=phrases),)))
    report = REPORT | {
        "verdict": f"{EVIL[0]} is erased.",
        "judge": REPORT["judge"] | {"name": EVIL[1], "hash": EVIL[5]},
    }
    report["groups"] = {"target": {"prompts": [{"text": EVIL[2], "image": "images/00-target-cat.webp"}]}}
    write_json(erasure.folder / "report.json", report)
    erasure.info["model"] += "/x`\n---\nlicense: mit\n# y"
    card = (push(erasure, "me/erase-cat", dry_run=True).folder / "README.md").read_text(encoding="utf-8")
    assert header(card)["license_name"] == "see-the-base-model"
    body = card.split("---\n", 2)[2]
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(body)
    assert not re.search(r"(?i)https?://|www\.", body.split("## How to load it")[0])
    inline = [child for token in tokens for child in token.children or []]
    active = {"html_block", "html_inline", "link_open", "s_open"}
    assert not active & {child.type for child in (*tokens, *inline)}
    assert [child.attrGet("src") for child in inline if child.type == "image"] == ["images/00-00-target-cat.webp"]
    shown = " ".join("".join(c.content for c in token.children) for token in tokens if token.children)
    for text in EVIL:
        assert text in shown


def test_of_several_targets_each_has_its_picture(run, cats):
    erasure = run(sets=(cats, ConceptSet("ark")))
    entries = []
    for name in ("cat", "ark"):
        own = erasure.folder / "targets" / name
        (own / "images").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(own / "images" / "00-target.webp")
        prompts = {"prompts": [{"text": name, "image": "images/00-target.webp"}]}
        write_json(own / "report.json", REPORT | {"target": name, "groups": {"target": prompts, "coref": prompts}})
        entries.append({"target": name, "summary": {}, "verdict": "", "report": f"targets/{name}/report.html"})
    overview = {k: v for k, v in REPORT.items() if k not in ("target", "kind", "groups")}
    write_json(erasure.folder / "report.json", overview | {"targets": entries})
    done = push(erasure, "me/erase-both", dry_run=True)
    card = (done.folder / "README.md").read_text(encoding="utf-8")
    assert "# cat, ark, erased" in card
    assert "- **ark** is erased" in card
    assert [name for name in done.files if name.startswith("images/")] == [
        "images/00-00-target.webp",
        "images/01-00-target.webp",
    ]
    assert "(images/01-00-target.webp)" in card


def test_pictures_of_an_explicit_target_stay_here(run, cats):
    done = push(evaluated(run(sets=(replace(cats, kind="explicit"),))), "me/x", dry_run=True)
    assert not any(name.startswith("images/") for name in done.files)
    assert any("explicit" in note for note in done.notes)


def test_a_model_of_the_hub_is_linked_and_its_licence_is_its_own(run, tiny_folder):
    erasure = run()
    path = erasure.folder / "run.json"
    info = json.loads(path.read_text())
    write_json(path, info | {"model": "some/folder"})  # pinned by a hash: it was a folder here
    done = push(erasure.folder, "me/erase-cat", dry_run=True)
    assert "base_model" not in header((done.folder / "README.md").read_text(encoding="utf-8"))
    write_json(path, info | {"model": "some/model", "revision": None})
    done = push(erasure.folder, "me/erase-cat", dry_run=True)
    facts = header((done.folder / "README.md").read_text(encoding="utf-8"))
    assert facts["base_model"] == "some/model"
    assert facts["license"] == "other"
    (tiny_folder / "README.md").write_text("---\nlicense: openrail\n---\n# A model\n")
    try:
        write_json(path, info)
        done = push(erasure.folder, "me/erase-cat", dry_run=True)
        assert header((done.folder / "README.md").read_text(encoding="utf-8"))["license"] == "openrail"
    finally:
        (tiny_folder / "README.md").unlink()


def test_whole_weights_are_published_as_a_lora(run):
    done = push(run(adapter="weights"), "me/erase-cat", dry_run=True)
    assert any("rank 3" in note for note in done.notes)
    _, metadata = read_tensors(done.folder / "pytorch_lora_weights.safetensors")
    assert metadata["factorised_from"] == "weights"


@pytest.fixture(autouse=True)
def _reachable(monkeypatch):
    """The Hub of these tests is on this computer, and the others' offline mode would keep it away."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def test_the_folder_is_uploaded_as_it_is(run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    with hub.running() as there:
        monkeypatch.setattr(constants, "ENDPOINT", there.address)
        done = push(run(), "me/erase-cat", private=True)
    assert done.url == f"{there.address}/me/erase-cat"
    assert there.private == {"me/erase-cat": True}
    assert there.tokens == {"Bearer hf_of_the_test"}
    assert {path for _, path in there.files} == set(done.files)
    for name in done.files:
        assert there.files["me/erase-cat", name] == (done.folder / name).read_bytes()


@pytest.mark.parametrize(("status", "words"), [(401, "hf auth login"), (403, "hf auth login"), (500, "try again")])
def test_a_refused_upload_is_one_line_and_the_folder_stays(run, monkeypatch, status, words):
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    erasure = run()
    with hub.running(status) as there:
        monkeypatch.setattr(constants, "ENDPOINT", there.address)
        with pytest.raises(RunError, match=words) as caught:
            push(erasure, "me/erase-cat")
    assert "\n" not in str(caught.value)
    assert (erasure.folder / "push-1" / "README.md").is_file()


def test_a_hub_that_is_not_there_is_one_line(run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    with hub.running() as there:
        address = there.address
    monkeypatch.setattr(constants, "ENDPOINT", address)
    with pytest.raises(RunError, match="hf upload me/erase-cat") as caught:
        push(run(), "me/erase-cat")
    assert "\n" not in str(caught.value)


def test_a_name_that_is_none_is_refused_before_anything_is_written(run):
    erasure = run()
    for name in ("erase-cat", "me/erase cat", "a/b/c", "/etc"):
        with pytest.raises(ConfigError, match="user/name"):
            push(erasure, name)
    assert not (erasure.folder / "push-1").exists()
    with pytest.raises(RunError, match="exists already"):
        push(erasure, "me/erase-cat", out=erasure.folder, dry_run=True)


def test_the_folders_of_this_machine_are_not_published(tmp_path):
    (tmp_path / "my-clip").mkdir()
    names = {
        f"clip:{tmp_path / 'my-clip'}": "clip:my-clip",
        "emoji": "emoji",
        "vision:openai:gpt-4o": "vision:openai:gpt-4o",
    }
    assert {name: public_judge(name) for name in names} == names
