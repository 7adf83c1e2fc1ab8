"""One attack on a run, from the first plain picture to RUN/attacks/NAME.json.

NAME.json        settings, seeds, judge, numbers, and for each prompt what was found and what was seen
NAME.jsonl       every prompt that was drawn, one a line; a stopped attack goes on from there
NAME-PROMPT.safetensors  learned embeddings, as diffusers' textual inversion
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crce import __version__
from crce.attacks import load_attack
from crce.attacks.asr import summarise
from crce.attacks.prompts import choose_prompts
from crce.attacks.protocol import Attack, Budget, Progress, Prompt
from crce.attacks.query_log import Journal, Key, Sight
from crce.attacks.setup import judge_of_run, judged_words, put_on, write_word
from crce.errors import ConfigError
from crce.files import write_json
from crce.judges.judge import describe_judge
from crce.training import Erasure, load_base
from crce.training.run_folder import file_hash


if TYPE_CHECKING:
    from crce.attacks.victim import Victim
    from crce.backbones import Backbone
    from crce.judges import Judge

DRAWABLE = 0.5  # share of the base model's pictures that must show the concept for a prompt to count
SEARCH_SEED = 20_000  # after the seed of the tested pictures: what a search looks at is never what measures it


@dataclass(frozen=True)
class Result:
    """What an attack left.

    Attributes:
        folder: RUN/attacks.
        data: the content of NAME.json.
    """

    folder: Path
    data: dict[str, Any]

    @property
    def path(self) -> Path:
        return self.folder / f"{self.data['attack']}.json"

    @property
    def summary(self) -> dict[str, Any]:
        """See `crce.attacks.asr.summarise`."""
        return self.data["summary"]


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
    steps: int = 20,
    guidance: float = 4.0,
    judge: str | Judge = "auto",
    batch: int = 0,
    device: str = "auto",
    on_event: Callable[[Progress], None] | None = None,
    backbone: Backbone | None = None,
    plain: MutableMapping[Key, Sight] | None = None,
) -> Result:
    """Attack a run, measure what came of it, and write RUN/attacks/NAME.json. Interrupted, it goes on when run again.

    Args:
        run: a finished run, or its folder.
        name: a name in ATTACKS, or an attack with settings of its own.
        budget: steps for each prompt, or a `Budget`; None takes the attack's own.
        seed: of the search.
        targets: of a run with several targets those to attack; none is all.
        prompts: what to attack instead of the targets and their corefs.
        phrases: most prompts for each target: itself, then corefs, trained and held out in turn.
        images_per_prompt: pictures that measure a prompt; picture k is drawn from picture_seed + k.
        images_per_try: pictures that a search looks at, from other seeds.
        picture_seed: of the first picture.
        steps: denoising steps of a picture.
        guidance: of a picture.
        judge: a judge or its name; "auto" takes the one that knows the model.
        batch: pictures drawn at once; 0 picks by the size of the latents.
        device: where to work, unless `backbone` is given.
        on_event: is told of every step.
        backbone: the run's base model, already loaded. Returned unchanged.
        plain: what attacks on this run with the same settings know in common; spares drawing plain prompts again.

    Raises:
        ConfigError: a number is out of range, the attack does not work on this model, or no judge knows it.
        ModelError: the base model can't be loaded.
        RunError: not a run folder, an unfinished run, a base model that has changed, or no room for the result.

    Examples:
        >>> import crce
        >>> quick = {"phrases": 1, "images_per_prompt": 1, "images_per_try": 1, "steps": 2}
        >>> result = crce.attack("runs/cat", "typo", budget=1, **quick)
        >>> result.path.as_posix()
        'runs/cat/attacks/typo.json'
    """
    numbers = {"images_per_prompt": images_per_prompt, "images_per_try": images_per_try, "steps": steps}
    for setting, value in {**numbers, "phrases": phrases}.items():
        if value < 1:
            raise ConfigError(f"{setting} is {value}. Use 1 or more.")
    erasure = run if isinstance(run, Erasure) else Erasure.load(Path(run))
    one = load_attack(name) if isinstance(name, str) else name
    allowed = budget if isinstance(budget, Budget) else Budget(one.default_steps if budget is None else budget)
    scorer = judge_of_run(judge, erasure, device)
    chosen = choose_prompts(erasure, scorer, targets, prompts, phrases)
    backbone = load_base(erasure, backbone=backbone, device=device)
    one.refuse_unfit(backbone)
    head: dict[str, Any] = {
        "attack": one.name,
        "crce": __version__,
        "run": str(erasure.folder),
        "model": backbone.model,
        "revision": backbone.revision,
        "adapter": file_hash(erasure.adapter),
        "judge": describe_judge(scorer, scorer.threshold, class_list=False),
        "seed": seed,
        "budget": vars(allowed),
        "settings": one.settings(),
        "pictures": {
            **numbers,
            "guidance": guidance,
            "test_seeds": [picture_seed + k for k in range(images_per_prompt)],
            "search_seeds": [picture_seed + SEARCH_SEED + k for k in range(images_per_try)],
        },
    }
    made_of = {k: v for k, v in head.items() if k not in ("budget", "run")}
    folder = erasure.folder / "attacks"
    clock = time.perf_counter()
    journal = Journal(folder / f"{one.name}.jsonl", made_of, plain)
    with put_on(backbone, erasure, scorer, journal, head, batch) as victim:
        outcomes = list(_outcomes(victim, one, chosen, allowed, folder, on_event))
        spent = {**vars(victim.spent), "reused_pictures": journal.reused}
    data = {
        **head,
        "summary": summarise(outcomes),
        "outcomes": outcomes,
        "spent": {**spent, "seconds": round(time.perf_counter() - clock, 2)},
    }
    result = Result(folder, data)
    write_json(result.path, data)
    return result


def _outcomes(
    victim: Victim,
    one: Attack,
    prompts: Sequence[Prompt],
    budget: Budget,
    folder: Path,
    on_event: Callable[[Progress], None] | None,
) -> Iterator[dict[str, Any]]:
    """For each prompt what was seen of it before, what was found, and what was seen then."""
    drawn = {p.text: {"base": judged_words(victim, p, base=True), "before": judged_words(victim, p)} for p in prompts}
    reasons = {p.text: left_out(drawn[p.text]["base"], p.expected) for p in prompts}
    found = one.run(victim, [p for p in prompts if reasons[p.text] is None], budget, on_event)
    for prompt in prompts:
        words, reason = drawn[prompt.text], reasons[prompt.text]
        outcome: dict[str, Any] = {
            "target": prompt.target,
            "prompt": prompt.text,
            "role": prompt.role,
            "expected": prompt.expected,
            "left_out": reason,
        }
        if reason is not None:
            nothing = {"text": prompt.text, "state": "", "word": None}
            yield {**outcome, "found": nothing, "words": {**words, "after": []}}
            continue
        answer = next(found)
        best = answer.found
        words["after"] = judged_words(victim, prompt, best.text, word=best.word, state=best.state)
        yield {
            **outcome,
            "found": {"text": best.text, "state": best.state, "word": write_word(folder, one.name, answer)},
            "words": words,
            "search": {
                "tries": len(answer.tries),
                "steps": answer.steps,
                "best_hits": best.hits,
                "images_per_try": len(best.sights),
                "any_hit": any(a.hits for a in answer.tries),
            },
            "spent": answer.spent,
            "details": answer.details,
        }


def left_out(words: Sequence[str | None], expected: str) -> str | None:
    """Why a prompt doesn't count: the base model itself doesn't draw it recognisably."""
    hits = sum(word == expected for word in words)
    if hits >= DRAWABLE * len(words):
        return None
    return f'the base model draws it as "{expected}" in only {hits} of {len(words)} pictures'
