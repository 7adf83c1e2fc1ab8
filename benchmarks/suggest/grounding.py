"""Does asking the model first make better concept sets? Grounding measured on the bundled model.

    python benchmarks/suggest/grounding.py

writes grounding.json beside this file, in two parts:

- `closeness`: for sets of the atlas, how well closeness tells corefs from retains (area under the ROC curve, 1 is
  perfect, 0.5 is chance), and beside every phrase the share of its pictures in which the judge sees the target. The
  curve in crce.suggest.grounding is the logistic fit to these, which is printed.
- `rows`: candidates of the suggester `wordnet` (no atlas) as they come, M corefs and N retains chosen from the same
  foremost ones with and without grounding, erased with the same recipe and seed, and evaluated on the held-out
  phrases of the atlas. These phrases are in neither training set. Grounding is not shown the judge's answers, since
  the same judge scores the erasure.

What is there already is kept, so a run that was stopped goes on where it was; delete the file to measure anew.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from crce.backbones import load_backbone
from crce.concepts import ConceptSet, Related, atlas
from crce.demo.embedding import load_embedder
from crce.evaluate import evaluate
from crce.evaluate.prompts import spread
from crce.files import write_json
from crce.judges import load_judge
from crce.sampling import ImageCache
from crce.suggest.candidates import SIDES, Candidate, Request
from crce.suggest.grounding import apply_grounding, ground, priority
from crce.suggest.mmr import select
from crce.suggest.phrases import clean, key
from crce.suggest.suggesters import load_suggester
from crce.training import erase, load_config


CONCEPTS = ("cat", "dog", "car", "airplane", "bird", "apple", "ship", "horse", "tree", "frog")
COMPARED = ("cat", "dog", "car", "airplane", "bird", "apple", "horse", "tiger", "ship", "frog", "rose", "santa claus")
M, N = 8, 8
POOL = 16  # candidates of each side that both ways choose from
PHRASES = 5  # of each list of the concept set; the atlas holds no more out
PER_SIDE = 8  # phrases of each side of an atlas set whose closeness is measured
NUMBERS = ("erased", "coref_erased", "kept", "H3")


# ---- closeness on the atlas ----------------------------------------------------------------------------------------


def compare(concept: str, backbone: Any) -> dict[str, Any]:
    """Closeness and judged pictures of phrases whose side is known."""
    concepts, started = atlas()[concept], time.perf_counter()
    sides = {"coref": spread(concepts.corefs, PER_SIDE), "retain": spread(concepts.retains, PER_SIDE)}
    texts = [r.text for related in sides.values() for r in related]
    grounded = ground(concept, texts, backbone, judge=load_judge())
    phrases = [
        {"text": r.text, "side": side, "closeness": grounded[r.text].closeness, "judged": grounded[r.text].judged}
        for side, related in sides.items()
        for r in related
    ]
    return {
        "concept": concept,
        "auc": auc(phrases),
        "seconds": round(time.perf_counter() - started, 1),
        "phrases": phrases,
    }


def auc(phrases: list[dict[str, Any]]) -> float:
    """Chance that a coref lies closer than a retain; ties count half."""
    corefs, retains = ([p["closeness"] for p in phrases if p["side"] == side] for side in SIDES)
    wins = sum((c > r) + 0.5 * (c == r) for c in corefs for r in retains)
    return round(wins / (len(corefs) * len(retains)), 4)


def fitted_curve(sets: list[dict[str, Any]]) -> dict[str, float]:
    """Least squares of 1 / (1 + exp((half - closeness) / width)) to the judged shares, over a grid."""
    pairs = [(p["closeness"], p["judged"]) for s in sets for p in s["phrases"] if p["judged"] is not None]
    if not pairs:
        return {}

    def error(half: float, width: float) -> float:
        return sum((1 / (1 + math.exp((half - x) / width)) - y) ** 2 for x, y in pairs)

    grid = [(half / 100, width / 100) for half in range(40, 96) for width in range(2, 16)]
    half, width = min(grid, key=lambda point: error(*point))
    return {"half_drawn": half, "width": width, "rms": round(math.sqrt(error(half, width) / len(pairs)), 4)}


# ---- erasure with and without grounding ----------------------------------------------------------------------------


def candidates_for(concepts: ConceptSet) -> list[Candidate]:
    """The foremost candidates of each side, without the phrases of the evaluation."""
    request = Request(concepts.target, concepts.kind, corefs=2 * POOL, retains=2 * POOL)
    held_out = {key(r.text) for r in concepts.held_out_corefs + concepts.held_out_retains}
    found, _ = clean(load_suggester("wordnet").propose(request), request)
    free = [c for c in found if key(c.text) not in held_out]
    return [c for side in SIDES for c in [c for c in free if c.side == side][:POOL]]


def chosen_set(concepts: ConceptSet, grounded: list[Candidate]) -> ConceptSet:
    """A concept set of M corefs and N retains, with the atlas's held-out phrases."""
    usable = [c for c in grounded if c.outcome != "dropped"]
    chosen, _ = select(usable, load_embedder(), corefs=M, retains=N, held_out=0, score=priority)
    picked: dict[str, list[Related]] = {side: [] for side in SIDES}
    for candidate in chosen:
        picked[candidate.side].append(Related(candidate.text, candidate.certainty, candidate.source))
    return replace(
        concepts,
        corefs=(*picked["coref"], *concepts.held_out_corefs),
        retains=(*picked["retain"], *concepts.held_out_retains),
    )


def measure(
    concepts: ConceptSet,
    candidates: list[Candidate],
    grounded: bool,
    args: argparse.Namespace,
    backbone: Any,
    cache: ImageCache,
) -> dict[str, Any]:
    """Erase with the chosen set and score it; the run itself is thrown away."""
    chosen = chosen_set(concepts, candidates)
    config = load_config("demo", {"seed": args.seed, "steps": args.steps})
    with tempfile.TemporaryDirectory() as folder:
        run = erase(chosen, config=config, backbone=backbone, out=Path(folder) / "run")
        report = evaluate(
            run,
            images_per_prompt=args.images,
            phrases_per_group=PHRASES,
            backbone=backbone,
            image_cache=cache,
            batch=32,
        )
    row: dict[str, Any] = {"concept": concepts.target, "grounded": grounded, "seed": args.seed}
    row |= {name: report.summary[name]["value"] for name in NUMBERS}
    row["steps"] = config.steps
    row["corefs"] = {r.text: r.certainty for r in chosen.train_corefs}
    row["retains"] = {r.text: r.certainty for r in chosen.train_retains}
    row["entangled"] = [c.text for c in candidates if c.outcome == "dropped"]
    row["seconds"] = run.info["seconds"]["train"]
    return row


def means(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Means over the concepts measured both ways; a number that could not be measured is left out and counted."""
    table: dict[str, dict[str, float]] = {}
    both = [{(r["concept"], r["seed"]) for r in rows if r["grounded"] is grounded} for grounded in (False, True)]
    for name, grounded in (("ungrounded", False), ("grounded", True)):
        part = [r for r in rows if r["grounded"] is grounded and (r["concept"], r["seed"]) in both[0] & both[1]]
        if not part:
            continue
        table[name] = {"rows": len(part)}
        for number in NUMBERS:
            values = [row[number] for row in part if row[number] is not None]
            table[name][number] = round(statistics.fmean(values), 4) if values else float("nan")
            table[name][f"{number}_unmeasured"] = len(part) - len(values)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", nargs="*", default=list(CONCEPTS), help="targets to erase; none: only closeness")
    parser.add_argument("--compared", nargs="*", default=list(COMPARED), help="atlas sets to measure closeness on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="optimizer steps; default: those of the recipe")
    parser.add_argument("--images", type=int, default=4, help="pictures per prompt")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    before = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    sets: list[dict[str, Any]] = before.get("closeness", {}).get("sets", [])
    rows: list[dict[str, Any]] = before.get("rows", [])
    backbone = load_backbone("demo", device="cpu")

    def save() -> None:
        closeness = {
            "mean_auc": round(statistics.fmean(s["auc"] for s in sets), 4) if sets else None,
            "pooled_auc": auc([p for s in sets for p in s["phrases"]]) if sets else None,
            "curve": fitted_curve(sets),
            "sets": sets,
        }
        result = {"rows": rows, "means": means(rows), "closeness": closeness, "corefs": M, "retains": N, "pool": POOL}
        result |= {
            "config": load_config("demo").model_dump(mode="json"),
            "images": args.images,
            "model": backbone.revision,
        }
        write_json(args.out, result | {"threads": torch.get_num_threads()})

    for concept in args.compared:
        if concept in {s["concept"] for s in sets}:
            continue
        sets.append(compare(concept, backbone))
        save()
        print(f"{concept:12} closeness tells corefs from retains: AUC {sets[-1]['auc']:.3f}", flush=True)
    if sets:
        print(json.dumps(fitted_curve(sets)))

    done = {(row["concept"], row["grounded"], row["seed"]) for row in rows}
    for concept in args.concepts:
        concepts = atlas()[concept]
        cache = ImageCache()
        missing = [grounded for grounded in (False, True) if (concept, grounded, args.seed) not in done]
        if not missing:
            continue
        candidates = candidates_for(concepts)
        for grounded in missing:
            chosen = apply_grounding(candidates, {})
            if grounded:
                numbers = ground(concept, [c.text for c in candidates], backbone, seed=args.seed)
                chosen = apply_grounding(candidates, numbers)
            rows.append(measure(concepts, chosen, grounded, args, backbone, cache))
            save()
            shown = " ".join(f"{name} {rows[-1][name]}" for name in (*NUMBERS, "seconds"))
            print(f"{concept:12} grounded={grounded!s:5} {shown}", flush=True)
    print(json.dumps(means(rows), indent=2))


if __name__ == "__main__":
    main()
