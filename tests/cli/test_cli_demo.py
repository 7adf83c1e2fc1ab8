"""The whole way on the bundled model: erase, measure, report, draw."""

from __future__ import annotations

import inspect
import json
from dataclasses import fields

import pytest

from crce.training.run_folder import HEADLINES


CATS = """\
target: cat
corefs: [kitty, {text: kitten, held_out: true}]
retains: [dog, {text: tiger, held_out: true}]
"""


@pytest.fixture(scope="module")
def erased(crce, sketched, tmp_path_factory):
    """A short erasure of "cat" from the bundled model, with its report on a few phrases."""
    cats = tmp_path_factory.mktemp("demo") / "cat.yaml"
    cats.write_text(CATS)
    folder = cats.parent / "run"
    result = crce("erase", cats, "--steps", 3, "--pool", 1, "--images-per-prompt", 1, "--out", folder)
    assert result.code == 0, result.err
    return folder, result


def test_erase_ends_in_a_report_with_the_headline_numbers(erased):
    folder, result = erased
    report = json.loads((folder / "report.json").read_text())
    assert f"report   {folder / 'report.html'}" in result.out
    assert report["verdict"] in result.out
    for name in HEADLINES.values():
        assert name in result.out
    assert (folder / "report.html").stat().st_size > 10_000


def test_bundled_model_takes_the_demo_recipe(erased):
    from crce.training import load_config

    folder, _ = erased
    config = json.loads((folder / "run.json").read_text())["config"]
    assert config == load_config("demo", {"steps": 3, "pool": 1}).model_dump(mode="json")


def test_nothing_of_the_libraries_reaches_the_terminal(erased):
    _, result = erased
    for line in result.err.splitlines():
        assert line.startswith(("run ", "erasing ", "generating and judging ")), line


def test_evaluate_measures_the_run_again(crce, erased):
    folder, _ = erased
    result = crce("evaluate", folder, "--images-per-prompt", 1, "--steps", 2, "--seed", 7)
    assert result.code == 0, result.err
    settings = json.loads((folder / "report.json").read_text())["settings"]
    assert (settings["seed"], settings["steps"], settings["images_per_prompt"]) == (7, 2, 1)


def test_unknown_judge(crce, erased):
    folder, _ = erased
    result = crce("evaluate", folder, "--judge", "nobody")
    assert result.code == 2
    assert "nobody" in result.err
    assert "emoji" in result.err


def test_defaults_are_those_of_the_function():
    from crce.cli.evaluate import evaluate as verb
    from crce.evaluate.settings import ConceptSetSettings

    defaults = {field.name: field.default for field in fields(ConceptSetSettings)}
    of_prompts = ("prompts", "limit", "concept")
    for name, parameter in inspect.signature(verb).parameters.items():
        if name != "run" and name not in of_prompts:  # where the verb has none, the function's own holds
            assert parameter.default in (defaults[name], None), name


def test_generate_draws_from_the_bundled_model(crce, tmp_path):
    result = crce("generate", "a kitten", "--n", 8, "--steps", 2, "--out", tmp_path)
    assert result.code == 0, result.err
    assert len(list(tmp_path.glob("a-kitten-*.png"))) == 8
    assert (tmp_path / "sheet.png").is_file()
