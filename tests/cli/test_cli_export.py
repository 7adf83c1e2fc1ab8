"""`crce export`, `check`, `info` and `push` on a run of the bundled model."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from crce.files import read_tensors, write_tensors


@pytest.fixture(scope="module")
def speed_run(crce, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed form: whole weights, done in a second."""
    folder = tmp_path_factory.mktemp("runs") / "cat-1"
    assert crce("erase", "cat", "--method", "speed", "--no-eval", "--out", folder).code == 0
    return folder


@pytest.fixture(scope="module")
def kohya(crce, speed_run: Path) -> Path:
    result = crce("export", speed_run, "--to", "kohya")
    assert result.code == 0
    path = Path(result.out.strip())
    assert path == speed_run / "export" / "erase-cat-kohya.safetensors"
    assert "note: whole weights as a LoRA of rank" in result.err
    return path


def test_a_closed_form_becomes_a_lora_that_agrees_with_it(crce, speed_run, kohya):
    result = crce("check", kohya, "--against", speed_run)
    assert result.code == 0
    assert result.err == ""
    for words in ("kohya LoRA", "loads in   diffusers\n", "unet", "the same as the run's"):
        assert words in result.out
    state, _ = read_tensors(kohya)
    assert all(key.startswith("lora_unet_") for key in state)


def test_a_capped_rank_is_told_and_found(crce, speed_run, tmp_path):
    result = crce("export", speed_run, "--to", "diffusers", "--rank", "1", "--out", tmp_path / "a.safetensors")
    assert result.code == 0
    assert "--to merged and single-file lose nothing" in result.err
    result = crce("check", tmp_path / "a.safetensors", "--against", speed_run, "--json")
    assert result.code == 2
    found = json.loads(result.out)
    assert found["ranks"] == {"1": found["modules"]}
    assert found["comparison"]["passed"] is False


def test_a_faulty_file_is_exit_code_2(crce, kohya, tmp_path):
    state, metadata = read_tensors(kohya)
    zeroed = {key: value * 0 if "lora_up" in key else value for key, value in state.items()}
    write_tensors(tmp_path / "zero.safetensors", zeroed, metadata)
    result = crce("check", tmp_path / "zero.safetensors")
    assert result.code == 2
    assert result.err.startswith("error: ")
    assert "changes nothing" in result.err
    assert result.err.count("\n") == 1


def test_info_tells_where_a_file_is_from(crce, speed_run, kohya):
    for path in (speed_run, kohya, speed_run / "adapter.safetensors"):
        result = crce("info", path)
        assert result.code == 0
        for words in ("cat (object)", "kitty", "SPEED with CRCE", "demo", "sha256:"):
            assert words in result.out
    facts = json.loads(crce("info", kohya, "--json").out)
    assert facts["concepts"][0]["target"] == "cat"
    assert facts["settings"]["method"] == "speed"


def test_push_without_upload(crce, speed_run, tmp_path):
    result = crce("push", speed_run, "me/erase-cat", "--dry-run", "--out", tmp_path / "folder")
    assert result.code == 0
    files = [Path(line) for line in result.out.splitlines()]
    assert {path.name for path in files} == {
        "README.md",
        "concepts.yaml",
        "erase-cat-kohya.safetensors",
        "pytorch_lora_weights.safetensors",
    }
    assert all(path.is_file() for path in files)
    assert "license: mit" in (tmp_path / "folder" / "README.md").read_text(encoding="utf-8")


REFUSED = [
    (["export"], ["RUN", "crce export --help"]),
    (["export", "nowhere"], ["--to", "crce export --help"]),
    (["export", "nowhere", "--to", "comfyui"], ["comfyui", "kohya"]),
    (["export", "nowhere", "--to", "kohya"], ["nowhere", "run.json"]),
    (["check", "nowhere.safetensors"], ["nowhere.safetensors"]),
    (["info", "nowhere"], ["nowhere"]),
    (["push", "nowhere", "me"], ["'me'", "user/name"]),
    (["push", "nowhere", "me/x", "--dry-run"], ["nowhere", "run.json"]),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED, ids=[" ".join(arguments) for arguments, _ in REFUSED])
def test_what_cannot_be_done_is_one_line_and_exit_code_2(crce, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    result = crce(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    for word in words:
        assert word in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["export", "check", "info", "push"])
def test_every_verb_shows_an_example(crce, verb):
    result = crce(verb, "--help")
    assert result.code == 0
    assert f"Example: crce {verb}" in result.out


DOCUMENT = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", DOCUMENT, re.DOTALL) for line in block.splitlines()]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_flag_in_the_document_exists(crce, line, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    _, verb, *arguments = shlex.split(line, comments=True)
    shown = crce(verb, "--help")
    assert shown.code == 0
    for argument in arguments:
        if argument.startswith("--"):
            assert f"{argument} " in shown.out


def test_the_python_of_the_document_runs(speed_run):
    (block,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    shutil.rmtree(speed_run / "export", ignore_errors=True)
    exec(block.replace("runs/cat-1", str(speed_run)), {})
    assert (speed_run / "export" / "erase-cat-kohya.safetensors").is_file()
