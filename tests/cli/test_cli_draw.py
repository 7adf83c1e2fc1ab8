"""`crce generate` on a tiny pipeline of the real classes."""

from __future__ import annotations

import pytest
from edited_run import edit_run
from PIL import Image


QUICK = ["--steps", "2", "--device", "cpu"]


def pixels(path):
    return Image.open(path).tobytes()


def test_pictures_and_sheet_are_written_and_named(crce, tiny_folder, tmp_path):
    command = ["generate", "a cat", "a dog", "--n", 2, "--seed", 5, "--model", tiny_folder, "--out", tmp_path]
    result = crce(*command, *QUICK)
    assert result.code == 0, result.err
    names = ["1-a-cat-5.png", "1-a-cat-6.png", "2-a-dog-5.png", "2-a-dog-6.png", "sheet.png"]
    assert result.out.split() == [str(tmp_path / name) for name in names]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert pixels(tmp_path / names[0]) != pixels(tmp_path / names[1])


def test_same_seed_gives_the_same_picture_beside_others(crce, tiny_folder, tmp_path):
    for name, n, seed in (("one", 1, 7), ("many", 3, 6)):
        command = ["generate", "a cat", "--n", n, "--seed", seed, "--model", tiny_folder, "--out", tmp_path / name]
        assert crce(*command, *QUICK).code == 0
    one, many = pixels(tmp_path / "one" / "a-cat-7.png"), pixels(tmp_path / "many" / "a-cat-7.png")
    assert max(abs(a - b) for a, b in zip(one, many, strict=True)) <= 1  # a batch may be summed in another order


def test_default_folder_is_a_new_one(crce, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert crce("generate", "a cat", "--n", 1, "--model", tiny_folder, *QUICK).code == 0
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["a-cat-1", "a-cat-2"]


def test_before_and_after_a_run(crce, tiny_folder, tmp_path):
    command = ["erase", "cat", "--model", tiny_folder, "--steps", 3, "--learning-rate", "0.05", "--layers", "full"]
    erased = crce(*command, "--pool", 2, "--no-eval", "--device", "cpu", "--out", tmp_path / "run")
    assert erased.code == 0, erased.err
    shown = crce("generate", "cat", "--n", 1, "--run", tmp_path / "run", "--out", tmp_path / "both", *QUICK)
    assert shown.code == 0, shown.err
    before, after = (pixels(tmp_path / "both" / f"cat-0-{when}.png") for when in ("before", "after"))
    assert before != after
    crce("generate", "cat", "--n", 1, "--model", tiny_folder, "--out", tmp_path / "base", *QUICK)
    assert before == pixels(tmp_path / "base" / "cat-0.png")


def test_a_run_whose_model_has_changed_is_drawn_on_a_model_that_is_named_alone(crce, tiny_folder, tmp_path):
    command = ["erase", "cat", "--model", tiny_folder, "--steps", 1, "--pool", 2, "--no-eval", "--device", "cpu"]
    assert crce(*command, "--out", tmp_path / "run").code == 0
    edit_run(tmp_path / "run", revision="unet-sha256:0")
    draw = ["generate", "cat", "--n", 1, "--run", tmp_path / "run", "--out", tmp_path / "out", *QUICK]
    refused = crce(*draw)
    assert refused.code == 2
    assert "at unet-sha256:0, but the model here is at" in refused.err
    assert crce(*draw, "--model", tiny_folder).code == 0


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_picture_that_fails_is_reported_and_the_others_are_kept(crce, tiny_folder, tmp_path, monkeypatch):
    from crce.sampling import samples

    draw = samples.draw
    monkeypatch.setattr(samples, "draw", lambda *a, **k: [None, *draw(*a, **k)[1:]])
    result = crce("generate", "a cat", "--n", 2, "--model", tiny_folder, "--out", tmp_path, *QUICK)
    assert result.code == 1
    assert result.err.splitlines()[-1] == "error: no image of 'a cat' from seed 0: generating failed"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-cat-1.png", "sheet.png"]
