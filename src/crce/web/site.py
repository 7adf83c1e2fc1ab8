"""What the pages work on, and what they share."""

import threading
from pathlib import Path
from typing import Annotated, Any

from fastapi import Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import PackageLoader

from crce.cli.run_cost import duration
from crce.concepts import KINDS, certainty_word
from crce.evaluate.page import make_environment
from crce.web.drafts import Drafts
from crce.web.queue import Queue, WebJob
from crce.web.runs import Runs, content
from crce.web.sampler import Sampler


HOME = ".crce-web"  # in the folder of runs: jobs, drafts, images, trash, settings
SETTINGS = {"model": "demo", "suggester": "", "judge": "auto", "device": "auto"}
THEMES = ("auto", "light", "dark")
STREAMS = 64  # pages that may follow a job at once
Word = Annotated[str, Form(max_length=300)]


class Site:
    """What the pages work on: a folder of runs, which is made if it is missing, and that of the web app in it."""

    def __init__(self, root: Path) -> None:
        self.root, self.home = root, root / HOME
        self.runs = Runs(root, self.home)
        self.queue = Queue(self.home / "jobs", lambda job: continued(self.runs, job))
        self.drafts = Drafts(self.home / "drafts")
        self.sampler = Sampler(self.home / "images", self.queue.busy)
        self.streams = threading.BoundedSemaphore(STREAMS)
        self.begun: dict[str, str] = {}  # the runs that forms have begun, by the number of the form
        self._templates = make_environment(PackageLoader("crce.web"))
        self._templates.globals |= {"kinds": KINDS, "certainty": certainty_word}
        self._templates.filters["duration"] = duration

    @property
    def settings(self) -> dict[str, str]:
        return {**SETTINGS, **content(self.home / "settings.json")}

    def render(self, template: str, **context: Any) -> str:
        return self._templates.get_template(template).render(context)


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
        return ["evaluate", str(run.folder), *kept[:-1], *run.measured_as_trained]
    return ["erase", "--resume", str(run.folder), "--film", *kept] if run.info else job.arguments


def page(request: Request, template: str, status: int = 200, **context: Any) -> HTMLResponse:
    here, theme = site(request), request.cookies.get("theme")
    shared = {"theme": theme if theme in THEMES else "auto", "path": request.url.path, "settings": here.settings}
    return HTMLResponse(here.render(template, **shared, **context), status)


def site(request: Request) -> Site:
    return request.app.state.site


def is_fragment(request: Request) -> bool:
    """Whether a script asks, for a part of a page."""
    return request.headers.get("hx-request") == "true"


def see(path: str) -> RedirectResponse:
    """Send the browser to another page after a change."""
    return RedirectResponse(path, 303)
