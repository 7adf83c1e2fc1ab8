"""What is refused before a page sees it."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from crce.web.app import create_app
from crce.web.middleware import LARGEST


def test_another_host_name_is_refused(client):
    assert client.get("/runs", headers={"host": "evil.example"}).status_code == 421
    for host in ("", "10.1.2.3", "[", "testserver.evil.example"):
        assert client.get("/runs", headers={"host": host}).status_code == 421


def test_a_change_from_another_page_is_refused(client):
    for origin in ("http://evil.example", "http://testserver.evil.example", "null", ""):
        answer = client.post("/drafts", data={"concept": "cat"}, headers={"origin": origin})
        assert answer.status_code == 403
    assert "/drafts/" not in client.get("/").text.split("in the making")[1]


def test_a_picture_that_another_page_asks_for_is_refused(client):
    for site, mode, answered in (
        ("cross-site", "no-cors", 403),
        ("same-site", "no-cors", 403),
        ("same-origin", "cors", 200),
        ("cross-site", "navigate", 200),
        ("none", "navigate", 200),
    ):
        headers = {"sec-fetch-site": site, "sec-fetch-mode": mode}
        assert client.get("/runs", headers=headers).status_code == answered


def test_a_large_request_is_refused_by_its_length_or_as_it_comes(client):
    assert client.post("/drafts", content=b"x" * (LARGEST + 1)).status_code == 413

    def chunks():
        for _ in range(LARGEST // 1000 + 2):
            yield b"x" * 1000

    answer = client.post(
        "/drafts/upload", content=chunks(), headers={"content-type": "multipart/form-data; boundary=b"}
    )
    assert answer.status_code >= 400


def test_other_methods_are_refused(client):
    assert client.delete("/runs/cat-1").status_code == 405


def test_no_page_runs_scripts_of_others_or_can_be_framed(client):
    for path in ("/", "/runs", "/runs/cat-1", "/runs/cat-1/report.html", "/nowhere"):
        policy = client.get(path).headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy


class TestToken:
    @pytest.fixture
    def guarded(self, root):
        with TestClient(create_app(root, hosts=["testserver"], token="secret"), follow_redirects=False) as client:
            yield client

    def test_nothing_but_health_is_shown_without_it(self, guarded):
        assert guarded.get("/health").json() == {"status": "ok"}
        for path in ("/", "/runs/cat-1", "/static/app.js", "/?token=wrong", "/?token="):
            assert guarded.get(path).status_code == 401

    def test_it_may_be_called_by_address_but_by_no_foreign_name(self, guarded):
        assert guarded.get("/health", headers={"host": "10.1.2.3:8377"}).status_code == 200
        assert guarded.get("/health", headers={"host": "evil.example"}).status_code == 421

    def test_the_address_with_it_opens_the_pages_and_hides_it(self, guarded):
        answer = guarded.get("/runs?q=cat&token=secret")
        assert (answer.status_code, answer.headers["location"]) == (303, "/runs?q=cat")
        assert "HttpOnly" in answer.headers["set-cookie"]
        assert guarded.get("/runs").status_code == 200
