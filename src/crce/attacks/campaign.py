"""One attack on a run, from the first plain image to RUN/attacks/NAME.json.

NAME.json                     settings, seeds, judge, numbers, and for each prompt what was found and how it was judged
NAME.jsonl                    the query log, from which a stopped attack resumes
NAME-PROMPT-HASH.safetensors  learned embeddings, as diffusers' textual inversion
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from crce import __version__
from crce.attacks.asr import summarise
from crce.attacks.prompts import AttackedPrompt, choose_prompts
from crce.attacks.protocol import Attack, Budget, Progress
from crce.attacks.query_log import KnownImages, QueryLog
from crce.attacks.table import load_attack
from crce.attacks.victim import Victim
from crce.backbones import Backbone
from crce.backbones.defaults import fill_sampling
from crce.bounds import check_numbers
from crce.evaluate.report import report_of
from crce.evaluate.stats import DRAWABLE_SHARE
from crce.files import read_json, slug, text_hash, write_json, write_tensors
from crce.judges import Judge, choose_judge
from crce.judges.concept_classes import EVERYDAY
from crce.judges.judge import CalibratedJudge, describe_judge
from crce.sampling.image_cache import FOLDER
from crce.training import Erasure, apply_adapter, load_base
from crce.training.run_folder import alone, file_hash


SEARCH_SEED = 20_000  # added to the seeds of the tested images: no search sees the images that measure it


@dataclass(frozen=True)
class AttackResult:
    """The result of an attack: the folder RUN/attacks, and the content of NAME.json."""

    folder: Path
    data: dict[str, Any]

    @property
    def path(self) -> Path:
        return self.folder / f"{self.data['attack']}.json"

    @property
    def summary(self) -> dict[str, Any]:
        """See `crce.attacks.asr.summarise`."""
        return self.data["summary"]


@alone
def attack(
    run: Path | str | Erasure,
    name: str | Attack,
    *,
    budget: int | Budget | None = None,
    seed: int = 0,
    targets: Sequence[str] = (),
    prompts: Sequence[str] = (),
    phrases: int = 3,
    images_per_prompt: int = 8,
    images_per_try: int = 4,
    picture_seed: int = 1000,
    steps: int | None = None,
    guidance: float | None = None,
    judge: str | Judge = "auto",
    batch: int = 0,
    device: str = "auto",
    on_event: Callable[[Progress], None] | None = None,
    backbone: Backbone | None = None,
    plain: KnownImages | None = None,
) -> AttackResult:
    """Attack a run, measure the result, and write RUN/attacks/NAME.json. A stopped attack resumes when run again.

    Args:
        run: a finished run, or its folder.
        name: a name in `ATTACKS`, or an attack with its own settings.
        budget: steps for each prompt, or a `Budget`; None takes the attack's default.
        seed: of the search.
        targets: the targets of the run to attack; none is all.
        prompts: prompts to attack in place of the targets and their corefs.
        phrases: the most prompts for each target: the target, then trained and held-out corefs alternating.
        images_per_prompt: images that measure a prompt; image k has the seed picture_seed + k.
        images_per_try: images that a search looks at, from other seeds.
        picture_seed: of the first image.
        steps: denoising steps; None takes those of the model.
        guidance: classifier-free guidance scale; likewise.
        judge: a judge or its name; "auto" takes the one that knows the model.
        batch: images per call; 0 picks by the size of the latents.
        device: where to run, unless `backbone` is given.
        on_event: called after each step.
        backbone: the run's base model, already loaded. Returned unchanged.
        plain: judged images of plain prompts, read and extended; attacks on one run with the same settings can share
            it.

    Raises:
        ConfigError: a number is out of range, the attack does not work on this model, or no judge knows it.
        ModelError: the base model can't be loaded.
        RunError: not a run folder, an unfinished run, a base model that has changed, or no space for the result.

    Examples:
        >>> import crce
        >>> quick = {"phrases": 1, "images_per_prompt": 1, "images_per_try": 1, "steps": 2}
        >>> result = crce.attack("runs/cat", "typo", budget=1, **quick)
        >>> result.path.as_posix()
        'runs/cat/attacks/typo.json'
    """
    erasure = run if isinstance(run, Erasure) else Erasure.load(Path(run))
    steps, guidance, solver = fill_sampling(erasure.sampling, steps, guidance)
    numbers = {"images_per_prompt": images_per_prompt, "images_per_try": images_per_try, "steps": steps}
    check_numbers(**numbers, phrases=phrases, seed=seed, picture_seed=picture_seed, guidance=guidance, batch=batch)
    one = load_attack(name) if isinstance(name, str) else name
    allowed = budget if isinstance(budget, Budget) else Budget(one.default_steps if budget is None else budget)
    scorer = judge_of_run(judge, erasure, device)
    chosen = choose_prompts(erasure, scorer, targets, prompts, phrases)
    backbone = load_base(erasure, backbone=backbone, device=device)
    one.check_model(backbone)
    described = describe_run(erasure, scorer)
    head: dict[str, Any] = {
        "attack": one.name,
        "crce": __version__,
        "run": described["run"],
        "model": backbone.model,
        "revision": backbone.revision,
        **({"quantized": backbone.quantized} if backbone.quantized else {}),
        "adapter": described["adapter"],
        "judge": described["judge"],
        "seed": seed,
        "budget": vars(allowed),
        "settings": dict(vars(one)),
        "pictures": {
            **numbers,
            "guidance": guidance,
            "solver": solver,
            "test_seeds": [picture_seed + k for k in range(images_per_prompt)],
            "search_seeds": [picture_seed + SEARCH_SEED + k for k in range(images_per_try)],
        },
    }
    made_of = {k: v for k, v in head.items() if k not in ("budget", "run")}
    folder = erasure.folder / "attacks"
    clock = time.perf_counter()
    log = QueryLog(folder / f"{one.name}.jsonl", made_of, plain)
    with erased_model(backbone, erasure, scorer, log, head, batch) as victim:
        outcomes = list(_outcomes(victim, one, chosen, allowed, folder, on_event))
        spent: dict[str, Any] = {**vars(victim.spent), "reused_pictures": log.reused}
    spent["seconds"] = round(time.perf_counter() - clock, 2)
    result = AttackResult(folder, {**head, "summary": summarise(outcomes), "outcomes": outcomes, "spent": spent})
    write_json(result.path, result.data)
    return result


def _outcomes(
    victim: Victim,
    one: Attack,
    prompts: Sequence[AttackedPrompt],
    budget: Budget,
    folder: Path,
    on_event: Callable[[Progress], None] | None,
) -> Iterator[dict[str, Any]]:
    """For each prompt how it was judged before the attack, what was found, and how that was judged."""
    judged = {p.text: {"base": victim.measure(p, base=True), "before": victim.measure(p)} for p in prompts}
    reasons = {p.text: left_out(judged[p.text]["base"], p.expected) for p in prompts}
    kept = [p.text for p in prompts if reasons[p.text] is None]
    for prompt in prompts:
        words, reason = judged[prompt.text], reasons[prompt.text]
        outcome: dict[str, Any] = {"target": prompt.target, "prompt": prompt.text, "role": prompt.role}
        outcome |= {"expected": prompt.expected, "left_out": reason}
        if reason is not None:
            nothing = {"text": prompt.text, "state": "", "word": None}
            yield {**outcome, "found": nothing, "words": {**words, "after": []}}
            continue

        def report(steps: int, text: str = prompt.text) -> None:
            if on_event:
                done = kept.index(text) * budget.steps + steps
                on_event(Progress(one.name, text, done, len(kept) * budget.steps))

        answer = one.run(victim, prompt, budget, report)
        report(budget.steps)
        best = answer.found
        words["after"] = victim.measure(prompt, best.text, word=best.word, state=best.state)
        file = write_word(folder, one.name, prompt.text, best.word)
        search = {
            "tries": len(answer.tries),
            "steps": answer.steps,
            "best_hits": best.hits,
            "images_per_try": len(best.images),
            "any_hit": any(a.hits for a in answer.tries),
        }
        found = {"text": best.text, "state": best.state, "word": file}
        results = {"search": search, "spent": answer.spent, "details": answer.details}
        yield {**outcome, "found": found, "words": words, **results}


def left_out(words: Sequence[str | None], expected: str) -> str | None:
    """Why a prompt doesn't count: the base model's images of it are not recognised often enough."""
    hits = sum(word == expected for word in words)
    if hits >= DRAWABLE_SHARE * len(words):
        return None
    return f'the base model draws it as "{expected}" in only {hits} of {len(words)} pictures'


def judge_of_run(judge: str | Judge, erasure: Erasure, device: str) -> Judge:
    """The judge of an attack, see `choose_judge`; everyday things are among classes that it takes from the run.

    A judge whose threshold is calibrated on images of the base model takes that of its latest report of the run.
    """
    model, folder = erasure.info["model"], erasure.folder / FOLDER
    chosen = choose_judge(judge, model, erasure.sets, unrelated=EVERYDAY, folder=folder, device=device, required=True)
    scorer = cast("Judge", chosen)
    report = report_of(erasure.folder, scorer.name)
    if isinstance(scorer, CalibratedJudge) and report.is_file():
        scorer.threshold = read_json(report, dict[str, Any], "Run `crce evaluate` again.")["judge"]["threshold"]
    return scorer


def describe_run(erasure: Erasure, judge: Judge) -> dict[str, Any]:
    """The run, its adapter and the judge, as NAME.json holds them."""
    described = describe_judge(judge, judge.threshold, class_list=False)
    return {"run": str(erasure.folder), "adapter": file_hash(erasure.adapter), "judge": described}


@contextmanager
def erased_model(
    backbone: Backbone, erasure: Erasure, judge: Judge, log: QueryLog, head: dict[str, Any], batch: int = 0
) -> Iterator[Victim]:
    """The erased model, for as long as the context lasts, with seeds and settings as NAME.json holds them."""
    names = ("search_seeds", "test_seeds", "steps", "guidance", "solver")
    settings = {name: head["pictures"][name] for name in names}
    with closing(apply_adapter(backbone, erasure.adapter)) as adapter:
        yield Victim(backbone, adapter, judge, log, head["seed"], **settings, batch=batch)


def write_word(folder: Path, name: str, prompt: str, word: torch.Tensor | None) -> str | None:
    """Save the embeddings that an attack learned for a prompt, for diffusers; the file name, or None without any."""
    if word is None:
        return None
    file = f"{name}-{slug(prompt)}-{text_hash(prompt)[:8]}.safetensors"  # prompts may have one slug
    write_tensors(folder / file, {f"<{slug(prompt)}>": word}, {"format": "pt"})
    return file
