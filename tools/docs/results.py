"""Write docs/results.md and its charts from what the benchmarks left under benchmarks/erasure.

    python tools/docs/results.py

The tests compare what stands there with what this makes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from charts import heat_map, pairs_chart

from crce.bench.results import compare, markdown, means
from crce.concepts import KINDS, find_concepts
from crce.files import write_text
from crce.training.run_folder import HEADLINES


ROOT = Path(__file__).parents[2]
ERASURE = ROOT / "benchmarks" / "erasure"
DOCUMENT = ROOT / "docs" / "results.md"
PUBLISHED = (5, 3)  # M and N
CHART = ROOT / "docs" / "results_methods.svg"
FLOW_CHART = ROOT / "docs" / "results_flow.svg"
HEAT_MAP = ERASURE / "results" / "m_by_n" / "heatmap.svg"

HEAD = """# Results on the bundled model

Made by `python tools/docs/results.py` from the JSON files under `benchmarks/erasure`; the command above each
table measures it again.

This is a small world: one model of 64-pixel icons, a classifier as its judge, and a handful of targets. It compares
methods and settings on an equal footing; it does not predict what they do to Stable Diffusion. [The same grid for
Stable Diffusion 1.4](#on-stable-diffusion-14) is one command and a GPU away.

**erased** is how much of the target is gone; the next columns, how much is gone of its names, and how much is kept
of its neighbours, that no method was given, and of unrelated things; **H** is the harmonic mean of the four, and H
without unrelated that of the first three, the H of earlier versions. All are relative to the base model's images of
the same phrases; its own row would read 0, 0, 1, 1 and H 0. Intervals are 95 % intervals over the
means of targets; where all agree there is none. Differences are tested by flipping the signs of targets, with
Holm's correction; where no outcome of so few targets could be significant at 5 %, that is said. See
[bench.md](bench.md), [evaluate.md](evaluate.md) and [sure.md](sure.md).
"""

OUTDATED = """Measured as of commit 3dc7db0, with the text encoder in full precision (the package holds it in half
precision), so that a cell that is measured again has other numbers: {parts}.
{outdated}
"""

METHODS_TEXT = """{targets} targets: objects, characters and styles; the model knows no persons.
[Every run](../benchmarks/erasure/methods.json) by `python benchmarks/erasure/methods.py`. Plain Concept Ablation and
EAP have settings of their own, of 60 steps; the recipes are for CRCE.{old}
"""

FEWER = """
The rows of an earlier version are of {} objects alone, so that they can't be compared with the others."""

FLOW = """## On a flow transformer

The other bundled model, `--model demo-flow`, is FLUX's architecture with two double-stream and six single-stream
blocks, so that text and image share the projections of most of its layers. ESD is reported to make models collapse
where such layers are trained. Here it trains four sets: those that only the text passes (`text`, the default);
the text's keys and values in the double-stream blocks (`kv`); these and the keys and values of the single-stream
blocks, which text and image share (`shared`); and the same with the change kept to the tokens of the text
(`masked`). Closed forms edit the layers that read the text encoder's states, and with `--deep` the second block too
(`deep`, without guidance of states). `text surgery` is `text` with
`--gradient-surgery`. {targets} targets, [every run](../benchmarks/erasure/flow.json) by
`python benchmarks/erasure/flow.py`.

![What is kept of unrelated things by ESD on each set of layers]({chart})

{finding} Of unrelated things plain ESD keeps {plain}; with CRCE {crce}.{missing}

Closed forms miss held-out corefs here more often than ESD does: a name whose state is far from those of all corefs,
such as droid for robot, one linear layer hardly reaches. Negative guidance of the states (`--state-guidance`), chosen
on other targets, reaches most of the others. Solved in the second block too, they reach that name as well: behind the
first block the network has brought droid and robot together. Gradient surgery changes nothing that these targets show.
GEM misses held-out corefs too, and CRCE doesn't help it: its retains hold, and its target and corefs share the steps.
"""
AT_ITS_BEST = " at its best"
TUNED_PAIRS = (("esd at 60 steps", "esd+crce"),)  # plain ESD where it is best, beside the recipe with CRCE
COLLAPSE = 0.5  # of unrelated things kept, below which a model is called collapsed

TAIL = """## On Stable Diffusion 1.4

[benchmarks/sd14/corefconcept.yaml](../benchmarks/sd14/corefconcept.yaml) is the comparison above on Stable
Diffusion 1.4 with the {targets} published sets of CorefConcept, judged by CLIP: {cells} cells. It needs those
sets, a GPU and the weights, and has not been run for this page.

<!-- not run: needs the configs and the weights of Stable Diffusion 1.4 -->
```sh
crce plan --model CompVis/stable-diffusion-v1-4 --vram 12
crce bench benchmarks/sd14/corefconcept.yaml
```

By `python benchmarks/sd14/cost.py` a whole run takes {petaflop:,} petaflop in the denoiser, which is
{hours_at_100_teraflops} hours at a sustained 100 teraflop/s. Passes through the denoiser for one target:

| method | training | of them with a backward pass | generating images |
|---|---|---|---|
{table}
"""


@dataclass(frozen=True)
class Section:
    """A grid of benchmarks/erasure and what it asks.

    Attributes:
        grid: its name.
        title: of the section.
        asks: the question, in a sentence or two.
        by_concept: whether H is told for each target too.
    """

    grid: str
    title: str
    asks: str
    by_concept: bool = False

    @property
    def folder(self) -> Path:
        return ERASURE / "results" / self.grid


SECTIONS = (
    Section(
        "gem",
        "GEM and gradient surgery on the U-Net",
        "What was made for flow transformers, beside ESD on the other bundled model. GEM has its authors' settings.",
    ),
    Section(
        "everyday",
        "Everyday words and state guidance in closed forms",
        "A closed form with corefs and retains loses things that nobody named. 300 words of the model's own "
        "tokenizer beside the retains hold them, and negative guidance of the states reaches corefs that nobody "
        "named. Both weights were chosen on other targets; the unrelated things that are measured are named only "
        "where such a word happens to name one.",
    ),
    Section(
        "speed_scale",
        "SPEED's retain scale",
        "SPEED with CRCE sums over its rows where its authors divide by their number, which would be a scale of 14 to "
        "170 with the atlas's sets.",
    ),
    Section(
        "m_by_n",
        "How many corefs and retains",
        "Published is M = 5 corefs and N = 3 retains. Each cell takes the first M and N phrases of a set, all of them "
        "in every step.",
    ),
    Section(
        "certainty",
        "The value of certainties",
        "Each phrase weighted by its certainty, all phrases alike, and with the certainties shuffled within each "
        "list.",
    ),
    Section(
        "mistaken",
        "Certainties where lists are wrong",
        "A fifth and two fifths of the corefs in the places of retains, and these in theirs, with low certainty: each "
        "phrase weighted by its certainty, and all alike.",
    ),
    Section(
        "lists",
        "Sources of the lists",
        "The corefs and retains of the atlas, of WordNet, the nearest words by embedding distance, and those of a "
        "language model of 270 million parameters, which finds next to none "
        "([counts](../benchmarks/erasure/suggested)). All are measured on the atlas's held-out phrases.",
    ),
    Section(
        "entangled",
        "Entangled targets",
        "Each target erased while its family stays: wolf, dog and fox; taxi, car and bus; lion, tiger and leopard.",
        True,
    ),
    Section(
        "several",
        "Several targets",
        "1, 5, 10 and 20 targets in one erasure, and one after the other. SPEED with CRCE erases less the more "
        "targets there are: it edits nothing that retains use, and each target brings its own.",
        True,
    ),
    Section(
        "robustness",
        "Attacks",
        "How often the concept is generated again under each attack, for the prompt of the target alone. `hardened` "
        "is --harden 6, chosen on other targets.",
    ),
)


@cache
def methods_data(file: str = "methods.json") -> dict[str, Any]:
    """methods.json, or flow.json, in the form of a benchmark's results."""
    data = json.loads((ERASURE / file).read_text(encoding="utf-8"))
    scopes = list(dict.fromkeys(row.get("scope") for row in data["rows"]))
    named = [row | {"row": _name(row)} for row in data["rows"]]
    named.sort(key=lambda row: (_place(row), scopes.index(row.get("scope")), row["crce"]))
    table = means(named)
    pairs = [(name, crce) for name in table if (crce := with_crce(name)) in table]
    pairs += [pair for pair in TUNED_PAIRS if set(pair) <= set(table)]
    return {"means": table, "comparisons": compare(named, pairs), "failed": [], "rows": named} | {
        name: value for name, value in data.items() if name == "outdated"
    }


def with_crce(name: str) -> str:
    """The name of the row with CRCE, by that of the plain one: "esd text" has "esd+crce text"."""
    method, space, scope = name.partition(" ")
    return f"{method}+crce{space}{scope}"


def _name(row: Mapping[str, Any]) -> str:
    if "row" in row:  # a plain one whose settings are not those of the recipe counts as the method's
        return row["row"].removesuffix(AT_ITS_BEST)
    return row["method"] + ("+crce" if row["crce"] else "") + (f" {row['scope']}" if "scope" in row else "")


def _place(row: Mapping[str, Any]) -> int:
    from crce.methods import METHODS

    return [*METHODS].index(row["method"])


def by_concept(rows: Sequence[Mapping[str, Any]]) -> str:
    """H of every target under each row of the table, as the mean over seeds."""
    names = list(dict.fromkeys(row["row"] for row in rows))
    values: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        of_row = values.setdefault(row["concept"], {}).setdefault(row["row"], [])
        of_row += [(row["H"], row["H3"])] if row["H3"] is not None else []
    number = "H" if all(row["H"] is not None for row in rows if row["H3"] is not None) else "H3"
    lines = [f"| {HEADLINES[number]} | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for concept, found in values.items():
        own = [[h if number == "H" else h3 for h, h3 in found.get(name, [])] for name in names]
        shown = [f"{sum(v) / len(v):.2f}" if v else "–" for v in own]
        lines.append(f"| {concept} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def closeness(path: Path) -> Iterator[str]:
    """What was kept by distance from the target, as closeness.py measured it."""
    data = json.loads(path.read_text(encoding="utf-8"))
    edges = data["edges"]
    heads = [f"below {edges[0]:.2f}", *(f"to {edge:.2f}" for edge in edges[1:]), f"above {edges[-1]:.2f}"]
    yield (
        "How close can a retain be? What is kept of all phrases by their distance in meaning from the target (in "
        "brackets how many), trained retains apart from what no method was given, by "
        "`python benchmarks/erasure/closeness.py`:\n"
    )
    lines = [f"| kept at distance | phrases | {' | '.join(heads)} |", "|---" * (len(heads) + 2) + "|"]
    for row in data["rows"]:
        shown = ["–" if kept is None else f"{kept:.2f} ({n})" for kept, n in zip(row["kept"], row["n"], strict=True)]
        lines.append(f"| {row['row']} | {row['phrases']} | {' | '.join(shown)} |")
    yield "\n".join(lines) + "\n"
    kept = {(row["row"], row["phrases"] == "given to the method"): row["kept"] for row in data["rows"]}
    names = list(dict.fromkeys(row["row"].partition("+")[0] for row in data["rows"]))
    given, unseen, far = (
        ", ".join(f"{name} {kept[name, side][i]:.2f} to {kept[f'{name}+crce', side][i]:.2f}" for name in names)
        for side, i in ((True, 0), (False, 0), (False, -1))
    )
    yield (
        "As close as they come, if they are named. From plain to + CRCE, the nearest that were given are kept: "
        f"{given}; the nearest that were not: {unseen}; and the farthest: {far}, which H3 does not see.\n"
    )


def _sweet_spot(rows: Sequence[Mapping[str, Any]]) -> str:
    """Where the published M and N stand among all that were measured."""
    values: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        values.setdefault((row["corefs"], row["retains"]), []).append(row["H"])
    ranked = sorted(((sum(v) / len(v), pair) for pair, v in values.items()), reverse=True)
    place = next(i for i, (_, pair) in enumerate(ranked, 1) if pair == PUBLISHED)
    (best, (m, n)), (published, _) = ranked[0], ranked[place - 1]
    none = [sum(values[pair]) / len(values[pair]) for pair in ((PUBLISHED[0], 0), (0, PUBLISHED[1]))]
    return (
        f"M = 5, N = 3 is number {place} of {len(ranked)} with H {published:.2f}; the best, M = {m}, N = {n}, has "
        f"{best:.2f}. Five corefs without retains have {none[0]:.2f}, three retains without corefs {none[1]:.2f}.\n"
    )


def both_ways(file: str, number: str) -> dict[str, tuple[float, float]]:
    """A number of every row that was measured plain and with CRCE."""
    table = methods_data(file)["means"]
    pairs = {name: (table[name], table[with_crce(name)]) for name in table if with_crce(name) in table}
    return {name: (plain[number]["value"], crce[number]["value"]) for name, (plain, crce) in pairs.items()}


def chart() -> str:
    """H of every method, plain and with CRCE."""
    return pairs_chart("H, mean over targets and seeds", both_ways("methods.json", "H"), 0.4, 1.0)


def flow_unrelated() -> dict[str, tuple[float, float]]:
    """What ESD keeps of unrelated things on each set of layers of the flow transformer, plain and with CRCE."""
    pairs = both_ways("flow.json", "unrelated").items()
    return {name.removeprefix("esd "): pair for name, pair in pairs if name.startswith("esd ")}


def flow_facts() -> dict[str, Any]:
    """What the text about the flow transformer says of its table."""
    kept, rows = flow_unrelated(), methods_data("flow.json")["rows"]
    counts = {name: len({r["concept"] for r in rows if r["row"] == name}) for name in {r["row"] for r in rows}}
    sides = (("esd", 0), ("esd+crce", 1))
    plain, crce = (
        ", ".join(f"{both[i]:.2f} (`{scope}`, {counts[f'{row} {scope}']} targets)" for scope, both in kept.items())
        for row, i in sides
    )
    fallen = [scope for scope, both in kept.items() if both[0] < COLLAPSE]
    finding = f"It collapses on {', '.join(fallen)}." if fallen else "Nothing collapses here."
    wanted = json.loads((ERASURE / "flow.json").read_text(encoding="utf-8"))["configs"]
    left = ", ".join(f"`{name}`" for name in wanted if name not in counts)
    targets = len({row["concept"] for row in rows})
    facts = {"targets": targets, "chart": FLOW_CHART.name, "finding": finding, "plain": plain, "crce": crce}
    return facts | {"missing": f" Not measured yet: {left}." if left else ""}


def attack_finding(data: Mapping[str, Any]) -> str:
    """How often the target comes back over all attacks, and for which of them hardening leaves half of it or less."""
    back = {
        name: {attack: sides["after"]["value"] for attack, sides in row["attacks"].items()}
        for name, row in data["means"].items()
    }
    mean = {name: sum(values.values()) / len(values) for name, values in back.items()}
    hardened, against = back["esd hardened+crce"], {}
    for base in ("esd", "esd+crce"):
        halved = [name for name, value in hardened.items() if value <= back[base][name] / 2]
        against[base] = ", ".join(halved) or "no attack"
    text = ", ".join(f"{value:.2f} ({name})" for name, value in mean.items())
    attacked, crce = data["means"]["esd hardened+crce"], data["means"]["esd+crce"]
    cost = attacked["forwards"]["value"] / crce["forwards"]["value"]
    kept = " against ".join(f"{row['unrelated']['value']:.2f}" for row in (attacked, crce))
    return (
        f"Over all attacks the target comes back in {text} of the images. Hardening leaves at most half of what ESD + "
        f"CRCE does for {against['esd+crce']}, and of what plain ESD does, which keeps fewer neighbours, for "
        f"{against['esd']}; it keeps {kept} of what is unrelated, and its training takes {cost:.1f} times the forward "
        "passes. In short: [hardening.json](../benchmarks/erasure/hardening.json).\n"
    )


def by_kind(rows: Sequence[Mapping[str, Any]]) -> str:
    """H of every row of the table for each kind of target, with the number of targets."""
    kinds = {name: find_concepts(name).kind for name in dict.fromkeys(row["concept"] for row in rows)}
    heads = [kind for kind in KINDS if kind in kinds.values()]
    lines = [f"| H | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in dict.fromkeys(row["row"] for row in rows):
        shown = []
        for kind in heads:
            own = [row for row in rows if row["row"] == name and kinds[row["concept"]] == kind]
            mean = means(own)[name]["H"] if own else {"value": None}
            targets = len({row["concept"] for row in own if row["H"] is not None})
            shown.append("–" if mean["value"] is None else f"{mean['value']:.2f} ({targets})")
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def outdated() -> str:
    """What was measured by an earlier version; nothing where all is measured anew."""
    old = dict.fromkeys(f"`{row['method']}` of every method" for row in methods_data()["rows"] if "run" not in row)
    for section in SECTIONS:
        path = section.folder / "results.json"
        if path.exists() and "outdated" in json.loads(path.read_text(encoding="utf-8")):
            old[f"[{section.title}](#{section.title.lower().replace(' ', '-')})"] = None
    return OUTDATED.format(parts=", ".join(old), outdated=methods_data()["outdated"]) if old else ""


def document() -> str:
    """The text of docs/results.md."""
    return "\n".join(_parts())


def _parts() -> Iterator[str]:
    yield HEAD
    if old := outdated():
        yield old
    data = methods_data()
    yield "## Every method, plain and with CRCE\n"
    few = len({row["concept"] for row in data["rows"] if "run" not in row})
    old = FEWER.format(few) if few else ""
    yield METHODS_TEXT.format(targets=len({row["concept"] for row in data["rows"]}), old=old)
    yield f"![H of every method, plain and with corefs and retains]({CHART.name})\n"
    yield markdown(data, timed=False)
    yield "By kind of target (in brackets how many of them H could be measured of):\n"
    yield by_kind(data["rows"])
    flow = methods_data("flow.json")
    yield FLOW.format(**flow_facts())
    yield markdown(flow, timed=False)
    for section in SECTIONS:
        path = section.folder / "results.json"
        if not path.exists():
            continue
        data = json.loads(path.read_text(encoding="utf-8"))
        yield f"## {section.title}\n"
        yield f"{section.asks}\n"
        out = section.folder.relative_to(ROOT).as_posix()
        attacks = section.grid == "robustness"
        command = f"crce bench benchmarks/erasure/{section.grid}.yaml --out {out}"
        yield f"`{'python benchmarks/erasure/hardening.py' if attacks else command}`\n"
        if section.grid == "m_by_n":
            yield f"![H by number of corefs and retains](../{out}/{HEAT_MAP.name})\n"
            yield _sweet_spot(data["rows"])
        yield markdown(data, timed=False)
        if section.by_concept:
            yield by_concept(data["rows"])
        if attacks:
            yield attack_finding(data)
        if (path := section.folder / "closeness.json").exists():
            yield from closeness(path)
    yield _sd14()


def heat() -> str:
    """H over the numbers of corefs and retains."""
    data = json.loads(HEAT_MAP.with_name("results.json").read_text(encoding="utf-8"))
    return heat_map(next(iter(data["means"])).partition(" ")[0], data["means"])


def _sd14() -> str:
    cost = json.loads((ROOT / "benchmarks" / "sd14" / "cost.json").read_text(encoding="utf-8"))
    lines = [f"| {r['row']} | {r['training']:,} | {r['backward']:,} | {r['drawing']:,} |" for r in cost.pop("rows")]
    return TAIL.format(table="\n".join(lines), **cost)


def main() -> None:
    write_text(CHART, chart())
    write_text(HEAT_MAP, heat())
    unrelated = pairs_chart("kept, unrelated: mean over targets and seeds", flow_unrelated(), 0.0, 1.0)
    write_text(FLOW_CHART, unrelated)
    write_text(DOCUMENT, document())
    print(f"{DOCUMENT.relative_to(ROOT)} written")


if __name__ == "__main__":
    main()
