"""What may be answered again for a moment, and what may not."""

from __future__ import annotations

import asyncio
import shutil

import pytest
from fastapi.testclient import TestClient

from crce.web import middleware
from crce.web.app import create_app


@pytest.fixture(autouse=True)
def long_moment(monkeypatch):
    monkeypatch.setattr(middleware, "LASTING", 60.0)


def test_a_page_is_the_same_for_a_moment_and_new_after_a_change_by_a_page(client, root):
    assert "cat-1" in client.get("/runs").text
    shutil.rmtree(root / "cat-1")
    assert "cat-1" in client.get("/runs").text
    assert "cat-1" not in client.get("/runs", params={"q": "ca"}).text
    client.post("/settings", data={"theme": "dark"})
    assert "cat-1" not in client.get("/runs").text


def test_it_lasts_no_longer(client, root, monkeypatch):
    monkeypatch.setattr(middleware, "LASTING", 0.0)
    assert "cat-1" in client.get("/runs").text
    shutil.rmtree(root / "cat-1")
    assert "cat-1" not in client.get("/runs").text


def test_nobody_is_given_the_answer_to_somebody_else(client):
    assert 'data-theme="dark"' in client.get("/runs", headers={"cookie": "theme=dark"}).text
    assert 'data-theme="light"' in client.get("/runs", headers={"cookie": "theme=light"}).text
    assert client.get("/nowhere").headers["content-type"].startswith("text/html")
    assert client.get("/nowhere", headers={"hx-request": "true"}).headers["content-type"].startswith("text/plain")


def test_a_token_is_asked_for_before_anything_is_given_again(root):
    with TestClient(create_app(root, hosts=["testserver"], token="secret")) as guarded:
        assert guarded.get("/runs", headers={"cookie": "crce_token=secret"}).status_code == 200
        assert guarded.get("/runs").status_code == 401


def test_a_run_that_is_not_there_yet_is_found_when_it_is(client, root):
    shutil.move(root / "cat-1", root.parent / "elsewhere")
    assert client.get("/runs/cat-1").status_code == 400
    shutil.move(root.parent / "elsewhere", root / "cat-1")
    assert client.get("/runs/cat-1").status_code == 200


def test_an_answer_broken_off_is_not_given_again(client):
    async def gone() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def ignored(_: dict[str, object]) -> None: ...

    address = {"path": "/static/web.css", "raw_path": b"/static/web.css", "query_string": b"", "root_path": ""}
    headers = [(b"host", b"testserver")]
    scope = {"type": "http", "method": "GET", "headers": headers, "asgi": {"spec_version": "2.3"}, **address}
    asyncio.run(client.app(scope, gone, ignored))
    assert "main:focus" in client.get("/static/web.css").text
