"""The pictures of the web app in README and docs/web.md, made with Chromium:

    python tools/docs/screenshots.py

It needs `pip install -c constraints.txt -e '.[web,browser]'` and Debian's package chromium, erases "cat" from the
bundled model on the way, and takes some minutes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright


DOCS = Path(__file__).parents[2] / "docs"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
PATIENCE = 1_200_000  # milliseconds
WIDTH, HEIGHT = 1280, 860


def main() -> None:
    """Write the three pictures."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "crce", "web", "--no-browser", "--folder", f"{folder}/runs"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            address = re.search(r"http://\S+", server.stdout.readline())[0]
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
                page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
                page.set_default_timeout(PATIENCE)
                take(page, address)
        finally:
            server.terminate()
            server.wait()


def take(page: Page, address: str) -> None:
    """Walk from the first page to the comparison."""
    page.goto(address)
    page.get_by_label("Concept", exact=True).fill("cat")
    page.get_by_role("button", name="Find its words").click()
    while page.locator(".thumb .spinner").count():  # until every phrase has its picture
        page.wait_for_timeout(500)
    page.screenshot(path=DOCS / "web_concept.png")
    page.get_by_role("link", name="Go on to the plan").click()
    page.get_by_text("It fits").wait_for()
    page.get_by_text("Settings", exact=True).last.click()
    page.locator("[name=images]").fill("3")
    page.get_by_role("button", name="Start").last.click()
    page.locator(".film figure").nth(5).wait_for()
    page.screenshot(path=DOCS / "web_live.png")
    page.get_by_role("heading", name="Before and after").wait_for()
    page.locator("img-comparison-slider.rendered").first.wait_for()
    page.wait_for_timeout(1000)
    page.get_by_role("heading", name="Before and after").evaluate("heading => heading.scrollIntoView()")
    page.screenshot(path=DOCS / "web_compare.png")


if __name__ == "__main__":
    main()
