from __future__ import annotations

import html
import re
import shlex
from html.parser import HTMLParser

import pytest

from crce.evaluate import evaluate
from crce.evaluate.page import GROUPS


class Page(HTMLParser):
    """The texts, tags and addresses of a page; fails on tags that don't close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.alts: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.text += " "
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        self.alts += [value for name, value in attrs if name == "alt"]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def page(erasure, backbone, judge, model) -> Page:
    model.erased = {
        "cat": ["dog"],
        "kitty": ["dog"],
        "kitten": ["cat", "dog"],
        "feline": ["dog", None],
        "dog": ["fox"],
    }
    model.base = {"vixen": ["dog", "dog", "fox"]}
    report = evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=3)
    return Page(report.path_html.read_text(encoding="utf-8"))


def test_page_is_self_contained(page, erasure):
    assert all(address.startswith(("data:image/webp;base64,", "#")) for address in page.addresses)
    source = (erasure.folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\(|@import", source)
    assert not {"script", "link", "iframe"} & set(page.tags)


def test_the_verdict_and_the_pictures_come_first_and_the_statistics_are_folded(page, erasure):
    source = (erasure.folder / "report.html").read_text(encoding="utf-8")
    assert source.count('class="headline') == 1
    assert "Gone, but other names still draw it and some of what should stay is damaged." in page.text
    places = [source.index(text) for text in ('class="headline', 'class="verdict"', "Before and after", "<details")]
    assert places == sorted(places)
    folded = re.findall(r"<details.*?</details>", source, re.DOTALL)
    for title in ("In numbers", "What is significant", "Concept set", "Settings of the run", "Do it again"):
        assert len([part for part in folded if f"<h2>{title}</h2>" in part]) == 1
    assert "<details open" not in source


def test_the_next_command_is_there_to_be_copied(page, erasure):
    (command,) = re.findall(r'<code class="copy".*?>(.*?)</code>', (erasure.folder / "report.html").read_text("utf-8"))
    given = shlex.split(html.unescape(command))
    assert given[:4] == ["crce", "erase", "--like", str(erasure.folder)]
    assert {"--coref", "kitten"} <= set(given)


def test_every_picture_enlarges_and_every_number_explains_its_name(page, erasure):
    source = (erasure.folder / "report.html").read_text(encoding="utf-8")
    zooms = re.findall(r'<a id="(\w+)" class="zoom" href="#(\w+)"', source)
    assert len(zooms) == len(re.findall("<img ", source))
    assert all(own == leads_to for own, leads_to in zooms)
    ids = re.findall(r' id="(\w+)"', source)
    assert len(set(ids)) == len(ids)
    assert "closed" not in ids  # leads nowhere, so that the page stays where it is
    named = {name: text for text, name in re.findall(r'<abbr tabindex="0" title="(.+?)">(.+?)</abbr>', source)}
    for name in ("Erased", "Corefs erased", "Kept", "H", "Held-out retains", "Significant", "interval"):
        assert named[name].endswith(".")


def test_page_shows_every_prompt_and_group(page):
    phrases = ["cat", "kitty", "moggy <b>&amp;", "kitten", "feline", "dog", "puppy", "vixen", "ship", "tree"]
    for phrase in phrases:
        assert len([alt for alt in page.alts if alt.startswith(f"{phrase}, before")]) == 3, phrase
    for title, _ in GROUPS.values():
        assert title in page.text


def test_page_escapes_phrases(page, erasure):
    source = (erasure.folder / "report.html").read_text(encoding="utf-8")
    assert "moggy <b>" not in source
    assert html.escape("moggy <b>&amp;") in source
    assert "moggy <b>&amp;" in page.text


def test_page_says_what_leaked_broke_and_was_left_out(page):
    text = " ".join(page.text.replace("\N{NO-BREAK SPACE}", " ").split())
    assert "Erasing cat" in text
    assert '"kitten" (100 % → 67 %)' in text or '"kitten" (100 % → 33 %)' in text
    assert '"dog" (100 % → 0 %)' in text
    assert 'the base model draws it as "fox" in only 1 of 3 pictures' in text
    assert "Pictures that failed to be drawn: 0 by the base model (not counted), 1 by the erased model" in text
    assert "✗ fox" in text
    assert "✗ no picture" in text
    assert "✓ dog" in text


def test_page_shows_numbers_curve_concepts_and_settings(page):
    text = " ".join(page.text.replace("\N{NO-BREAK SPACE}", " ").split())
    assert re.search(r"Erased 100 % the target \d+ % to 100 %, 3 pictures", text)
    assert page.tags.count("polyline") == 3  # loss, target, coref: the trace has no retain term
    assert "moggy <b>&amp; 0.33 user train" in text
    assert "kitten Very High user evaluate" in text
    assert "learning_rate" in text
    assert "colour 1, 5 classes, weights 00ff00ff00ff00ff" in text


def test_page_without_a_judge_shows_pictures_and_no_numbers(erasure, backbone, model):
    erasure.info["model"] = backbone.model = "somebody/some-model"
    report = evaluate(erasure, backbone=backbone, images_per_prompt=2)
    page = Page(report.path_html.read_text(encoding="utf-8"))
    text = " ".join(page.text.split())
    assert "No judge scored these pictures." in text
    assert "In numbers" not in text
    assert "✓" not in text
    assert "✗" not in text
    assert "cat, before" in page.alts


def test_page_of_many_prompts_stays_small(erasure, backbone, judge, model):
    report = evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=40)
    page = Page(report.path_html.read_text(encoding="utf-8"))
    assert page.tags.count("img") == 2 * 4 * 10
    assert "the first 4 of 40 seeds are shown" in " ".join(page.text.split())
