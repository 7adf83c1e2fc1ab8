"""Refining a run: read its evaluation, grow its concept set, erase again from its weights, and measure the gain."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crce.concepts import write_concepts
from crce.demo.embedding import load_embedder
from crce.errors import ConfigError, RunError
from crce.evaluate import Drawn, evaluate
from crce.refine.failures import covers, findings, read_report
from crce.refine.plan import Planner
from crce.refine.record import (
    FILE,
    Refinement,
    Round,
    Settings,
    append_exchanges,
    erased_sense,
    inherited_halves,
    read_refinement,
)
from crce.refine.split import Halves, score, split
from crce.sampling import ImageCache
from crce.suggest.llm import LLMSuggester
from crce.suggest.memory import Memory
from crce.suggest.suggesters import load_suggester
from crce.training import Erasure, Event, erase, load_base, resume
from crce.training.run_folder import file_hash


if TYPE_CHECKING:
    from crce.backbones import Backbone
    from crce.judges import Judge
    from crce.suggest.candidates import Suggester

IMAGES_PER_PROMPT = 8
PHRASES = 10  # as the evaluation's own: fewer are never drawn


@dataclass(frozen=True)
class Planned:
    """A round is about to be trained."""

    round: Round


@dataclass(frozen=True)
class Scored:
    """A round, or the run that is refined, has been measured on the test half."""

    round: Round


def refine(
    run: Path | str,
    *,
    rounds: int = 3,
    suggester: str | Suggester | None = None,
    base_url: str | None = None,
    prompts: str | Path | None = None,
    token_budget: int = 100_000,
    images_per_prompt: int | None = None,
    min_gain: float = 0.01,
    judge: str | Judge = "auto",
    device: str = "auto",
    backbone: Backbone | None = None,
    memory: Memory | None = None,
    on_event: Callable[[Event | Drawn | Planned | Scored], None] | None = None,
) -> Refinement:
    """Erase again, round by round, with what leaked added to the corefs and what broke to the retains.

    Each round starts from the weights of the best one so far, while its teacher stays the base model. Rounds end when
    H on the test half (see `crce.refine.split`) gains less than `min_gain`, or nothing is left to learn from. A
    refinement that was stopped goes on where it was. As the best round is chosen by its H, that H is a little
    flattered; `evaluate` with another seed tells by how much.

    Args:
        run: folder of a finished run. Its report is used when it covers the held-out phrases, else made.
        rounds: most rounds, those of an earlier call among them.
        suggester: is asked for phrases around those that leaked or broke, see `load_suggester`.
        base_url: address of an OpenAI-compatible server.
        prompts: folder with prompts that win over the bundled ones.
        token_budget: tokens that a language model may use in all.
        images_per_prompt: pictures for each prompt; None takes as many as the run's report, else 8.
        min_gain: a round that gains less is the last, and is not kept.
        judge: see `evaluate`; "auto" takes that of the run's report.
        device: where to train and draw, unless `backbone` is given.
        backbone: the run's base model, already loaded.
        memory: earlier decisions of a person; None takes the user's own.
        on_event: is told of every step, drawn batch, planned round and scored round.

    Returns:
        All rounds, which is best, and why they ended; the same is in refine.json.

    Raises:
        ConfigError: a number is out of range, or the run has several targets.
        RunError: not a finished run, one trained without corefs and retains, one that can't be measured, or a
            refinement that was begun with other settings.
        SuggestError: there is no such suggester, or its language model fails; call again to go on.
        Interrupted: the user stopped it; call again to go on.
    """
    if rounds < 1:
        raise ConfigError(f"rounds is {rounds}. Use 1 or more.")
    if not 0 <= min_gain < 1:
        raise ConfigError(f"min_gain is {min_gain}. Use a share of H from 0 to below 1, e.g. 0.01.")
    if images_per_prompt is not None and images_per_prompt < 1:
        raise ConfigError(f"images_per_prompt is {images_per_prompt}. Use 1 or more.")
    erasure = Erasure.load(run)
    if len(erasure.sets) > 1:
        targets = ", ".join(concepts.target for concepts in erasure.sets)
        one = shlex.quote(f"{erasure.folder / 'concepts.yaml'}#{erasure.sets[0].target}")
        raise ConfigError(
            f"The run {run} erases several targets ({targets}), and refining grows one concept set. Erase each alone, "
            f"e.g. crce erase {one}, refine those runs, and erase the concepts.yaml of their best rounds together."
        )
    if not erasure.config.crce:
        raise RunError(
            f"The run {run} was trained on its target alone, and refining grows corefs and retains. Erase it with "
            f"them first: crce erase {erasure.folder / 'concepts.yaml'} --crce"
        )
    if suggester is None or isinstance(suggester, str):
        suggester = load_suggester(suggester, base_url=base_url, prompts=prompts, token_budget=token_budget)
    loop = _Loop(
        erasure,
        load_base(erasure, backbone=backbone, device=device, offload=erasure.config.offload),
        suggester,
        memory or Memory(),
        judge,
        on_event or (lambda event: None),
    )
    return loop.run(rounds, images_per_prompt, min_gain)


@dataclass
class _Loop:
    """What the rounds of one call share."""

    erasure: Erasure
    backbone: Backbone
    suggester: Suggester
    memory: Memory
    judge: str | Judge
    tell: Callable[[Event | Drawn | Planned | Scored], None]

    def __post_init__(self) -> None:
        self._cache = ImageCache()

    def run(self, rounds: int, images: int | None, min_gain: float) -> Refinement:
        root = self.erasure.folder
        state = self._continued(images, min_gain) if (root / FILE).exists() else self._begun(images, min_gain)
        state.write()
        for scored in state.rounds:
            if scored.summary:
                self.tell(Scored(scored))
        target, kind = self.erasure.concepts.target, self.erasure.concepts.kind
        sense = erased_sense(root, target)
        planner = Planner(
            self.suggester,
            state.halves,
            load_embedder(),
            sense=sense,
            avoid=self.memory.rejected(target, sense),
            examples=self.memory.examples(kind),
        )
        while state.stopped in (None, "all rounds done"):
            last = state.rounds[-1]
            if last.summary and last.number >= rounds:
                state = replace(state, stopped="all rounds done")
                break
            if last.summary:
                planned = self._planned(state, planner)
                if planned is None:
                    state = replace(state, stopped="nothing to learn")
                    break
                state = replace(state, stopped=None).with_round(planned)
                state.write()
            state = self._done(state)
            state.write()
        state.write()
        return state

    # ---- how it begins ----------------------------------------------------------------------------------------------

    def _begun(self, images: int | None, min_gain: float) -> Refinement:
        report = self._first_report(images)
        judge = self.judge if self.judge != "auto" else (report["judge"] or {}).get("name", "auto")
        drawn = report["settings"]
        settings = Settings(
            suggester=self.suggester.name,
            judge=judge if isinstance(judge, str) else judge.name,
            images_per_prompt=drawn["images_per_prompt"],
            min_gain=min_gain,
            seed=drawn["seed"],
            steps=drawn["steps"],
            guidance=drawn["guidance"],
        )
        root, concepts = self.erasure.folder, self.erasure.concepts
        halves = inherited_halves(root, concepts) or split(concepts, report)
        first = Round(0, root, concepts, summary=_numbers(report, halves))
        return Refinement(root, file_hash(self.erasure.adapter), settings, halves, (first,))

    def _continued(self, images: int | None, min_gain: float) -> Refinement:
        state = read_refinement(self.erasure.folder)
        anew = f"Move {state.root / FILE} and {state.root}/round-* away to refine this run anew."
        if file_hash(self.erasure.adapter) != state.adapter:
            raise RunError(f"{state.root} was refined from other weights than it holds now. {anew}")
        given = {"suggester": self.suggester.name, "min_gain": min_gain, "images_per_prompt": images}
        for name, value in given.items():
            begun = getattr(state.settings, name)
            if value is not None and value != begun:
                raise RunError(f"{state.root} was refined with {name} {begun}, not {value}. Give the same, or: {anew}")
        return state

    def _first_report(self, images: int | None) -> dict[str, Any]:
        """The run's own report if it will do, else a new one."""
        if (self.erasure.folder / "report.json").exists():
            report = read_report(self.erasure.folder)
            if covers(report, self.erasure, images) and self.judge in ("auto", report["judge"]["name"]):
                return report
        return self._evaluate(self.erasure, {"images_per_prompt": images or IMAGES_PER_PROMPT})

    # ---- a round ----------------------------------------------------------------------------------------------------

    def _planned(self, state: Refinement, planner: Planner) -> Round | None:
        """The next round, its folder with its concept set; None when nothing leaked or broke outside the test half."""
        best = state.best_round
        found = findings(best.concepts, read_report(best.folder), state.halves)
        if not found:
            return None
        number = len(state.rounds)
        folder = state.root / f"round-{number}"
        if (folder / "run.json").exists():
            raise RunError(f"{folder} holds a run that {state.root / FILE} does not know of. Move it away.")
        exchanges = self.suggester.exchanges if isinstance(self.suggester, LLMSuggester) else []
        asked = len(exchanges)
        try:
            plan = planner.plan(best.concepts, found)
        finally:  # what was answered before a fault may have been paid for
            append_exchanges(folder, [exchange.to_dict() for exchange in exchanges[asked:]])
        write_concepts(folder / "concepts.yaml", plan.concepts)
        return Round(number, folder, plan.concepts, plan.changes, plan.notes)

    def _done(self, state: Refinement) -> Refinement:
        """Train and measure the planned round, from wherever it stands."""
        planned, best = state.rounds[-1], state.best_round
        self.tell(Planned(planned))
        if (planned.folder / "run.json").exists():
            erasure = resume(planned.folder, backbone=self.backbone, on_event=self.tell)
        else:
            # Another seed for each round: with the same one it would meet the very noise it has learned from.
            config = self.erasure.config.model_copy(update={"seed": self.erasure.config.seed + planned.number})
            erasure = erase(
                planned.concepts,
                config=config,
                out=planned.folder,
                start_from=best.folder,
                backbone=self.backbone,
                on_event=self.tell,
            )
        settings = state.settings
        drawing = {name: getattr(settings, name) for name in ("images_per_prompt", "seed", "steps", "guidance")}
        report = self._evaluate(erasure, drawing, settings.judge)
        summary = _numbers(report, state.halves)
        scored = replace(planned, summary=summary, gain=round(summary["H"]["value"] - best.H, 4))
        state = state.with_round(scored)
        self.tell(Scored(scored))
        if scored.gain is not None and scored.gain >= settings.min_gain:
            return replace(state, best=scored.number)
        return replace(state, stopped="no gain")

    def _evaluate(self, erasure: Erasure, settings: dict[str, Any], judge: str = "auto") -> dict[str, Any]:
        """Every phrase of the set is drawn: one that is new may leak, and the test half is always the same."""
        concepts = erasure.concepts
        lists = (concepts.train_corefs, concepts.train_retains, concepts.held_out_corefs, concepts.held_out_retains)
        report = evaluate(
            erasure,
            judge=judge if self.judge == "auto" else self.judge,
            phrases_per_group=max(PHRASES, *map(len, lists)),
            backbone=self.backbone,
            image_cache=self._cache,
            on_event=self.tell,
            **settings,
        )
        return report.data


def _numbers(report: dict[str, Any], halves: Halves) -> dict[str, dict[str, Any]]:
    return {name: measure.as_json() for name, measure in score(report, halves).items()}
