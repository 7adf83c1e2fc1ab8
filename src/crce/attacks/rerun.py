"""The replay of what an attack found: the same prompts and seeds, drawn anew, on the same run or on another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crce.attacks import load_attack
from crce.attacks.asr import summarise
from crce.attacks.protocol import Budget, Progress, Prompt
from crce.attacks.query_log import Journal
from crce.attacks.setup import judge_of_run, judged_words, put_on, read_word
from crce.errors import ConfigError, RunError
from crce.judges.judge import describe_judge
from crce.training import Erasure, load_base
from crce.training.run_folder import file_hash


if TYPE_CHECKING:
    from crce.backbones import Backbone
    from crce.judges import Judge


def replay(
    path: Path | str,
    run: Path | str | Erasure | None = None,
    *,
    judge: str | Judge = "auto",
    batch: int = 0,
    device: str = "auto",
    on_event: Callable[[Progress], None] | None = None,
    backbone: Backbone | None = None,
) -> tuple[dict[str, Any], bool]:
    """Draw again what an attack found, with the same seeds; nothing that was written is read but the prompts.

    Args:
        path: RUN/attacks/NAME.json.
        run: the run to draw with; None is the one that was attacked, the folder above. Another run shows whether what
            was found for the first one works on it as well.
        judge: as in `attack`, as are batch, device, on_event and backbone.

    Returns:
        The new content of NAME.json, which is not written, and whether every picture was judged as before.

    Raises:
        ConfigError: the attack does not work on this model, or no judge knows it.
        ModelError: the base model can't be loaded.
        RunError: the file can't be read, or the run can't be used.
    """
    path = Path(path)
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        one = load_attack(old["attack"])
        for setting, value in old["settings"].items():
            setattr(one, setting, value)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"Cannot read {path} as the result of an attack: {error}. Attack again.") from error
    erasure = run if isinstance(run, Erasure) else Erasure.load(Path(run) if run is not None else path.parents[1])
    scorer = judge_of_run(judge, erasure, device)
    for was in old["outcomes"]:
        if was["expected"] not in scorer.classes:
            raise ConfigError(
                f"The judge {scorer.name!r} has no class {was['expected']!r}, which {path} was judged by. Give that "
                f"judge: --judge {old['judge']['name']}"
            )
    backbone = load_base(erasure, backbone=backbone, device=device)
    one.refuse_unfit(backbone)
    now = {
        "run": str(erasure.folder),
        "adapter": file_hash(erasure.adapter),
        "judge": describe_judge(scorer, scorer.threshold, class_list=False),
    }
    head = {**old, **now}
    with put_on(backbone, erasure, scorer, Journal(None, {}), head, batch) as victim:
        outcomes = []
        for i, was in enumerate(old["outcomes"]):
            found, details = was["found"], was.get("details", {})
            concepts = next((c for c in erasure.sets if c.target == was["target"]), erasure.concepts)
            prompt = Prompt(was["prompt"], was["role"], was["expected"], concepts)
            words = {"base": judged_words(victim, prompt, base=True), "before": judged_words(victim, prompt)}
            if was["left_out"] is not None:
                words["after"] = []
            elif found["state"] == "":
                words["after"] = judged_words(victim, prompt, found["text"])
            elif one.searches_again:
                again = next(iter(one.run(victim, [prompt], Budget(**old["budget"]))))
                words["after"] = judged_words(victim, prompt, again.found.text, state=again.found.state)
                details = again.details
            else:
                words["after"] = judged_words(
                    victim, prompt, found["text"], word=read_word(path.parent / found["word"])
                )
            outcomes.append({**was, "words": words, **({"details": details} if "details" in was else {})})
            if on_event:
                on_event(Progress(one.name, prompt.text, i + 1, len(old["outcomes"])))
        spent = dict(vars(victim.spent))
    same = all(new["words"] == was["words"] for new, was in zip(outcomes, old["outcomes"], strict=True))
    return {**head, "summary": summarise(outcomes), "outcomes": outcomes, "spent": spent}, same
