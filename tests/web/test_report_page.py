"""The report in Chromium: one file from the disk, and as the web app sends it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from crce.web.middleware import HEADERS


pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def browser() -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "touch"), [(390, True), (1440, False)])
@pytest.mark.parametrize("sent", [False, True], ids=["file", "sent"])
def test_a_reader_looks_closer_without_a_script(browser, short_run, width, touch, scheme, sent):
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, has_touch=touch)
    page, faults = context.new_page(), []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    address = (short_run / "report.html").as_uri()
    if sent:
        address, text = "http://127.0.0.1:9/report.html", (short_run / "report.html").read_text(encoding="utf-8")
        page.route("**/*", lambda route: route.fulfill(body=text, content_type="text/html", headers=HEADERS))
    page.goto(address)

    def press(place):
        place.tap() if touch else place.click()

    too_wide = "document.documentElement.scrollWidth > innerWidth"
    assert not page.evaluate(too_wide)
    for fold in page.locator("summary").all():
        press(fold)
    assert not page.evaluate(too_wide)

    word = page.locator("h3 abbr").first
    press(word)
    shown = word.evaluate("e => getComputedStyle(e, '::after').content")
    assert shown.strip('"') == word.get_attribute("title")

    picture = page.locator(".zoom img").nth(3)
    picture.scroll_into_view_if_needed()
    small, place = picture.bounding_box()["width"], page.evaluate("scrollY")
    press(picture)
    assert picture.bounding_box()["width"] > 2 * small
    press(page.locator(".close:visible"))
    assert picture.bounding_box()["width"] == small
    assert page.evaluate("scrollY") == place
    assert faults == []
    context.close()
