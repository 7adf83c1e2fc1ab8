"""`crce show`, `crce ls` and `crce env`."""

from __future__ import annotations

import json

import pytest

from crce.cli.main import choose_waiting
from crce.concepts import KINDS, atlas, find_concepts, parse_concepts


def test_show_names_every_phrase_with_its_use(crce):
    concepts = find_concepts("cat")
    result = crce("show", "Cat")
    lines = result.out.splitlines()
    for related in (*concepts.corefs, *concepts.retains):
        line = next(line for line in lines if f" {related.text} " in line)
        assert ("evaluation" if related.held_out else "training") in line
        assert related.source in line


def test_show_yaml_can_be_saved_and_shown_again(crce, tmp_path):
    result = crce("show", "cat", "--yaml")
    assert parse_concepts(result.out, "cat.yaml") == find_concepts("cat")
    path = tmp_path / "cat.yaml"
    path.write_text(result.out)
    assert crce("show", path, "--yaml").out == result.out


def test_show_prints_brackets_as_they_are(crce, tmp_path):
    path = tmp_path / "set.yaml"
    path.write_text("target: '[red] square'\ncorefs: ['a [bold] one']\nretains: ['[/] slash']\n")
    result = crce("show", path)
    assert result.code == 0
    for text in ("[red] square", "a [bold] one", "[/] slash"):
        assert text in result.out


def test_ls_lists_the_atlas_by_kind_and_the_recipes(crce):
    out = crce("ls").out
    for target in atlas():
        assert f" {target} " in out
    for kind in KINDS:
        count = sum(concepts.kind == kind for concepts in atlas().values())
        assert (f"{kind} ({count})" in out) == (count > 0)
    assert "recipes" in out
    assert "paper" in out


def test_ls_of_one_kind(crce):
    out = crce("ls", "--kind", "character").out
    assert "santa claus" in out
    assert " cat " not in out


def test_env_as_text_and_json(crce, monkeypatch, tmp_path):
    monkeypatch.setenv("CRCE_CACHE", str(tmp_path))
    facts = json.loads(crce("env", "--json").out)
    assert facts["torch"]
    assert facts["memory_gib"] > 0
    assert facts["threads"] >= 1
    assert facts["crce_cache"] == str(tmp_path)
    text = crce("env").out
    for name, value in facts.items():
        assert f"{name:<18} {value}" in text


@pytest.mark.parametrize(
    ("load", "before", "after"), [(0.2, None, "active"), (1.5, None, "passive"), (1.5, "ACTIVE", "active")]
)
def test_idle_threads_sleep_where_others_work_unless_the_user_says_otherwise(crce, monkeypatch, load, before, after):
    monkeypatch.setenv("OMP_WAIT_POLICY", before or "")  # so that it is put back
    if before is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    choose_waiting(load)
    assert json.loads(crce("env", "--json").out)["waiting"] == after


def test_methods_as_table_and_json(crce):
    levels = json.loads(crce("methods", "--json").out)
    assert levels["esd"]["StableDiffusionPipeline"] == "measured"
    shown = crce("methods").out
    assert all(name in shown for name in levels)
    assert "measured: docs/results.md has erasures of a trained model." in shown
