"""The pages before an erasure: a concept, the words of its set, the plan."""

import re
import secrets
import shutil
from urllib.parse import quote

from fastapi import APIRouter, Request, UploadFile
from fastapi.responses import HTMLResponse, Response

from crce.cli.flags import flag_words
from crce.concepts import ConceptSet, dump_concepts
from crce.errors import ConceptError, CRCEError
from crce.files import new_folder, slug
from crce.methods import METHODS
from crce.suggest.review import Review
from crce.suggest.suggesters import SUGGESTERS
from crce.web.drafts import Draft
from crce.web.plan import describe, estimate, in_words, read_form, recipe
from crce.web.sampler import Wanted
from crce.web.site import Site, Word, is_fragment, page, see, site
from crce.web.site_pages import models


router = APIRouter()
_FIT = re.compile(r"--(no-)?(micro-batch|gradient-checkpointing|offload)|--quantize|nf4|[0-9]{1,4}")
TITLES = {"coref": "Erased with it", "retain": "Kept"}


@router.get("/")
def start(request: Request) -> HTMLResponse:
    return page(
        request,
        "start.html.j2",
        drafts=site(request).drafts.latest(100),
        suggesters=list(SUGGESTERS),
        models=models(request),
    )


@router.post("/drafts")
def create(
    request: Request, concept: Word = "", kind: Word = "", model: Word = "demo", suggester: Word = ""
) -> Response:
    drafts, model = site(request).drafts, model.strip() or "demo"
    draft = drafts.create(concept, kind=kind or None, model=model, suggester=suggester.strip() or None)
    return see(f"/drafts/{draft.name}")


@router.post("/drafts/upload")
def upload(request: Request, file: UploadFile, model: Word = "demo") -> Response:
    try:
        text = file.file.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConceptError("The file is not text in UTF-8. Give a concept set in YAML.") from error
    draft = site(request).drafts.upload(text, file.filename or "the file", model=model.strip() or "demo")
    return see(f"/drafts/{draft.name}")


@router.get("/drafts/{name}")
def look(request: Request, name: str) -> HTMLResponse:
    drafts = site(request).drafts
    draft = drafts.get(name)
    if draft.error is not None or not drafts.ready(draft):
        return page(request, "waiting.html.j2", draft=draft)
    return _table(request, draft, drafts.review(draft))


@router.post("/drafts/{name}")
def obey(request: Request, name: str, command: Word, words: Word = "") -> Response:
    """One command of the review, as `crce review` takes it; `words` are what the person typed for it."""
    drafts = site(request).drafts
    draft = drafts.get(name)
    review = drafts.obey(draft, f"{command} {words}".strip())
    return _table(request, draft, review) if is_fragment(request) else see(f"/drafts/{name}")


@router.post("/drafts/{name}/delete")
def delete(request: Request, name: str) -> Response:
    """Forget a draft; the decisions are remembered all the same."""
    site(request).drafts.delete(site(request).drafts.get(name))
    return see("/")


@router.get("/drafts/{name}/pictures")
def pictures(request: Request, name: str) -> HTMLResponse:
    drafts = site(request).drafts
    draft = drafts.get(name)
    review = drafts.review(draft)
    images = _images(site(request), draft, review)
    waiting = any(image["src"] is None and image["error"] is None for image in images.values())
    # 286 tells htmx to ask no more
    explicit = review.base.kind == "explicit"
    return page(request, "phrase_images.html.j2", 200 if waiting else 286, images=images, explicit=explicit)


@router.get("/drafts/{name}/concepts.yaml")
def download(request: Request, name: str) -> Response:
    concepts = _concepts(site(request), site(request).drafts.get(name))
    headers = {"content-disposition": f"attachment; filename*=utf-8''{quote(slug(concepts.target))}.yaml"}
    return Response(dump_concepts(concepts), media_type="application/yaml", headers=headers)


@router.get("/drafts/{name}/plan")
def plan(request: Request, name: str, method: str = "esd") -> HTMLResponse:
    draft = site(request).drafts.get(name)
    concepts = _concepts(site(request), draft)
    config = recipe(method, draft.model, concepts.kind)
    seconds = site(request).runs.seconds_per_step(draft.model, method)
    return page(
        request,
        "plan.html.j2",
        draft=draft,
        concepts=concepts,
        methods={known: METHODS[known].description for known in METHODS},
        method=method,
        words=in_words(config),
        fields=describe(config),
        seconds=None if seconds is None else seconds * config.steps,
        once=secrets.token_hex(8),
        ahead=sum(job.active for job in site(request).queue.jobs()),
    )


@router.get("/drafts/{name}/fit")
def fit(request: Request, name: str, method: str = "esd") -> HTMLResponse:
    draft = site(request).drafts.get(name)
    config = recipe(method, draft.model, _concepts(site(request), draft).kind)
    try:
        found, why = estimate(draft.model, config), None
    except CRCEError as error:
        found, why = None, str(error)
    return page(request, "fit.html.j2", found=found, why=why)


@router.post("/drafts/{name}/start")
async def begin(request: Request, name: str) -> Response:
    form = {key: value for key, value in (await request.form()).items() if isinstance(value, str)}
    here, once = site(request), form.get("once", "")
    run = here.begun.get(once) or _begin(here, name, form)
    if once:  # a button that was pressed twice begins one run
        here.begun[once] = run
    return see(f"/runs/{run}")


def _begin(here: Site, name: str, form: dict[str, str]) -> str:
    """Claim a run folder and queue the command that fills it; where that fails, nothing has been made."""
    draft = here.drafts.get(name)
    concepts = _concepts(here, draft)
    method = form.get("method", "esd")
    changed = read_form(recipe(method, draft.model, concepts.kind), form)
    recipe(method, draft.model, concepts.kind, changed)
    folder = new_folder(here.runs.root, slug(concepts.target))
    file = folder / "concepts.yaml"
    settings = here.settings
    images = form.get("images", "").strip()
    command = ["erase", str(file), "--out", str(folder), "--model", draft.model, "--method", method]
    command += [*flag_words(changed), "--device", settings["device"], "--judge", settings["judge"], "--film"]
    command += [word for word in form.get("fit", "").split() if _FIT.fullmatch(word)]
    command += ["--images-per-prompt", images] if images.isdecimal() and int(images) > 0 else []
    try:
        here.drafts.save(draft, file)
        here.queue.add(f"Erase {concepts.target}", command, folder.name)
    except CRCEError:
        shutil.rmtree(folder)
        raise
    return folder.name


def _concepts(here: Site, draft: Draft) -> ConceptSet:
    """The set of a draft as it is now; a ConceptError if it has not been suggested yet, or can't be."""
    if draft.error is not None or not here.drafts.ready(draft):
        raise ConceptError(draft.error or f"The words for '{draft.concept}' are still being suggested.")
    return here.drafts.review(draft).concepts


def _table(request: Request, draft: Draft, review: Review) -> HTMLResponse:
    template = "phrases.html.j2" if is_fragment(request) else "concept.html.j2"
    images = _images(site(request), draft, review)
    return page(request, template, draft=draft, review=review, images=images, titles=TITLES)


def _images(here: Site, draft: Draft, review: Review) -> dict[int, dict[str, str | None]]:
    """For each number of the review, and 0 for the target, where the base model's image of it is; or why not."""
    phrases = {0: review.base.target, **{entry.number: entry.related.text for entry in review.entries}}
    asked = {number: here.sampler.ask(Wanted(text, draft.model)) for number, text in phrases.items()}
    return {number: {"src": src, "error": error, "text": phrases[number]} for number, (src, error) in asked.items()}
