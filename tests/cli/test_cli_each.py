"""`crce erase --each`: a run for each concept of a list."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def each(crce, tiny_folder, tmp_path, monkeypatch):
    """Erases each concept of a list with a closed form on a tiny model."""
    monkeypatch.chdir(tmp_path)

    def run(*concepts, **files):
        for name, text in files.items():
            Path(f"{name}.txt").write_text(text)
        return crce("erase", "--each", *concepts, "--model", tiny_folder, "--method", "uce", "--device", "cpu")

    return run


def attempts():
    return {path.parent.name: len(path.read_text().splitlines()) for path in Path("runs").glob("*/attempts.jsonl")}


def test_a_list_is_erased_one_by_one_and_what_is_finished_stays(crce, each):
    first = each("cat", "list.txt", list="# ours\nMickey Mouse\n\ndgo\n")
    assert first.code == 1
    told = dict(line.split(": ", 1) for line in first.out.splitlines())
    assert list(told) == ["cat", "Mickey Mouse", "dgo"]
    assert told["dgo"].startswith("failed: 'dgo' is neither in the atlas nor a file. Did you mean 'dog'?")
    assert "error: 1 of 3 concepts failed" in first.err
    assert all((Path(told[name]) / "adapter.safetensors").is_file() for name in ("cat", "Mickey Mouse"))
    assert "target: Mickey Mouse" in (Path(told["Mickey Mouse"]) / "concepts.yaml").read_text()
    before = attempts()

    (Path(told["cat"]) / "cell.json").unlink()  # as if it had been stopped at the end
    shutil.rmtree(told["Mickey Mouse"])
    Path(told["Mickey Mouse"]).write_text("in the way")
    second = each("cat", "list.txt", "walrus", list="Mickey Mouse\n")
    assert second.code == 1
    lines = second.out.splitlines()
    assert lines[0] == f"cat: {told['cat']}"
    assert lines[1].startswith("Mickey Mouse: failed: ")
    assert lines[2].startswith("walrus: runs/walrus-uce-crce-")
    assert "0 done before" in second.err
    (walrus,) = Path("runs").glob("walrus*")
    assert (walrus / "suggest.json").is_file()
    assert attempts() == {Path(told["cat"]).name: 2, walrus.name: 1}
    assert before[Path(told["cat"]).name] == 1

    third = each("cat", "walrus")
    assert (third.code, "2 done before" in third.err) == (0, True)
    assert attempts() == {Path(told["cat"]).name: 2, walrus.name: 1}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("cat", "--jobs", 2), "--jobs would have no effect"),
        (("cat", "--each", "--film"), "--each makes a run for each concept"),
        (("nowhere.txt", "--each"), "There is no file nowhere.txt"),
    ],
)
def test_a_fault_is_one_line(crce, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    refused = crce("erase", *arguments)
    assert refused.code == 2
    assert words in refused.err
    assert not (tmp_path / "runs").exists()
