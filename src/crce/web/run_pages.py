"""The pages of runs: the list, a run while it works, its comparison before and after, its files."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from crce.concepts import dump_concepts
from crce.errors import ConfigError
from crce.evaluate.curve import draw_curve, read_trace
from crce.evaluate.page import GROUPS
from crce.export.formats import FORMATS
from crce.sampling.film import REQUEST, film_phrases, frames_of
from crce.web.runs import Run
from crce.web.sampler import Wanted
from crce.web.site import Site, page, see, site


router = APIRouter()
CHANGES = ("erase", "evaluate", "refine")  # while one of these works, the results are old
PROMPTS = 8  # of the free prompts drawn at once
STRONGEST = 1.5
LATEST = 12  # steps by which the time left is told
_DOING = {"erasing": "Training: step", "generating and judging": "Drawing and judging pictures:"}
_PROGRESS = re.compile(r"(generating and judging|erasing) (\d+)/(\d+)")


@router.get("/runs")
def runs(request: Request, q: str = "", kind: str = "", deleted: str = "") -> HTMLResponse:
    here = site(request)
    jobs = {job.run: job for job in reversed(here.queue.jobs())}
    found = here.runs.find(q[:200], kind[:20])
    return page(
        request, "runs.html.j2", runs=found, jobs=jobs, q=q, kind=kind, deleted=deleted, trash=here.runs.trash()
    )


@router.get("/compare")
def compare(request: Request, a: str, b: str) -> HTMLResponse:
    return page(request, "compare.html.j2", runs=[site(request).runs.get(name) for name in (a, b)])


@router.get("/runs/{name}")
def show(request: Request, name: str, seed: int = 0) -> HTMLResponse:
    here = site(request)
    run, job = here.runs.get(name), here.queue.of_run(name)
    if run.report is None or (job is not None and job.active and job.arguments[0] in CHANGES):
        return page(request, "live.html.j2", **_live(here, run))
    count = int(run.report["settings"]["images_per_prompt"])
    groups = run.report.get("groups", {}).items()
    folders = sorted(run.folder.glob("push-*"))
    return page(
        request,
        "run.html.j2",
        run=run,
        job=job,
        error=here.queue.error(job),
        data=run.report,
        groups=[(GROUPS[name], group) for name, group in groups if group["prompts"]],
        seed=min(max(seed, 0), count - 1),
        count=count,
        attacks=list(run.attacks()),
        rounds=run.rounds(),
        formats={name: FORMATS[name].summary for name in FORMATS},
        downloads=list(_files(run, run.downloads())),
        published=list(_files(run, folders[-1:])),
        card=(folders[-1] / "README.md").read_text(encoding="utf-8") if folders else None,
    )


@router.get("/runs/{name}/events")
async def events(request: Request, name: str) -> Response:
    """Server-sent events: the state of a run each time something has changed, and "ended" when its job has."""
    here = site(request)
    if not here.streams.acquire(blocking=False):
        raise HTTPException(503, "Too many pages are following runs. Close some")

    async def stream() -> AsyncIterator[str]:
        seen: dict[str, str] = {}
        try:
            while not await request.is_disconnected():
                state = await run_in_threadpool(_live, here, here.runs.get(name))
                for event in ("status", "controls"):
                    text = here.render(f"{event}.html.j2", **state)
                    if seen.get(event) != text:
                        seen[event] = text
                        yield _event(event, text)
                if state["job"] is None or not state["job"].active:
                    yield _event("ended", "ended")
                    return
                yield ": \n\n"  # a closed connection is noticed when something is sent
                await asyncio.sleep(1)
        except ConfigError:  # it was deleted
            yield _event("ended", "ended")
        finally:
            here.streams.release()

    return StreamingResponse(stream(), media_type="text/event-stream")


@router.post("/runs/{name}/sample")
def sample(request: Request, name: str) -> Response:
    """Ask for a frame of the film after the step in progress."""
    (site(request).runs.get(name).folder / REQUEST).touch()
    return see(f"/runs/{name}")


@router.post("/runs/{name}/work")
def work(request: Request, name: str, what: Annotated[Literal["evaluate", "refine"], Form()]) -> Response:
    """Measure a run, or train on with what leaked and broke."""
    run, settings = site(request).runs.get(name), site(request).settings
    command = [what, str(run.folder), "--device", settings["device"]]
    command += ["--rounds", "1"] if what == "refine" else ["--judge", settings["judge"], *run.measured_as_trained]
    site(request).queue.add(f"{what.capitalize()} {run.title}", command, name)
    return see(f"/runs/{name}")


@router.post("/runs/{name}/words")
def words(request: Request, name: str) -> Response:
    """Begin a draft from the words of a run, to change them and erase again."""
    run = site(request).runs.get(name)
    if len(run.sets) != 1:
        raise ConfigError(
            f"{name} has {len(run.sets)} concept sets, and their words are changed one by one. Erase each by itself."
        )
    draft = site(request).drafts.upload(dump_concepts(run.sets[0]), name, model=str(run.info.get("model", "demo")))
    return see(f"/drafts/{draft.name}")


@router.post("/runs/{name}/delete")
def delete(request: Request, name: str) -> Response:
    here = site(request)
    run, job = here.runs.get(name), here.queue.of_run(name)
    if job is not None and job.active:
        raise ConfigError(f"'{job.title}' works on this run. Cancel it first.")
    return see(f"/runs?deleted={here.runs.delete(run)}")


@router.post("/trash/{name}/restore")
def restore(request: Request, name: str) -> Response:
    return see(f"/runs/{site(request).runs.restore(name)}")


@router.get("/runs/{name}/drawn")
def drawn(
    request: Request,
    name: str,
    prompt: Annotated[str, Query(max_length=4000)],
    seed: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    strength: Annotated[float, Query(ge=0, le=STRONGEST)] = 1.0,
) -> HTMLResponse:
    """Prompts, one a line, drawn by the base model and by the run at a strength of its adapter, as far as they are."""
    here, run = site(request), site(request).runs.get(name)
    prompts = [line.strip() for line in prompt.splitlines() if line.strip()]
    if not 0 < len(prompts) <= PROMPTS:
        raise ConfigError(f"Give 1 to {PROMPTS} prompts, one a line.")
    if not run.trained:
        raise ConfigError("This run has not finished. Wait for it.")
    written, model = (run.folder / "adapter.safetensors").stat().st_mtime, str(run.info["model"])
    pairs, waiting = [], False
    for text in prompts:
        before, error = here.sampler.ask(Wanted(text, model, seed))
        after, other = here.sampler.ask(Wanted(text, model, seed, str(run.folder), strength, written))
        pairs.append({"text": text, "before": before, "after": after, "error": error or other})
        waiting |= not (error or other or (before and after))
    given = {"prompt": prompt, "seed": seed, "strength": strength}
    busy = waiting and here.queue.busy()
    return page(request, "drawn.html.j2", run=run, pairs=pairs, waiting=waiting, given=given, busy=busy)


def _live(here: Site, run: Run) -> dict[str, Any]:
    jobs, job = here.queue.jobs(), here.queue.of_run(run.name)
    trace, log = read_trace(run.folder), here.queue.log(job) if job else ""
    progress = None
    if run.info and not run.trained:
        progress = ("Training: step", len(trace), run.steps)
    elif told := _PROGRESS.findall(log):
        what, done, total = told[-1]
        progress = (_DOING[what], int(done), int(total))
    latest = [row["seconds"] for row in trace[-LATEST:]]
    timed = len(latest) == LATEST and not run.trained
    return {
        "run": run,
        "job": job,
        "ahead": sum(j.active and job is not None and j.number < job.number for j in jobs),
        "progress": progress,
        "left": median(latest) * (run.steps - len(trace)) if timed else None,
        "curve": draw_curve(trace) if len(trace) > 2 else None,
        "frames": [(int(frame.stem[5:]), frame.name) for frame in frames_of(run.folder)],
        "phrases": film_phrases(run.sets) if run.sets else [],
        "log": log,
        "error": here.queue.error(job),
    }


def _files(run: Run, places: list[Path]) -> Iterator[tuple[str, int]]:
    """The files in some places of a run, by their paths in it, with their sizes in bytes."""
    for place in places:
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file():
                yield path.relative_to(run.folder).as_posix(), path.stat().st_size


def _event(name: str, text: str) -> str:
    lines = "".join(f"data: {line}\n" for line in text.splitlines())
    return f"event: {name}\n{lines}\n"
