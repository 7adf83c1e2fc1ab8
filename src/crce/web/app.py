"""The application: one folder of runs, its queue and its pages."""

import os
import sys
import threading
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from crce.errors import CRCEError
from crce.web import concept_pages, file_pages, run_pages, site_pages
from crce.web.middleware import Guard, Recent
from crce.web.site import Site, is_fragment, page


GIVING_WAY = 19  # priority of the pages, the least there is; 0 is that of other programs


def create_app(root: str | Path, *, hosts: Collection[str], token: str | None = None) -> FastAPI:
    """The application over a folder of runs, which is made if it is missing; hosts and token as in `Guard`."""
    opened = Site(Path(root).resolve())

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
    app.add_middleware(Recent)
    app.add_middleware(Guard, hosts=hosts, token=token)
    app.add_api_route("/static/report.css", lambda: FileResponse(str(files("crce.evaluate") / "report.css")))
    app.mount("/static", StaticFiles(packages=[("crce.web", "static")]))
    app.add_api_route("/health", lambda: JSONResponse({"status": "ok"}))
    for pages in (concept_pages, run_pages, file_pages, site_pages):
        app.include_router(pages.router)
    for kind in (CRCEError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _on_error)
    return app


async def _on_error(request: Request, error: Exception) -> Any:
    """An error as a page; for a script as text, which it shows above the page."""
    status, text = 400, str(error)
    if isinstance(error, RequestValidationError):
        text = "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors()) + "."
    elif isinstance(error, HTTPException):
        status, text = error.status_code, f"{error.detail}."
    if is_fragment(request):
        return PlainTextResponse(text, status)
    return page(request, "error.html.j2", status, text=text, missing=status == 404)
