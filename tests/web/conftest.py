"""A folder of runs with one finished run in it, and the application over it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from crce.web.app import create_app
from crce.web.sampler import Sampler


HERE = {"origin": "http://testserver"}  # what a browser says when a page of the server sends a form


@pytest.fixture
def root(tmp_path: Path, short_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of runs with the short run "cat-1"."""
    monkeypatch.setenv("CRCE_DECISIONS", str(tmp_path / "decisions.jsonl"))
    shutil.copytree(short_run, tmp_path / "runs" / "cat-1")
    return tmp_path / "runs"


@pytest.fixture
def client(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A browser without scripts, whose requests come from our own pages; no images are generated for it."""
    monkeypatch.setattr(Sampler, "work", lambda self: None)
    app = create_app(root, hosts=["testserver"])
    with TestClient(app, headers=HERE) as client:
        yield client


@pytest.fixture
def drawing_client(root: Path) -> Iterator[TestClient]:
    """As `client`, with images."""
    app = create_app(root, hosts=["testserver"])
    with TestClient(app, headers=HERE) as client:
        yield client
