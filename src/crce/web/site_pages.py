"""The pages of the queue and of the settings."""

import os
from pathlib import Path
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from crce import demo
from crce.files import write_json
from crce.suggest.suggesters import SUGGESTERS
from crce.web.site import THEMES, Word, is_fragment, page, see, site


router = APIRouter()
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "HF_TOKEN")


@router.get("/queue")
def queue(request: Request) -> HTMLResponse:
    template = "queue_rows.html.j2" if is_fragment(request) else "queue.html.j2"
    jobs = site(request).queue.jobs()
    return page(request, template, jobs=jobs, errors={job.number: site(request).queue.error(job) for job in jobs})


@router.post("/jobs/{number}/{what}")
def ask(request: Request, number: int, what: Literal["pause", "resume", "cancel"], back: Word = "/queue") -> Response:
    site(request).queue.ask(number, what)
    return see(back if back.startswith("/") and not back.startswith("//") else "/queue")


@router.get("/settings")
def settings(request: Request, saved: bool = False) -> HTMLResponse:
    return page(
        request,
        "settings.html.j2",
        models=models(request),
        suggesters=list(SUGGESTERS),
        keys={name: bool(os.environ.get(name)) for name in KEYS},
        themes=THEMES,
        folder=site(request).root,
        saved=saved,
    )


@router.post("/settings")
def save(
    request: Request,
    model: Word = "demo",
    suggester: Word = "",
    judge: Word = "auto",
    device: Word = "auto",
    theme: Word = "auto",
    openai_key: Word = "",
    anthropic_key: Word = "",
    hf_token: Word = "",
) -> Response:
    """Keep the settings. Keys stay in the memory of this process and of the jobs that it starts."""
    chosen = {"model": model.strip() or "demo", "suggester": suggester.strip()}
    chosen |= {"judge": judge.strip() or "auto", "device": device.strip() or "auto"}
    write_json(site(request).home / "settings.json", site(request).settings | chosen)
    given = dict(zip(KEYS, (openai_key, anthropic_key, hf_token), strict=True))
    os.environ |= {name: key.strip() for name, key in given.items() if key.strip()}
    answer = see("/settings?saved=true")
    answer.set_cookie("theme", theme if theme in THEMES else "auto", max_age=31_536_000, samesite="strict")
    return answer


def models(request: Request) -> list[str]:
    """The models that are at hand: the bundled one, those of earlier runs, and those of the Hub's cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    used = [str(run.info["model"]) for run in site(request).runs.find() if run.info]
    indexes = Path(HF_HUB_CACHE).glob("models--*/snapshots/*/model_index.json")
    cached = [path.parts[-4].removeprefix("models--").replace("--", "/") for path in indexes]
    return list(dict.fromkeys([*demo.MODELS, *used, *sorted(cached)]))
