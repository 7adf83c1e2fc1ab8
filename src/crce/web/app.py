"""The application: one folder of runs, its queue and its pages."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, PackageLoader
from starlette.exceptions import HTTPException

from crce.concepts import KINDS, certainty_word
from crce.errors import CRCEError
from crce.evaluate.page import make_environment
from crce.files import write_json
from crce.web.drafts import Drafts
from crce.web.guard import Guard
from crce.web.queue import Queue, WebJob
from crce.web.runs import Runs, read_json
from crce.web.sampler import Sampler


HOME = ".crce-web"  # in the folder of runs: jobs, drafts, images, trash, settings
SETTINGS = {"model": "demo", "suggester": "", "judge": "auto", "device": "auto"}
THEMES = ("auto", "light", "dark")
GIVING_WAY = 10  # priority of the pages, 0 being that of other programs and 19 the least
STREAMS = 64  # pages that may follow a job at once


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
        return {**SETTINGS, **read_json(self.home / "settings.json")}

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
    kept += ["--no-eval"] if "--no-eval" in job.arguments else []
    if run.trained and "--no-eval" not in kept:
        return ["evaluate", str(run.folder), *kept]
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


def create_app(root: str | Path, *, hosts: Collection[str], token: str | None = None) -> FastAPI:
    """The application.

    Args:
        root: the folder of runs; it is made if it is missing.
        hosts: names by which the server may be called.
        token: what a browser must present once; None where only this machine can connect.

    Raises:
        RunError: the folder can't be written.
    """
    from crce.web import concept_pages, file_pages, run_pages, site_pages

    opened = Site.open(Path(root).resolve())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for worker in (opened.queue, opened.sampler):
            threading.Thread(target=worker.work, daemon=True).start()
        if sys.platform == "linux":  # where a thread has a priority of its own: pages give way to jobs
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), GIVING_WAY)
        yield
        opened.queue.close()
        opened.sampler.close()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.site = opened
    app.add_middleware(Guard, hosts=hosts, token=token)
    app.add_api_route("/static/report.css", lambda: FileResponse(str(files("crce.evaluate") / "report.css")))
    app.mount("/static", StaticFiles(packages=[("crce.web", "static")]))
    app.add_api_route("/health", lambda: JSONResponse({"status": "ok"}))
    for pages in (concept_pages, run_pages, file_pages, site_pages):
        app.include_router(pages.router)
    app.add_exception_handler(CRCEError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_error)
    app.add_exception_handler(HTTPException, _on_error)
    return app


async def _on_error(request: Request, error: Exception) -> Any:
    """An error as a page; for a script as text, which it shows above the page."""
    status, text = 400, str(error)
    if isinstance(error, RequestValidationError):
        faults = error.errors()
        text = "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in faults) + "."
    elif isinstance(error, HTTPException):
        status, text = error.status_code, f"{error.detail}."
    if is_fragment(request):
        return PlainTextResponse(text, status)
    return page(request, "error.html.j2", status, text=text, missing=status == 404)


def see(path: str) -> RedirectResponse:
    """Send the browser to another page after a change."""
    return RedirectResponse(path, 303)


def keys_present() -> dict[str, bool]:
    """Which services of language models have a key in the environment."""
    return {name: bool(os.environ.get(name)) for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "HF_TOKEN")}
