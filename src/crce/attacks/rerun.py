"""The replay of an attack's results: the same prompts and seeds, generated again, on the same run or on another."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from crce.attacks.asr import summarise
from crce.attacks.campaign import describe_run, erased_model, judge_of_run
from crce.attacks.prompts import AttackedPrompt
from crce.attacks.protocol import Attack, Budget, Progress
from crce.attacks.query_log import QueryLog
from crce.attacks.table import load_attack
from crce.attacks.victim import Victim
from crce.backbones import Backbone
from crce.errors import ConfigError, RunError
from crce.files import read_json, read_tensors
from crce.judges import Judge
from crce.training import Erasure, load_base


def replay(
    path: Path | str,
    run: Path | str | Erasure | None = None,
    *,
    judge: str | Judge = "auto",
    device: str = "auto",
    on_event: Callable[[Progress], None] | None = None,
    backbone: Backbone | None = None,
) -> tuple[dict[str, Any], bool]:
    """Measure again what an attack found, with the same seeds; only prompts and settings are read from the file.

    Args:
        path: RUN/attacks/NAME.json.
        run: the run to measure; None is the attacked run, and another shows whether the results transfer to it.
        judge: as in `attack`, as are device, on_event and backbone.

    Returns:
        The new content of NAME.json, which is not written, and whether every image was judged as before.

    Raises:
        ConfigError: the attack does not work on this model, or no judge knows it.
        ModelError: the base model can't be loaded.
        RunError: the file can't be read, or the run can't be used.
    """
    path = Path(path)
    try:
        old = read_json(path, dict[str, Any], "Attack again.")
        _ = old["outcomes"], old["budget"], old["judge"]["name"], old["pictures"]["test_seeds"]
        one = load_attack(old["attack"])
        for setting, value in old["settings"].items():
            setattr(one, setting, value)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise RunError(f"Cannot read {path} as the result of an attack: {error}. Attack again.") from error
    erasure = run if isinstance(run, Erasure) else Erasure.load(Path(run) if run is not None else path.parents[1])
    scorer = judge_of_run(judge, erasure, device)
    for outcome in old["outcomes"]:
        if outcome["expected"] not in scorer.classes:
            raise ConfigError(
                f"The judge {scorer.name!r} has no class {outcome['expected']!r}, which {path} was judged by. Use the "
                f"same judge: --judge {old['judge']['name']}"
            )
    backbone = load_base(erasure, backbone=backbone, device=device)
    one.check_model(backbone)
    head = {**old, **describe_run(erasure, scorer), "model": backbone.model, "revision": backbone.revision}
    outcomes = []
    with erased_model(backbone, erasure, scorer, QueryLog(None, {}), head) as victim:
        for i, outcome in enumerate(old["outcomes"]):
            concepts = next((c for c in erasure.sets if c.target == outcome["target"]), erasure.concepts)
            prompt = AttackedPrompt(outcome["prompt"], outcome["role"], outcome["expected"], concepts)
            outcomes.append({**outcome, **_measure(victim, one, prompt, outcome, old["budget"], path.parent)})
            if on_event:
                on_event(Progress(one.name, prompt.text, i + 1, len(old["outcomes"])))
        spent = dict(vars(victim.spent))
    same = all(new["words"] == was["words"] for new, was in zip(outcomes, old["outcomes"], strict=True))
    return {**head, "summary": summarise(outcomes), "outcomes": outcomes, "spent": spent}, same


def _measure(
    victim: Victim, one: Attack, prompt: AttackedPrompt, outcome: dict[str, Any], budget: dict[str, int], folder: Path
) -> dict[str, Any]:
    """The judge's new words for a prompt, with new details where the search was repeated."""
    found, after, details = outcome["found"], [], outcome.get("details", {})
    words: dict[str, Any] = {"base": victim.measure(prompt, base=True), "before": victim.measure(prompt)}
    if outcome["left_out"] is None and found["state"] and one.searches_again:
        again = one.run(victim, prompt, Budget(**budget))
        details = again.details
        after = victim.measure(prompt, again.found.text, state=again.found.state)
    elif outcome["left_out"] is None:
        word = read_word(folder / found["word"]) if found["state"] else None
        after = victim.measure(prompt, found["text"], word=word)
    return {"words": {**words, "after": after}, **({"details": details} if "details" in outcome else {})}


def read_word(path: Path) -> torch.Tensor:
    """The embeddings saved by `write_word`, shape (K, W)."""
    try:
        (word,) = read_tensors(path)[0].values()
    except (OSError, ValueError) as error:
        raise RunError(f"Cannot read the learned embeddings {path}: {error}. Attack again.") from error
    return word
