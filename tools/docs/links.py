"""Check a built site: every internal link, image and anchor leads somewhere, and nothing is loaded from elsewhere.

    python tools/docs/links.py site

Prints every fault, and ends with exit code 1 if there is one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


ATTRIBUTES = {"a": "href", "link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src"}
LOADED = ("script", "img", "iframe", "source")  # by a browser without a click, as are most of <link>
NOT_LOADED = ("canonical", "next", "prev", "alternate", "edit")  # rel of a <link> that only says something


class Html(HTMLParser):
    """The anchors of a page, and its links.

    Attributes:
        ids: what an anchor can name.
        links: each with whether the browser loads it by itself.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[tuple[str, bool]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        if link := values.get(ATTRIBUTES.get(tag, "")):
            loaded = tag in LOADED or (tag == "link" and values.get("rel") not in NOT_LOADED)
            self.links.append((link, loaded))


def faults(site: Path) -> Iterator[str]:
    """What is wrong with a built site, a line each.

    Raises:
        ValueError: there is no page.
    """
    pages = {path.resolve(): Html(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    if not pages:
        raise ValueError(f"{site} holds no page. Build it: mkdocs build --strict")
    for path, page in pages.items():
        if path.name == "404.html":  # its links are absolute, for a server that shows it anywhere
            continue
        for link, loaded in page.links:
            parts, where = urlsplit(link), path.relative_to(site.resolve()).as_posix()
            if parts.scheme or parts.netloc:
                if loaded and parts.scheme != "data":
                    yield f"{where}: loads {link} from elsewhere"
                continue
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            to = to / "index.html" if to.is_dir() else to
            if not to.is_file():
                yield f"{where}: {link} leads nowhere"
            elif parts.fragment and to in pages and unquote(parts.fragment) not in pages[to].ids:
                yield f"{where}: {link} names no anchor of that page"


def main() -> int:
    found = list(faults(Path(sys.argv[1])))
    print("\n".join(found) or "every link of the site leads somewhere")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
