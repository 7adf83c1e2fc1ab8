"""`crce erase` of several concepts, on the bundled model with a closed form."""

from __future__ import annotations

import json

import pytest


SMALL = ("--method", "uce", "--images-per-prompt", 1)


@pytest.fixture(scope="module")
def first(crce, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    (folder / "cat.yaml").write_text("{target: cat, corefs: [kitty], retains: [dog]}")
    (folder / "car.yaml").write_text("{target: car, corefs: [automobile], retains: [bus]}")
    (folder / "frog.yaml").write_text("{target: frog, retains: [dog]}")
    assert crce("erase", folder / "cat.yaml", "--method", "uce", "--no-eval", "--out", folder / "cat").code == 0
    return folder / "cat"


@pytest.fixture(scope="module")
def second(crce, first, sketched):
    """An erasure of two more targets on top of the first."""
    folder = first.parent / "more"
    files = (first.parent / "car.yaml", first.parent / "frog.yaml")
    result = crce("erase", *files, "--start-from", first, "--out", folder, *SMALL)
    assert result.code == 0, result.err
    return folder, result


def test_every_target_has_its_row_and_its_page(second):
    folder, result = second
    rows = [line.split() for line in result.out.splitlines() if line.split()[:1] in (["car"], ["frog"], ["cat"])]
    assert [row[0] for row in rows] == ["car", "frog", "cat"]
    assert all(len(row) == 6 for row in rows)
    assert "erased, all targets" in result.out
    for name in ("car", "frog", "cat"):
        assert (folder / "targets" / name / "report.html").is_file()


def test_the_earlier_target_is_named_and_stays_erased(second):
    folder, result = second
    assert "cat" in result.err
    report = json.loads((folder / "report.json").read_text())
    cat = json.loads((folder / "targets/cat/report.json").read_text())["groups"]
    drawn = [p for group in ("target", "coref") for p in cat[group]["prompts"] if p["left_out"] is None]
    assert drawn, "the base model draws a cat for one of its names at least"
    assert all(prompt["erased"] == 0 for prompt in drawn)
    assert [entry["target"] for entry in report["targets"]] == ["car", "frog", "cat"]


def test_a_run_of_several_is_drawn_from_and_not_refined(crce, second, tmp_path):
    folder, _ = second
    drawn = crce("generate", "cat", "car", "--run", folder, "--n", 1, "--steps", 2, "--out", tmp_path / "sheet.png")
    assert drawn.code == 0, drawn.err
    refused = crce("refine", folder)
    assert refused.code == 2
    assert "erases several targets (car, frog, cat)" in refused.err


def test_a_file_may_hold_several_sets(crce, tmp_path):
    file = tmp_path / "two.yaml"
    file.write_text("- target: cat\n  corefs: [kitty]\n- target: dog\n  retains: [fox]\n")
    result = crce("erase", file, "--method", "uce", "--no-eval", "--out", tmp_path / "run")
    assert result.code == 0, result.err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["targets"] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("Mickey", "Mouse"), "Put it in quotes: crce erase 'Mickey Mouse'"),
        (("cat", "dog", "CAT"), "'cat' is given twice"),
        (("cat", "dgo"), "Did you mean 'dog'"),
    ],
)
def test_slips_are_told_before_anything_is_made(crce, tmp_path, given, told):
    result = crce("erase", *given, "--method", "uce", "--out", tmp_path / "run")
    assert result.code == 2
    assert told in result.err
    assert not (tmp_path / "run").exists()
