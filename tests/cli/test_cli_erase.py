"""`crce erase` on a tiny pipeline of the real classes: recipes, flags, folders, interruption."""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest

from crce.training import Step


SMALL = ["--pool", "2", "--device", "cpu", "--no-eval"]


@pytest.fixture(scope="module")
def finished(crce, tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("erase") / "run"
    result = crce("erase", "cat", "--model", tiny_folder, "--steps", 3, "--out", folder, *SMALL)
    assert result.code == 0, result.err
    return folder, result


def test_run_folder_is_complete_and_named(finished):
    folder, result = finished
    info = json.loads((folder / "run.json").read_text())
    assert info["status"] == "finished"
    assert info["steps_done"] == 3
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 3
    assert f"weights  {folder / 'adapter.safetensors'}" in result.out
    assert f"crce generate cat --run {folder}" in result.out


def test_progress_tells_every_term_where_there_is_no_terminal(finished):
    _, result = finished
    last = result.err.strip().splitlines()[-1]
    assert "3/3" in last
    for term in ("loss", "target", "coref", "retain"):
        assert term in last


def test_recipe_of_another_model_is_sd15(finished):
    from crce.training import load_config

    folder, _ = finished
    config = json.loads((folder / "run.json").read_text())["config"]
    assert config == load_config("sd15", {"steps": 3, "pool": 2}).model_dump(mode="json")


def test_flags_win_over_the_recipe(crce, tiny_folder, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("steps: 40\nrank: 2\ncrce: true\npool: 2\n")
    command = ["erase", "cat", "--model", tiny_folder, "--config", recipe, "--out", tmp_path / "run"]
    result = crce(*command, "--steps", 2, "--no-crce", "--no-eval", "--device", "cpu")
    assert result.code == 0, result.err
    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert (config["steps"], config["rank"], config["crce"]) == (2, 2, False)
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])["coref"] == 0


def test_a_run_is_never_overwritten(crce, tiny_folder, finished, tmp_path, monkeypatch):
    folder, _ = finished
    before = (folder / "adapter.safetensors").read_bytes()
    result = crce("erase", "cat", "--model", tiny_folder, "--steps", 1, "--out", folder, *SMALL)
    assert result.code == 2
    assert str(folder) in result.err
    assert (folder / "adapter.safetensors").read_bytes() == before

    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert crce("erase", "cat", "--model", tiny_folder, "--steps", 1, *SMALL).code == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["cat-1", "cat-2"]


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_interrupted_run_says_how_to_resume_and_resumes(crce, tiny_folder, tmp_path, monkeypatch):
    from crce.cli import erase

    progress = erase._progress

    def progress_and_interrupt(*given):
        tell = progress(*given)

        def tell_and_interrupt(event):
            tell(event)
            if isinstance(event, Step) and event.step == 3:
                os.kill(os.getpid(), signal.SIGINT)

        return tell_and_interrupt

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(erase, "_progress", progress_and_interrupt)
        result = crce("erase", "cat", "--model", tiny_folder, "--steps", 6, "--out", folder, *SMALL)
    assert result.code == 130, result.err
    assert result.err.endswith(f"crce erase --resume {folder}\n")
    assert "Traceback" not in result.err
    info = json.loads((folder / "run.json").read_text())
    assert (info["status"], info["steps_done"]) == ("interrupted", 3)

    result = crce("erase", "--resume", folder, "--device", "cpu")
    assert result.code == 0, result.err
    assert not (folder / "report.json").exists()  # nobody asked for pictures, then or now
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_interrupted_evaluation_keeps_the_weights_and_says_what_to_run(crce, tiny_folder, tmp_path, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("crce.cli.erase.measure", stop)
    folder = tmp_path / "run"
    small = [option for option in SMALL if option != "--no-eval"]
    result = crce("erase", "cat", "--model", tiny_folder, "--steps", 1, "--out", folder, *small)
    assert result.code == 130
    assert f"crce evaluate {folder}" in result.err
    assert (folder / "adapter.safetensors").is_file()


def test_folder_that_cannot_be_written(crce, tiny_folder, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    out = tmp_path / "file" / "run"
    result = crce("erase", "cat", "--model", tiny_folder, "--steps", 1, "--out", out, *SMALL)
    assert result.code == 2
    assert str(out) in result.err
    assert result.err.splitlines()[-1].startswith("error: Cannot write")


def test_a_model_that_was_read_in_part_is_measured_on_a_cpu_only_if_asked(crce, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("crce.backbones.text_side.SMALL", 0)
    how = ("--method", "uce", "--model", tiny_folder, "--device", "cpu", "--out", tmp_path / "run")
    result = crce("erase", "cat", *how)
    assert result.code == 0, result.err
    assert "measured no, as images of a model of this size take hours on a CPU" in result.out
    assert json.loads((tmp_path / "run" / "run.json").read_text())["loaded"] == "text side"
    assert not (tmp_path / "run" / "report.json").exists()


def test_a_judge_that_is_mistyped_is_told_before_the_training(crce, tiny_folder, tmp_path):
    result = crce("erase", "cat", "--model", tiny_folder, "--judge", "clpi:x", "--out", tmp_path / "run", "--eval")
    assert (result.code, "clip" in result.err) == (2, True)
    assert not (tmp_path / "run").exists()
