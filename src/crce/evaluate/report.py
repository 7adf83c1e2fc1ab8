"""report.json of one target, of several together, and of a prompt set; and the files that a report consists of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crce.concepts import ConceptSet
from crce.evaluate.comparison import compare_groups, say_significance
from crce.evaluate.measurement import MeasuredTarget
from crce.evaluate.model_pair import ModelPair
from crce.evaluate.prompt_sets.prompt_set import Number, PromptSet
from crce.evaluate.prompts import NO_JUDGE
from crce.evaluate.scores import ScoredGroup, summarise_groups
from crce.evaluate.settings import EvaluationSettings
from crce.evaluate.stats import Measure, compare
from crce.evaluate.verdict import make_verdict, pool
from crce.files import slug, write_json, write_text


if TYPE_CHECKING:
    from crce.judges import Judge
    from crce.training import Erasure

TARGETS = "targets"  # folder of the reports of several targets
REPORTS = "reports"  # folder of the latest report.json of each judge


@dataclass(frozen=True)
class StoredReport:
    """A report.json with its report.html.

    Attributes:
        folder: where they are.
        data: the content of report.json.
    """

    folder: Path
    data: dict[str, Any]

    @property
    def path_json(self) -> Path:
        return self.folder / "report.json"

    @property
    def path_html(self) -> Path:
        return self.folder / "report.html"

    def write(self, page: str) -> None:
        """Write report.json and report.html.

        Raises:
            RunError: a file can't be written.
        """
        write_json(self.path_json, self.data)
        write_text(self.path_html, page)

    def keep_for(self, judge: Judge | None) -> None:
        """Write a copy of report.json under the judge's name, which reports of other judges leave alone."""
        if judge is not None:
            write_json(self.folder / REPORTS / f"{slug(judge.name)}.json", self.data)


class Report(StoredReport):
    """The report of an evaluation in the run folder.

    With several targets, report.json and report.html are an overview, and each target has its own under targets/.
    """

    @property
    def summary(self) -> dict[str, dict[str, Any]]:
        """`erased`, `coref_erased`, `kept` and `H`, each {"value", "low", "high", "n"}, or None with a reason."""
        return self.data["summary"]

    @property
    def targets(self) -> list[dict[str, Any]]:
        """Of several targets each with its `target`, `kind`, `summary`, `verdict` and `report`; of one none."""
        return self.data.get("targets", [])

    @property
    def verdict(self) -> str:
        """What was erased, what leaked, what broke and what to try next, in plain words."""
        return self.data["verdict"]


class PromptReport(StoredReport):
    """The report of a prompt set, in RUN/prompts/SET or, of a run with several targets, in RUN/prompts/SET/TARGET."""

    @property
    def numbers(self) -> dict[str, dict[str, Any]]:
        """By the set's name of a number its `base`, `erased` and `difference`, or the `reason` that there is none."""
        return {number["name"]: number for number in self.data["numbers"]}


def target_folders(sets: Sequence[ConceptSet]) -> list[Path]:
    """The folder of each target's report, relative to the run's; no two are the same."""
    if len(sets) == 1:
        return [Path()]
    folders: list[Path] = []
    for concepts in sets:
        name, number = slug(concepts.target), 1
        while (folder := Path(TARGETS) / (name if number == 1 else f"{name}-{number}")) in folders:
            number += 1
        folders.append(folder)
    return folders


def target_json(target: MeasuredTarget, erasure: Erasure, settings: EvaluationSettings) -> dict[str, Any]:
    """report.json of one target.

    Args:
        target: its numbers.
        erasure: the run.
        settings: of the evaluation.
    """
    head = {"target": target.concepts.target, "kind": target.concepts.kind}
    return head | _body([target], erasure, settings, target.judge) | target.parts


def targets_json(
    targets: Sequence[MeasuredTarget],
    reports: Sequence[Mapping[str, Any]],
    erasure: Erasure,
    settings: EvaluationSettings,
    judge: Mapping[str, Any] | None,
    models: ModelPair,
) -> dict[str, Any]:
    """report.json of several targets: the numbers of all together.

    Args:
        targets: their numbers.
        reports: the report.json of each.
        erasure: the run.
        settings: of the evaluation.
        judge: the judge as reports name it.
        models: the models, which know what failed.
    """
    named = zip(reports, target_folders(erasure.sets), strict=True)
    entries = [
        {name: own[name] for name in ("target", "kind", "summary", "verdict")}
        | {"report": (folder / "report.html").as_posix()}
        for own, folder in named
    ]
    times = [own["seconds"] for own in reports]
    seconds = {name: round(sum(each[name] for each in times), 2) for name in ("draw", "score")}
    return {
        "targets": entries,
        **_body(targets, erasure, settings, judge),
        "failed": {"base": models.base.failed, "erased": models.erased.failed},
        "seconds": {"load": times[0]["load"], **seconds},
    }


def _body(
    targets: Sequence[MeasuredTarget],
    erasure: Erasure,
    settings: EvaluationSettings,
    judge: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The numbers of one or several targets, and what they say."""
    scored = [target.scored for target in targets]
    groups = pool(scored)
    compared = compare_groups(groups, seed=settings.seed)
    verdict = make_verdict(scored, erasure.info["config"])
    summary = scored[0].summary if len(scored) == 1 else _joint_summary(groups, settings.seed)
    scenes = erasure.config.scenes
    return {
        "model": erasure.info["model"],
        "revision": erasure.info["revision"],
        "summary": {name: measure.as_json() for name, measure in summary.items()},
        "verdict": verdict.text,
        "points": [dict(vars(point)) for point in verdict.points],
        "comparisons": {name: c and c.as_json() for name, c in compared.items()} if judge else None,
        "significance": say_significance(compared) if judge else [],
        "leaks": [change.as_json() for change in verdict.leaks],
        "broken": [change.as_json() for change in verdict.broken],
        "judge": judge,
        "settings": {**settings.as_json(), **({"scenes": list(scenes)} if scenes else {})},
    }


def _joint_summary(groups: Mapping[str, ScoredGroup], seed: int) -> dict[str, Measure]:
    """The headline numbers of all targets."""
    return {
        name: replace(m, reason=m.reason and m.reason.replace("the concept set has no", "no concept set has"))
        for name, m in summarise_groups(groups, seed=seed).items()
    }


def prompt_set_json(
    prompt_set: PromptSet,
    concepts: ConceptSet,
    scored: Mapping[str, ScoredGroup],
    erasure: Erasure,
    settings: EvaluationSettings,
    seeds: Mapping[str, Sequence[int]],
    parts: Mapping[str, Any],
) -> dict[str, Any]:
    """report.json of a prompt set.

    Args:
        prompt_set: the set.
        concepts: the concept set of the run that was measured.
        scored: its groups by name.
        erasure: the run.
        settings: of the evaluation.
        seeds: by text those of its images.
        parts: judges, failed and seconds.
    """
    groups = {}
    for group in prompt_set.groups:
        own = scored[group.name].as_json()
        for prompt in own["prompts"]:
            prompt["seeds"] = list(seeds[prompt["text"]])
        recognitions = [p.recognition for p in scored[group.name].prompts if p.recognition is not None]
        compared = compare(recognitions, seed=settings.seed)
        head = {"title": group.title, "of": len({p.text for p in group.prompts})}
        groups[group.name] = {**head, **own, "comparison": compared}
    return {
        "set": {
            "name": prompt_set.name,
            "title": prompt_set.title,
            "source": str(prompt_set.source),
            "concept": prompt_set.concept,
            "drawn": prompt_set.drawn,
        },
        "target": concepts.target,
        "kind": concepts.kind,
        "model": erasure.info["model"],
        "revision": erasure.info["revision"],
        "numbers": [_number(n, scored[n.group], groups[n.group]["comparison"]) for n in prompt_set.numbers],
        "unmeasured": dict(prompt_set.unmeasured),
        "settings": settings.as_json(),
        "groups": {name: {**g, "comparison": (c := g["comparison"]) and c.as_json()} for name, g in groups.items()},
        **parts,
    }


def _number(number: Number, group: ScoredGroup, comparison: Any) -> dict[str, Any]:
    """A number as report.json holds it."""
    better = "lower" if group.group.erasing and not number.complement else "higher"
    head = {"name": number.name, "group": number.group, "better": better}
    if comparison is None:
        reasons = {p.left_out for p in group.prompts if p.left_out}
        many = f"none of its {len(group.prompts)} prompts can be scored"
        return {**head, "reason": reasons.pop() if len(reasons) == 1 else many if reasons else NO_JUDGE}
    return {**head, **(comparison.complement if number.complement else comparison).as_json()}
