"""What the pages work on, and what they share."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from fastapi import Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader

from crce.concepts import KINDS, certainty_word
from crce.evaluate.page import make_environment
from crce.files import write_json
from crce.web.drafts import Drafts
from crce.web.queue import Queue, WebJob
from crce.web.runs import Runs, json_or_empty
from crce.web.sampler import Sampler


HOME = ".crce-web"  # in the folder of runs: jobs, drafts, images, trash, settings
SETTINGS = {"model": "demo", "suggester": "", "judge": "auto", "device": "auto"}
THEMES = ("auto", "light", "dark")
STREAMS = 64  # pages that may follow a job at once
Word = Annotated[str, Form(max_length=300)]


@dataclass(frozen=True)
class Site:
    """What the pages work on.

    Attributes:
        root: the folder of runs.
        home: the folder of the web app in it.
        queue: the jobs.
        runs: the runs.
        drafts: the concept sets in the making.
        sampler: generates images for pages.
        templates: of the pages, and of the report.
        streams: a place for each page that follows a job.
        begun: the runs that forms have begun, by the number of the form.
    """

    root: Path
    home: Path
    queue: Queue
    runs: Runs
    drafts: Drafts
    sampler: Sampler
    templates: Environment
    streams: threading.BoundedSemaphore
    begun: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, root: Path) -> Site:
        """The site of a folder, which is made if it is missing."""
        home = root / HOME
        runs = Runs(root, home)
        queue = Queue(home / "jobs", lambda job: continued(runs, job))
        templates = make_environment(PackageLoader("crce.web"))
        templates.globals |= {"kinds": KINDS, "certainty": certainty_word}
        sampler = Sampler(home / "images", queue.busy)
        drafts = Drafts(home / "drafts")
        return cls(root, home, queue, runs, drafts, sampler, templates, threading.BoundedSemaphore(STREAMS))

    @property
    def settings(self) -> dict[str, str]:
        """Those of the settings page."""
        return {**SETTINGS, **json_or_empty(self.home / "settings.json")}

    def save_settings(self, settings: Mapping[str, str]) -> None:
        """Keep the settings."""
        write_json(self.home / "settings.json", {**self.settings, **settings})

    def render(self, template: str, **context: Any) -> str:
        """A template as text."""
        return self.templates.get_template(template).render(context)


def continued(runs: Runs, job: WebJob) -> list[str]:
    """The arguments that continue a job: those of an erasure depend on how far it came."""
    if job.arguments[0] not in ("erase", "evaluate"):
        return job.arguments
    run = runs.get(job.run)
    given = dict(zip(job.arguments, job.arguments[1:], strict=False))
    flags = ("--judge", "--device", "--images-per-prompt")
    kept = [word for flag in flags if flag in given for word in (flag, given[flag])]
    kept += ["--no-eval"] if "--no-eval" in job.arguments else ["--eval"]
    if run.trained and "--no-eval" not in kept:
        return ["evaluate", str(run.folder), *kept[:-1]]
    return ["erase", "--resume", str(run.folder), "--film", *kept] if run.info else job.arguments


def page(request: Request, template: str, status: int = 200, **context: Any) -> HTMLResponse:
    """A page, or a fragment of one."""
    here, theme = site(request), request.cookies.get("theme")
    shared = {"theme": theme if theme in THEMES else "auto", "path": request.url.path, "settings": here.settings}
    return HTMLResponse(here.render(template, **shared, **context), status)


def site(request: Request) -> Site:
    """The site that a request is for."""
    return request.app.state.site


def is_fragment(request: Request) -> bool:
    """Whether a script asks, for a part of a page."""
    return request.headers.get("hx-request") == "true"


def see(path: str) -> RedirectResponse:
    """Send the browser to another page after a change."""
    return RedirectResponse(path, 303)
