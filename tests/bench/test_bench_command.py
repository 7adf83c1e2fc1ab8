"""`crce bench` at the terminal."""

from __future__ import annotations

import sys

import pytest

from crce.cli.main import main


@pytest.fixture
def small(write, tiny_folder):
    return write(
        f"concepts: [cat]\nmethods: [uce]\ncrce: [false, true]\nmodels: ['{tiny_folder.as_posix()}']\n"
        "evaluate: {images_per_prompt: 1, phrases_per_group: 1, steps: 2}\n"
    )


def run(*arguments):
    return main(["bench", *map(str, arguments)])


def test_dry_run_then_all_then_nothing(small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(small, "--dry-run", "--device", "cpu") == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "new      cat: uce, seed 0",
        "new      cat: uce+crce, seed 0",
        "2 cells: 0 cached, 0 begun, 2 new",
    ]
    assert not (tmp_path / "runs").exists()
    assert run(small, "--device", "cpu") == 0
    told = capsys.readouterr()
    assert "| uce+crce |" in told.out
    assert "cells 2/2" in told.err
    assert (tmp_path / "runs" / "bench" / "grid" / "results.json").is_file()
    assert len(list((tmp_path / "runs" / "cells").iterdir())) == 2
    assert run(small, "--dry-run", "--device", "cpu") == 0
    assert "2 cells: 2 cached" in capsys.readouterr().out
    assert run(small, "--device", "cpu") == 0
    assert "2 measured before" in capsys.readouterr().err


def test_a_failed_cell_is_exit_code_1(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("crce.bench.worker.evaluate", lambda *_, **__: 1 / 0)
    assert run(small, "--cache", tmp_path / "cells", "--out", tmp_path / "out", "--device", "cpu") == 1
    told = capsys.readouterr()
    assert "failed   cat: uce, seed 0: ZeroDivisionError" in told.err
    assert told.err.splitlines()[-1] == "error: 2 cells failed. The same command tries them again."


def test_ctrl_c_says_how_to_go_on(small, tmp_path, monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("crce.bench.worker.evaluate", stop)
    assert run(small, "--cache", tmp_path / "cells", "--out", tmp_path / "out", "--device", "cpu") == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "Interrupted; 0 of 2 cells are done. The same command continues."


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.yaml"], ["nowhere.yaml"]),
        (["grid.yaml", "--jobs", "0"], ["--jobs", "crce bench --help"]),
        (["grid.yaml", "--device", "abacus"], ["abacus", "auto"]),
        (["wrong.yaml"], ["wrong.yaml:2", "'ecd'", "'esd'"]),
    ],
)
def test_errors_are_one_line_and_exit_code_2(small, write, tmp_path, monkeypatch, capsys, arguments, words):
    write("concepts: [cat]\nmethods: [ecd]\n", "wrong.yaml")
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    for word in words:
        assert word in told.err


def test_ray_that_is_missing_is_told_with_its_command(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run(small, "--ray", "--cache", tmp_path / "cells", "--out", tmp_path / "out") == 2
    assert "pip install 'crce[ray]'" in capsys.readouterr().err
