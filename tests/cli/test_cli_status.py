"""What takes time says so before it is done."""

from __future__ import annotations

import io
import shutil

import pytest


class AtOnce:
    """A timer that does not wait."""

    def __init__(self, seconds, function, arguments, options):
        self.call = lambda: function(*arguments, **options)

    def start(self):
        self.call()

    def cancel(self):
        pass


@pytest.fixture(scope="module")
def run(short_run, tmp_path_factory):
    return shutil.copytree(short_run, tmp_path_factory.mktemp("status") / "cat")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("erase cat --method uce --no-eval", "loading the model"),
        ("erase --resume {run}", "loading the model"),
        ("generate cat --n 1 --steps 1", "loading the model"),
        ("evaluate {run} --images-per-prompt 1 --steps 1", "loading model and judge"),
        ("attack {run} --attack typo --budget 1 --phrases 1 --images-per-prompt 1 --steps 1", "loading the model"),
        ("export {run} --to kohya", "exporting to kohya"),
        ("check {run}/adapter.safetensors", "checking"),
        ("info {run}", "reading"),
        ("push {run} me/cat --dry-run", "writing the folder"),
        ("suggest walrus", "suggesting"),
        ("plan", "reading the model's description"),
        ("methods", "reading the methods"),
    ],
)
def test_a_verb_says_what_it_does_before_it_is_done(crce, run, tmp_path, monkeypatch, command, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("threading.Timer", AtOnce)
    result = crce(*command.format(run=run).split())
    assert result.code == 0, result.err
    assert f"{said} ...\n" in result.err


def test_on_a_terminal_the_line_moves_and_leaves_nothing(monkeypatch):
    from rich.console import Console

    from crce.cli.terminal import Bar

    screen = io.StringIO()
    monkeypatch.setattr("rich.console.Console", lambda **_: Console(file=screen, force_terminal=True, width=80))
    with Bar("erasing", "loading the model", light=True) as bar:
        bar.progress.refresh()
        assert "loading the model ..." in screen.getvalue()
        bar.show(1, 4)
        bar.progress.refresh()
        assert "erasing" in screen.getvalue()
    assert bar.progress.live.is_started is False
    assert "\x1b[2K" in screen.getvalue()[-40:]  # the line is cleared
