"""The whole path in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest


pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync"]
PATIENCE = 300_000  # milliseconds; machines differ
FAST = {"steps": "40", "checkpoint_every": "5", "pool": "2", "ddim_steps": "5"}


class Server:
    """`crce web` as a process of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = 0

    def start(self) -> None:
        command = [sys.executable, "-m", "crce", "web", "--no-browser", "--folder", str(self.root)]
        command += ["--port", str(self.port or 18377)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        found = re.search(r":(\d+)/", self.process.stdout.readline())
        self.port = int(found[1])
        self.address = f"http://127.0.0.1:{self.port}"
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{self.address}/health", timeout=1).read()
                return
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("web")
    os.environ["CRCE_DECISIONS"] = str(folder / "decisions.jsonl")
    server = Server(folder / "runs")
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)


@pytest.fixture
def tab(browser):
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.set_default_timeout(PATIENCE)
    page.faults = []
    page.on("console", lambda message: page.faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    yield page
    page.context.close()


def check_accessibility(page) -> None:
    """axe finds nothing by WCAG 2.2 AA."""
    from axe_playwright_python.sync_playwright import Axe

    page.wait_for_load_state("load")
    options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
    found = Axe().run(page, options=options)
    assert found.violations_count == 0, found.generate_report()


def test_from_a_word_to_before_and_after(server, tab, browser):
    """At most five clicks and one typed word; on the way a reload, a second tab and a killed server."""
    clicks = 0

    def click(page, name: str) -> None:
        nonlocal clicks
        clicks += 1
        page.get_by_role("button", name=name, exact=True).or_(page.get_by_role("link", name=name, exact=True)).click()

    tab.goto(server.address)
    check_accessibility(tab)
    tab.get_by_label("Concept", exact=True).fill("cat")
    click(tab, "Find its words")
    tab.get_by_role("heading", name="cat", exact=True).wait_for()
    check_accessibility(tab)
    tab.locator("#image-0 img").wait_for()  # what the base model draws

    # reject a coref by its button, move a retain by keys; neither is needed to go on
    rows = tab.locator(".phrase")
    tab.get_by_role("button", name="Reject kitty").click()
    tab.locator(".phrase.rejected", has_text="kitty").wait_for()
    dog = tab.locator(".phrase", has=tab.locator("strong", has_text=re.compile("^bear$")))
    dog.focus()
    tab.keyboard.press("m")
    tab.locator("section", has_text="Erased with it").locator("strong", has_text=re.compile("^bear$")).wait_for()
    tab.keyboard.press("u")
    tab.locator("section", has_text="Kept").locator("strong", has_text=re.compile("^bear$")).wait_for()
    assert rows.count() > 20

    click(tab, "Go on to the plan")
    tab.get_by_text("It fits").wait_for()
    check_accessibility(tab)
    tab.get_by_text("Settings", exact=True).last.click()
    for name, value in FAST.items():
        tab.locator(f"[name={name}]").fill(value)
    tab.locator("[name=images]").fill("1")
    tab.get_by_text("Settings", exact=True).last.click()
    click(tab, "Start")

    # progress moves; the page is reloaded, opened twice, and closed
    tab.get_by_text(re.compile(r"Training: step [1-9]")).wait_for()
    check_accessibility(tab)
    tab.reload()
    second = browser.new_context().new_page()
    second.set_default_timeout(PATIENCE)
    second.goto(tab.url)
    second.locator(".film img").first.wait_for()
    run = tab.url.rsplit("/", 1)[1]

    # the server is killed; the job goes on, and the server that comes after it finds it
    record = server.root / ".crce-web" / "jobs" / "0001" / "job.json"
    assert tab.faults == []
    server.kill()
    server.start()
    assert '"attempt": 1' in record.read_text()
    tab.goto(f"{server.address}/runs/{run}")
    tab.faults.clear()  # of the time without a server
    tab.get_by_role("heading", name="Before and after").wait_for()
    second.get_by_role("heading", name="Before and after").wait_for()
    second.context.close()
    assert '"attempt": 1' in record.read_text()
    assert len((server.root / run / "metrics.jsonl").read_text().splitlines()) == int(FAST["steps"])
    assert clicks <= 5
    tab.wait_for_timeout(500)
    check_accessibility(tab)

    # the slider answers to keys, free prompts are drawn
    slider = tab.locator("img-comparison-slider").first
    slider.focus()
    tab.keyboard.press("ArrowRight")
    tab.get_by_role("button", name="Draw", exact=True).click()
    tab.locator("#drawn img-comparison-slider").wait_for()

    # what leaked and broke is learned from
    tab.get_by_role("button", name="Refine").click()
    tab.get_by_text(re.compile("Refine cat: running")).wait_for()
    tab.get_by_role("heading", name="Before and after").wait_for()
    assert (server.root / run / "refine.json").is_file()

    # the LoRA is exported, downloaded, and loads with diffusers
    tab.get_by_role("button", name="Export: diffusers").click()
    with tab.expect_download() as loading:
        tab.get_by_role("link", name=re.compile("safetensors")).first.click()
    file = server.root.parent / "lora.safetensors"
    loading.value.save_as(file)
    from crce.backbones import load_backbone

    pipe = load_backbone("demo", device="cpu").pipe
    pipe.load_lora_weights(str(file))
    assert pipe.get_active_adapters()
    assert tab.faults == []


def test_a_job_is_paused_resumed_and_cancelled(server, tab):
    tab.goto(server.address)
    tab.get_by_label("Concept", exact=True).fill("dog")
    tab.get_by_role("button", name="Find its words").click()
    tab.get_by_role("link", name="Go on to the plan").click()
    tab.get_by_role("button", name="Start").first.click()
    tab.get_by_text(re.compile(r"Training: step [1-9]")).wait_for()
    tab.get_by_role("button", name="Sample now").click()
    tab.get_by_role("button", name="Pause").click()
    tab.get_by_role("button", name="Resume").wait_for()
    check_accessibility(tab)
    tab.get_by_role("button", name="Resume").click()
    tab.get_by_role("button", name="Pause").wait_for()
    tab.goto(f"{server.address}/queue")
    check_accessibility(tab)
    tab.get_by_role("button", name="Cancel").first.click()
    tab.get_by_text("cancelled").wait_for()


@pytest.mark.parametrize("path", ["/runs", "/settings", "/nowhere", "/compare?a=cat-1&b=cat-1"])
def test_every_page_is_accessible(server, tab, path):
    tab.goto(server.address + path)
    check_accessibility(tab)


@pytest.mark.parametrize("width", [390, 768, 1440])
def test_no_page_is_wider_than_the_screen(server, browser, width):
    page = browser.new_context(viewport={"width": width, "height": 800}).new_page()
    for path in ("/", "/runs", "/queue", "/settings", "/runs/cat-1"):
        page.goto(server.address + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    page.context.close()
