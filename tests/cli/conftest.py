"""The command line in this process, and in one of its own."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

import crce as package
from crce.cli.main import main


@dataclass(frozen=True)
class Result:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


def _run(*arguments: object) -> Result:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return Result(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def crce() -> Callable[..., Result]:
    """`crce("show", "cat")` runs the command and returns its result."""
    return _run


@pytest.fixture(scope="module", autouse=True)
def _few(few_unrelated_prompts: None) -> None:
    """Reports of few images."""


@pytest.fixture(scope="module")
def sketched() -> Iterator[None]:
    """`crce erase` measures with images of 4 steps, which no flag of it asks for."""
    import crce.evaluate as room

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "evaluate", partial(room.evaluate, steps=4))
        yield


@pytest.fixture(scope="session")
def start() -> list[str]:
    """The command line that starts crce in a process of its own."""
    return [sys.executable, "-c", "from crce.cli.main import run; run()"]


@pytest.fixture(scope="session", autouse=True)
def _same_package_in_other_processes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        source = str(Path(package.__file__).parents[1])
        patch.setenv("PYTHONPATH", source, prepend=os.pathsep)
        yield
