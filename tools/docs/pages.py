"""The pages of the site that do not lie in docs/, and links of pages to files of the repository: a hook of MkDocs.

    mkdocs build --strict && python tools/docs/links.py site

README becomes the first page, CONTRIBUTING and CHANGELOG have one each, and every package with an `__all__` has one in
the reference. Other files of the repository that a page links to are copied to files/: the site is whole by itself.
"""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import File, Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
REFERENCE = "reference"
FILES = "files"  # where files of the repository lie in the site
MODULES = ("crce.config", "crce.errors", "crce.registry")  # of no package with a page
FUNCTIONS = {  # of crce, with the path of each in it
    "suggest": "suggest.suggest",
    "erase": "api.erase",
    "generate": "sampling.samples.generate",
    "evaluate": "evaluate.evaluate",
    "attack": "attacks.attack",
    "export": "export.export",
}
LINK = re.compile(r"(\]\()([^)\s]+)(\))")


def packages() -> list[str]:
    """crce and every package in it that says with `__all__` what is public, by name."""
    found = [path.parent for path in sorted(SOURCE.glob("crce/**/__init__.py")) if _has_all(path)]
    return [".".join(folder.relative_to(SOURCE).parts) for folder in found]


def _has_all(path: Path) -> bool:
    return any(
        isinstance(line, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in line.targets)
        for line in ast.parse(path.read_text(encoding="utf-8")).body
    )


def repository_path(page: str) -> str:
    """The file of the repository that a page of the site is made of."""
    return next((source for source, made in PAGES.items() if made == page), f"docs/{page}")


def target(link: str, page: str) -> tuple[str, str, str]:
    """Where a link of a page leads.

    Args:
        link: as it stands in the Markdown, relative to the file that it stands in.
        page: path in the site's sources of the page that it stands on.

    Returns:
        The link for the page as it lies in the site, the path of its file there, and that in the repository.
    """
    path, hash_, anchor = link.partition("#")
    there = posixpath.normpath(posixpath.join(posixpath.dirname(repository_path(page)), path))
    if there in PAGES:
        lies = PAGES[there]
    elif there.startswith("docs/"):
        lies = there.removeprefix("docs/")
    else:
        lies = f"{FILES}/{there}"
    return posixpath.relpath(lies, posixpath.dirname(page) or ".") + hash_ + anchor, lies, there


def is_local(link: str) -> bool:
    return not link.startswith(("#", "http://", "https://", "mailto:"))


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the pages of the reference in the navigation."""
    reference: list[dict[str, str]] = [{name: f"{REFERENCE}/{name}.md"} for name in (*packages(), *MODULES)]
    nav: list[Any] = config.nav or []
    config.nav = [{"Python reference": reference} if "Python reference" in entry else entry for entry in nav]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and what they link to."""
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for name in (*packages(), *MODULES):
        files.append(File.generated(config, f"{REFERENCE}/{name}.md", content=_reference(name)))
    for page in list(files.documentation_pages()):
        for _, link, _ in LINK.findall(page.content_string) if not page.src_uri.startswith(REFERENCE) else ():
            _, lies, there = target(link, page.src_uri)
            if is_local(link) and lies.startswith(FILES) and lies not in files.src_uris and (ROOT / there).exists():
                files.append(_copied(config, lies, ROOT / there))
    return files


def _reference(name: str) -> str:
    """The page of a package or module. That of crce shows its functions, three of which have the name of a package."""
    head = f"---\ntitle: {name}\n---\n\n"
    if name != "crce":
        return f"{head}::: {name}\n"
    page = f"{head}::: crce\n    options: {{members: false}}\n"
    for function, path in FUNCTIONS.items():
        page += f"\n::: crce.{path}\n    options: {{heading: crce.{function}, heading_level: 2}}\n"
    return page


def _copied(config: MkDocsConfig, lies: str, path: Path) -> File:
    """A file as it is, and of a folder the list of what is in it."""
    from mkdocs.structure.files import File

    if path.is_dir():
        names = "\n".join(entry.name for entry in sorted(path.iterdir()))
        return File.generated(config, f"{lies}.txt", content=f"{names}\n")
    return File.generated(config, lies, abs_src_path=str(path))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that hold in the repository into such that hold in the site."""
    if page.file.src_uri.startswith(REFERENCE):
        return markdown

    def moved(found: re.Match[str]) -> str:
        if not is_local(found[2]):
            return found[0]
        link, lies, there = target(found[2], page.file.src_uri)
        return f"{found[1]}{link}{'.txt' if (ROOT / there).is_dir() else ''}{found[3]}"

    return LINK.sub(moved, markdown)
