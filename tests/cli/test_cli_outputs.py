"""A place that can't be written is found before anything that costs is done."""

from __future__ import annotations

import errno
import shutil
import tempfile

import pytest
from llm.server import ScriptedServer, answer

from crce.errors import RunError
from crce.files import check_writable


@pytest.fixture(scope="module")
def run(short_run, tmp_path_factory):
    return shutil.copytree(short_run, tmp_path_factory.mktemp("outputs") / "cat")


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file, below which nothing can be written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "grid.yaml").write_text("concepts: [cat]\nmethods: [uce]\n")
    return tmp_path / "file"


@pytest.fixture
def nothing_is_loaded(monkeypatch):
    def load(*_, **__):
        pytest.fail("A model was loaded before the place was looked at.")

    for place in ("crce.backbones.loading.load_backbone", "crce.backbones.load_backbone"):
        monkeypatch.setattr(place, load)


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.parametrize(
    "command",
    [
        "suggest walrus --out {file}/walrus.yaml",
        "erase walrus --out {file}/run",
        "generate cat --out {file}/pictures",
        "generate cat --out {file}",
        "export {run} --to merged --out {file}/merged",
        "push {run} me/cat --dry-run --out {file}/push",
        "bench grid.yaml --out {file}/bench",
        "bench grid.yaml --cache {file}/cells",
    ],
)
def test_a_place_below_a_file_is_refused_at_once(crce, run, file, command):
    before = sorted(file.parent.rglob("*"))
    result = crce(*command.format(run=run, file=file).split())
    assert result.code == 2
    assert "nothing was done yet" in result.err
    assert result.err.splitlines()[-1].startswith(f"error: Cannot write {file}")
    assert sorted(file.parent.rglob("*")) == before


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.parametrize("command", ["evaluate {run}", "attack {run}", "refine {run}"])
def test_a_run_that_cannot_be_written_is_not_measured(crce, run, monkeypatch, command):
    def refuse(dir):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    result = crce(*command.format(run=run).split())
    assert result.code == 2
    assert result.err.startswith(f"error: Cannot write {run}")
    assert "Permission denied" in result.err


def test_a_language_model_is_not_asked_for_what_cannot_be_written(crce, file, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-secret")
    with ScriptedServer(answer("Cats are lovely.")) as server:
        asked = ["suggest", "walrus", "--suggester", "openai:tiny", "--base-url", server.url]
        result = crce(*asked, "--out", file / "walrus.yaml")
        assert result.code == 2
        assert "Cannot write" in result.err
        assert server.requests == []


def test_what_can_be_written_leaves_no_trace(tmp_path):
    check_writable(tmp_path / "new" / "deep", folder=True)
    check_writable(tmp_path / "new.yaml")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old").mkdir()
    check_writable(tmp_path / "old", folder=True)
    with pytest.raises(RunError, match="it is a folder"):
        check_writable(tmp_path / "old")
    with pytest.raises(RunError, match="too long"):
        check_writable(tmp_path / ("a" * 300))
