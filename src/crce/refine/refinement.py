"""Refining a run: read its evaluation, extend its concept set, train on from its weights, and measure the gain."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import Any

from crce.backbones import Backbone
from crce.bounds import check_numbers
from crce.concepts import write_concepts
from crce.demo.embedding import load_embedder
from crce.errors import ConfigError, RunError
from crce.evaluate import Drawn, evaluate
from crce.judges import Judge
from crce.refine.plan import RoundPlanner, covers, find_failures
from crce.refine.record import (
    FILE,
    Refinement,
    RefineSettings,
    Round,
    append_exchanges,
    erased_sense,
    inherited_split,
    read_refinement,
)
from crce.refine.split import score, split_held_out
from crce.sampling import ImageCache
from crce.suggest.candidates import Request, Suggester
from crce.suggest.llm import LLMSuggester
from crce.suggest.memory import Memory
from crce.suggest.suggesters import load_suggester
from crce.training import Erasure, Event, erase, load_base, resume
from crce.training.run_folder import alone, file_hash, read_report


SAMPLING = ("images_per_prompt", "seed", "steps", "guidance")  # settings of the report that all rounds share
PHRASES = 10  # at least as many as the default of the evaluation


@dataclass(frozen=True)
class RoundPlanned:
    """A round is about to be trained."""

    round: Round


@dataclass(frozen=True)
class RoundScored:
    """A round, or the refined run itself, has been measured on the test half."""

    round: Round


RefineEvent = Event | Drawn | RoundPlanned | RoundScored


@alone
def refine(
    run: Path | str,
    *,
    rounds: int = 3,
    suggester: str | Suggester | None = None,
    base_url: str | None = None,
    prompts: str | Path | None = None,
    token_budget: int = 100_000,
    images_per_prompt: int | None = None,
    eval_minutes: float | None = None,
    min_gain: float = 0.01,
    judge: str | Judge = "auto",
    device: str = "auto",
    backbone: Backbone | None = None,
    memory: Memory | None = None,
    on_event: Callable[[RefineEvent], None] | None = None,
) -> Refinement:
    """Train on, round by round, with leaked phrases added to the corefs and broken ones to the retains.

    Each round starts from the weights of the best one so far, while its teacher stays the base model. Rounds end when
    one gains less than `min_gain` in H on the test half (see `crce.refine.split`), or leaves nothing to learn. An
    interrupted refinement is resumed. As the best round is selected by its H, that H is slightly optimistic;
    `evaluate` with another seed shows by how much.

    Args:
        run: folder of a finished run. Its report is used if it covers the held-out phrases, else a new one is made.
        rounds: maximum number of rounds, including those of an earlier call.
        suggester: proposes related phrases, see `load_suggester`.
        base_url: address of an OpenAI-compatible server.
        prompts: folder with prompts that replace bundled ones.
        token_budget: tokens that a language model may use in total.
        images_per_prompt: images per prompt; None takes the number in the run's report, else as `evaluate` does.
        eval_minutes: where the run has no such report, see `evaluate`; each round has as many images.
        min_gain: a round that gains less is the last, and is not kept.
        judge: see `evaluate`; "auto" takes the judge of the run's report.
        device: where to train and generate, unless `backbone` is given.
        backbone: the run's base model, already loaded.
        memory: earlier decisions of a person; None takes the user's own.
        on_event: called after each step, each batch of images, each planned round and each scored round.

    Returns:
        All rounds, which of them is best, and why they ended, as in refine.json.

    Raises:
        ConfigError: a number is out of range, or the run has several targets.
        RunError: the run is not finished, has no corefs and retains or can't be measured, or its refinement was
            started with other settings.
        SuggestError: there is no such suggester, or its language model fails; call again to continue.
        Interrupted: the user stopped it; call again to continue.
    """
    check_numbers(rounds=rounds, images_per_prompt=images_per_prompt, eval_minutes=eval_minutes)
    if not 0 <= min_gain < 1:
        raise ConfigError(f"min_gain is {min_gain}. Use a share of H from 0 to below 1, e.g. 0.01.")
    erasure = Erasure.load(run)
    folder = quote(str(run))
    if len(erasure.sets) > 1:
        targets = ", ".join(concepts.target for concepts in erasure.sets)
        one = quote(f"{erasure.folder / 'concepts.yaml'}#{erasure.sets[0].target}")
        raise ConfigError(
            f"The run {run} erases several targets ({targets}), and refining extends one concept set. Erase each "
            f"alone, e.g. crce erase {one} --like {folder}, refine those runs, and erase the concepts.yaml files of "
            "their best rounds together."
        )
    if not erasure.config.crce:
        raise RunError(
            f"The run {run} was trained on its target alone, and refining extends corefs and retains. Erase with "
            f"them first: crce erase --like {folder} --crce"
        )
    if suggester is None or isinstance(suggester, str):
        suggester = load_suggester(suggester, base_url=base_url, prompts=prompts, token_budget=token_budget)
    how: dict[str, Any] = {"offload": erasure.config.offload, "quantize": erasure.config.quantize}
    backbone = load_base(erasure, backbone=backbone, device=device, **how)
    emit = on_event or (lambda event: None)
    loop = _Loop(erasure, backbone, suggester, memory or Memory(), judge, emit, eval_minutes)
    return loop.run(rounds, images_per_prompt, min_gain)


@dataclass
class _Loop:
    """The state that the rounds of one call share."""

    erasure: Erasure
    backbone: Backbone
    suggester: Suggester
    memory: Memory
    judge: str | Judge
    emit: Callable[[RefineEvent], None]
    minutes: float | None
    images: ImageCache = field(default_factory=ImageCache)

    def run(self, rounds: int, images: int | None, min_gain: float) -> Refinement:
        root, concepts = self.erasure.folder, self.erasure.concepts
        state = self._resume(images, min_gain) if (root / FILE).exists() else self._start(images, min_gain)
        state.write()
        for scored in state.rounds:
            if scored.summary:
                self.emit(RoundScored(scored))
        sense = erased_sense(root, concepts.target)
        avoid, examples = self.memory.rejected(concepts.target, sense), self.memory.examples(concepts.kind)
        request = Request(concepts.target, concepts.kind, sense, avoid=avoid, examples=examples)
        planner = RoundPlanner(self.suggester, state.split, load_embedder(), request)
        if state.stopped == "all rounds done":  # there may be more now
            state = replace(state, stopped=None)
        while state.stopped is None:
            last = state.rounds[-1]
            if not last.summary:
                state = self._train_and_score(state)
            elif last.number >= rounds:
                state = replace(state, stopped="all rounds done")
            elif planned := self._plan(state, planner):
                state = state.with_round(planned)
            else:
                state = replace(state, stopped="nothing to learn")
            state.write()
        return state

    def _start(self, images: int | None, min_gain: float) -> Refinement:
        """The state before the first round, with the run's own report if it is sufficient, else a new one."""
        root, concepts = self.erasure.folder, self.erasure.concepts
        report = read_report(root)
        if report is None or not covers(report, self.erasure, images, self.judge):
            report = self._evaluate(self.erasure, {"images_per_prompt": images, "eval_minutes": self.minutes})
        judge = self.judge if self.judge != "auto" else (report["judge"] or {}).get("name", "auto")
        sampling = {name: report["settings"][name] for name in SAMPLING}
        sampling |= {"steps": None} if "solver" in report["settings"] else {}  # which the model has by default
        settings = RefineSettings(
            suggester=self.suggester.name,
            judge=judge if isinstance(judge, str) else judge.name,
            min_gain=min_gain,
            threshold=(report["judge"] or {}).get("threshold"),
            **sampling,
        )
        split = inherited_split(root, concepts) or split_held_out(concepts, report)
        first = Round(0, root, concepts, summary=score(report, split))
        return Refinement(root, file_hash(self.erasure.adapter), settings, split, (first,))

    def _resume(self, images: int | None, min_gain: float) -> Refinement:
        state = read_refinement(self.erasure.folder)
        cure = f"Move {state.root / FILE} and {state.root}/round-* away to refine this run from the start."
        if file_hash(self.erasure.adapter) != state.adapter:
            raise RunError(f"The weights of {state.root} have changed since it was refined. {cure}")
        judge = None if self.judge == "auto" else self.judge if isinstance(self.judge, str) else self.judge.name
        given = {"suggester": self.suggester.name, "min_gain": min_gain, "images_per_prompt": images, "judge": judge}
        for name, value in given.items():
            was = getattr(state.settings, name)
            if value is not None and value != was:
                raise RunError(f"{state.root} was refined with {name} {was}, not {value}. Use the same, or: {cure}")
        return state

    def _plan(self, state: Refinement, planner: RoundPlanner) -> Round | None:
        """The next round, with its concept set in its folder; None without failures outside the test half."""
        best = state.best_round
        failures = find_failures(best.concepts, read_report(best.folder) or {}, state.split)
        if not failures:
            return None
        number = len(state.rounds)
        folder = state.root / f"round-{number}"
        if (folder / "run.json").exists():
            raise RunError(f"{folder} holds a run that is not in {state.root / FILE}. Move it away.")
        exchanges = self.suggester.exchanges if isinstance(self.suggester, LLMSuggester) else []
        asked = len(exchanges)
        try:
            concepts, changes, notes = planner.plan(best.concepts, failures)
        finally:  # answers before an error may have been paid for
            append_exchanges(folder, exchanges[asked:])
        write_concepts(folder / "concepts.yaml", concepts)
        return Round(number, folder, concepts, changes, notes)

    def _train_and_score(self, state: Refinement) -> Refinement:
        """Train the planned round, or continue its training, and measure it."""
        planned, best, settings = state.rounds[-1], state.best_round, state.settings
        shared: dict[str, Any] = {"backbone": self.backbone, "on_event": self.emit}
        self.emit(RoundPlanned(planned))
        if (planned.folder / "run.json").exists():
            erasure = resume(planned.folder, **shared)
        else:
            # Another seed for each round: the same one would repeat the noise that the model was trained on.
            config = self.erasure.config.model_copy(update={"seed": self.erasure.config.seed + planned.number})
            erasure = erase(planned.concepts, config=config, out=planned.folder, start_from=best.folder, **shared)
        measured = {name: getattr(settings, name) for name in (*SAMPLING, "threshold")}
        report = self._evaluate(erasure, measured, settings.judge)
        scored = replace(planned, summary=score(report, state.split))
        scored = replace(scored, gain=(gain := round(scored.H - best.H, 4)))
        self.emit(RoundScored(scored))
        state = state.with_round(scored)
        return replace(state, best=scored.number) if gain >= settings.min_gain else replace(state, stopped="no gain")

    def _evaluate(self, erasure: Erasure, settings: dict[str, Any], judge: str = "auto") -> dict[str, Any]:
        """The report over every phrase of the set: a new one may leak, and the test half is always the same."""
        concepts = erasure.concepts
        lists = (concepts.train_corefs, concepts.train_retains, concepts.held_out_corefs, concepts.held_out_retains)
        report = evaluate(
            erasure,
            judge=judge if self.judge == "auto" else self.judge,
            phrases_per_group=max(PHRASES, *map(len, lists)),
            backbone=self.backbone,
            quantize=self.backbone.quantized,
            image_cache=self.images,
            on_event=self.emit,
            **settings,
        )
        return report.data
