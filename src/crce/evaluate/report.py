"""report.json of one target, of several together, and of a prompt set; and the files that a report consists of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from typing_extensions import Self

from crce.concepts import ConceptSet
from crce.evaluate.measurement import MeasuredTarget
from crce.evaluate.observe import Images
from crce.evaluate.page import render_prompt_set, render_target, render_targets
from crce.evaluate.prompt_sets.prompt_set import Number, PromptSet
from crce.evaluate.prompts import NO_JUDGE, TITLES
from crce.evaluate.scores import ScoredGroup, summarise_groups
from crce.evaluate.settings import ConceptSetSettings, PromptSetSettings
from crce.evaluate.stats import RateComparison, compare
from crce.evaluate.verdict import make_verdict, pool
from crce.files import slug, write_json, write_text
from crce.sampling.pictures import write_sheet
from crce.training import Erasure


PROMPTS = "prompts"  # folder of the reports of prompt sets
TARGETS = "targets"  # folder of the reports of several targets
REPORTS = "reports"  # folder of the latest report.json of each judge


def report_of(run: Path, judge: str) -> Path:
    """The latest report.json of a judge, where a run was evaluated by it."""
    return run / REPORTS / f"{slug(judge)}.json"


@dataclass(frozen=True)
class StoredReport:
    """A folder with a report.json, whose content is `data`, and a report.html."""

    folder: Path
    data: dict[str, Any]

    @property
    def path_json(self) -> Path:
        return self.folder / "report.json"

    @property
    def path_html(self) -> Path:
        return self.folder / "report.html"

    def write(self, page: str) -> Self:
        """Write report.json and report.html, and return the report.

        Raises:
            RunError: a file can't be written.
        """
        write_json(self.path_json, self.data)
        write_text(self.path_html, page)
        return self

    def keep_for(self, judge: Mapping[str, Any] | None) -> Self:
        """Write a copy of report.json under the judge's name, which reports of other judges leave alone."""
        if judge is not None:
            write_json(report_of(self.folder, judge["name"]), self.data)
        return self


class Report(StoredReport):
    """The report of an evaluation in the run folder.

    With several targets, report.json and report.html are an overview, and each target has its own under targets/.
    """

    @property
    def summary(self) -> dict[str, dict[str, Any]]:
        """The numbers of `HEADLINES`, each {"value", "low", "high", "n"}, or None with a reason."""
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
        name = slug(concepts.target)
        names = chain([name], (f"{name}-{number}" for number in count(2)))
        folders.append(next(folder for each in names if (folder := Path(TARGETS) / each) not in folders))
    return folders


def report_target(target: MeasuredTarget, folder: Path, erasure: Erasure, settings: ConceptSetSettings) -> Report:
    """Write the report of one target into a folder."""
    head = {"target": target.concepts.target, "kind": target.concepts.kind}
    report = Report(folder, {**head, **_body([target], erasure, settings), **target.parts})
    overview = "../../report.html" if len(erasure.sets) > 1 else None
    return report.write(render_target(report.data, target, erasure, overview))


def report_run(
    targets: Sequence[MeasuredTarget],
    reports: Sequence[Report],
    erasure: Erasure,
    settings: ConceptSetSettings,
    failed: Mapping[str, int],
) -> Report:
    """Finish the report of a run: that of its only target, or one on all of them together.

    Where there is no judge, a contact sheet of all images is written too. `failed` are images by side.
    """
    if len(reports) == 1:
        (report,) = reports
    else:
        own = [report.data for report in reports]
        entries = [{name: data[name] for name in ("target", "kind", "summary", "verdict")} for data in own]
        for entry, each in zip(entries, reports, strict=True):
            entry["report"] = each.path_html.relative_to(erasure.folder).as_posix()
        seconds = {name: round(sum(data["seconds"][name] for data in own), 2) for name in ("draw", "score")}
        data = {
            "targets": entries,
            **_body(targets, erasure, settings),
            "failed": dict(failed),
            "seconds": {"load": own[0]["seconds"]["load"], **seconds},
        }
        report = Report(erasure.folder, data).write(render_targets(data, targets, own, erasure))
    if targets[0].judge is None:
        rows = [
            (f"{TITLES[name]}: {text}", (*before, *after))
            for t in targets
            for (name, text), before, after in zip(t.names, t.before, t.after, strict=True)
        ]
        write_sheet(erasure.folder, rows)
    return report.keep_for(targets[0].judge)


def _body(targets: Sequence[MeasuredTarget], erasure: Erasure, settings: ConceptSetSettings) -> dict[str, Any]:
    """The numbers of all targets together, and what they say."""
    info, several = erasure.info, len(targets) > 1
    groups = pool([target.groups for target in targets])
    compared = {name: compare(group.recognitions) for name, group in groups.items()}
    verdict = make_verdict([target.groups for target in targets], erasure.config.model_dump(), erasure.folder)
    summary = {name: measure.as_json() for name, measure in summarise_groups(groups).items()}
    for measure in summary.values():
        if several and "reason" in measure:
            measure["reason"] = measure["reason"].replace("the concept set has no", "no concept set has")
    judge, scenes = targets[0].judge, erasure.config.scenes
    if judge and several:  # its calibration differs from target to target
        judge = {name: value for name, value in judge.items() if name != "calibration"}
    return {
        "model": info["model"],
        "revision": info["revision"],
        "summary": summary,
        "verdict": verdict.text,
        "points": [dict(vars(point)) for point in verdict.points],
        "comparisons": {name: c and c.as_json() for name, c in compared.items()} if judge else None,
        "leaks": [change.as_json() for change in verdict.leaks],
        "broken": [change.as_json() for change in verdict.broken],
        "judge": judge,
        "settings": {**settings.as_json(erasure.sampling), **({"scenes": list(scenes)} if scenes else {})},
    }


def report_prompt_set(
    prompt_set: PromptSet,
    concepts: ConceptSet,
    measured: tuple[Mapping[str, ScoredGroup], Images, Mapping[str, Any]],
    erasure: Erasure,
    settings: PromptSetSettings,
    seeds: Mapping[str, Sequence[int]],
) -> PromptReport:
    """Write the report of a prompt set from what `measure_prompt_set` returns.

    `concepts` is the concept set of the run that was measured; `seeds` are those of the images of each text.
    """
    scored, images, parts = measured
    groups: dict[str, Any] = {}
    compared = {}
    for group in prompt_set.groups:
        own = scored[group.name].as_json()
        for prompt in own["prompts"]:
            prompt["seeds"] = list(seeds[prompt["text"]])
        recognitions = [p.recognition for p in scored[group.name].prompts if p.recognition is not None]
        found = compared[group.name] = compare(recognitions)
        head = {"title": group.title, "of": len({p.text for p in group.prompts})}
        groups[group.name] = {**head, **own, "comparison": found and found.as_json()}
    data = {
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
        "numbers": [_number(n, scored[n.group], compared[n.group]) for n in prompt_set.numbers],
        "unmeasured": dict(prompt_set.unmeasured),
        "settings": settings.as_json(erasure.sampling),
        "groups": groups,
        **parts,
    }
    folder = erasure.folder / PROMPTS / prompt_set.name
    report = PromptReport(folder / slug(concepts.target) if len(erasure.sets) > 1 else folder, data)
    judges = data["judges"]
    return report.write(render_prompt_set(data, images, erasure)).keep_for(judges[0] if judges else None)


def _number(number: Number, group: ScoredGroup, comparison: RateComparison | None) -> dict[str, Any]:
    better = "lower" if group.group.erasing and not number.complement else "higher"
    head = {"name": number.name, "group": number.group, "better": better}
    if comparison is None:
        reasons = {p.left_out for p in group.prompts if p.left_out}
        many = f"none of its {len(group.prompts)} prompts can be scored"
        return {**head, "reason": reasons.pop() if len(reasons) == 1 else many if reasons else NO_JUDGE}
    return {**head, **(comparison.complement if number.complement else comparison).as_json()}
