"""The files of a run: images, the report to print, exports, the folder for the Hub."""

import io
import re
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response
from starlette.exceptions import HTTPException

from crce.errors import ConfigError
from crce.export.base import REPOSITORY
from crce.export.formats import FORMATS
from crce.sampling.film import FOLDER
from crce.web.runs import Run
from crce.web.site import Word, see, site


router = APIRouter()
IMMUTABLE = {"cache-control": "private, max-age=31536000, immutable"}


@router.post("/runs/{name}/export")
def export(request: Request, name: str, to: Word) -> Response:
    run = site(request).runs.get(name)
    FORMATS.find(to)  # refused before it is queued
    site(request).queue.add(f"Export {run.title} as {to}", ["export", str(run.folder), "--to", to, "--force"], name)
    return see(f"/runs/{name}")


@router.post("/runs/{name}/push")
def push(request: Request, name: str, repo: Word, upload: Word = "") -> Response:
    run = site(request).runs.get(name)
    if not re.fullmatch(REPOSITORY, repo):
        raise ConfigError(f"{repo!r} is not a repository. Write user/name.")
    command = ["push", str(run.folder), repo, *([] if upload else ["--dry-run"])]
    site(request).queue.add(f"{'Push' if upload else 'Preview'} {run.title}", command, name)
    return see(f"/runs/{name}")


@router.get("/images/{key}.webp")
def image(request: Request, key: str) -> Response:
    path = site(request).sampler.find(key)
    if path is None:
        raise HTTPException(404, "There is no such image")
    return FileResponse(path, headers=IMMUTABLE)


@router.get("/runs/{name}/report.html")
def report(request: Request, name: str) -> Response:
    return _file(site(request).runs.get(name).folder / "report.html")


@router.get("/runs/{name}/images/{file}")
def strip(request: Request, name: str, file: str, side: str = "", seed: int = 0) -> Response:
    """The images of a prompt before and after, or one of them."""
    run = site(request).runs.get(name)
    if not re.fullmatch(r"[\w.-]+\.webp", file):
        raise HTTPException(404, "There is no such image")
    whole = _file(path := run.folder / "images" / file)
    return Response(_part(path, side == "after", seed, run), media_type="image/webp") if side else whole


@router.get("/runs/{name}/film/{file}")
def frame(request: Request, name: str, file: str) -> Response:
    if not re.fullmatch(r"step-\d+\.webp", file):
        raise HTTPException(404, "There is no such image")
    return _file(site(request).runs.get(name).folder / FOLDER / file, IMMUTABLE)


@router.get("/runs/{name}/files/{path:path}")
def download(request: Request, name: str, path: str) -> Response:
    run = site(request).runs.get(name)
    place, file = run.folder / path.split("/")[0], (run.folder / path).resolve()
    if not re.fullmatch(r"export|push-\d+", place.name) or not file.is_relative_to(place.resolve()):
        raise HTTPException(404, "There is no such file")
    return _file(file, filename=file.name)


def _file(path: Path, headers: dict[str, str] | None = None, filename: str | None = None) -> FileResponse:
    if not path.is_file():
        raise HTTPException(404, "There is no such file")
    return FileResponse(path, headers=headers, filename=filename)


def _part(path: Path, after: bool, seed: int, run: Run) -> bytes:
    """One image out of a strip: the base model's are in the upper row."""
    from PIL import Image

    from crce.sampling.pictures import GAP

    count = int((run.report or {}).get("settings", {}).get("images_per_prompt", 1))
    with Image.open(path) as whole:
        width, height = (whole.width + GAP) // count, (whole.height + GAP) // 2
        left, top = min(max(seed, 0), count - 1) * width, height * after
        buffer = io.BytesIO()
        whole.crop((left, top, left + width - GAP, top + height - GAP)).save(buffer, "WEBP", quality=92)
    return buffer.getvalue()
