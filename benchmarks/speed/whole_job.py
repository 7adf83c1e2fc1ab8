"""What `crce erase cat` costs, and whether it finds what a long job finds: `python benchmarks/speed/whole_job.py`.

The long job is that of the committed results of ESD with corefs and retains: 250 steps with five corefs and five
retains each, and images of 20 steps with the model's own scheduler. The short one is what a user gets today, with
settings that were chosen on other targets (--choose). `within` says whether every figure lies in the interval of the
long one's: that of Jeffreys without a design effect, which is narrower than in reports.

Operations are those of `torch.utils.flop_counter`, for the first run on a machine, with empty caches. Seconds are CPU
seconds of one thread, imports included. Writes whole_job.json beside this file; rows that are there already are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from scipy.stats import beta
from torch.utils.flop_counter import FlopCounterMode

from crce.backbones import load_backbone
from crce.backbones.defaults import defaults_of
from crce.concepts import find_concepts
from crce.evaluate import evaluate
from crce.evaluate.observe import concept_set_questions
from crce.evaluate.prompt_sets import concept_set
from crce.evaluate.settings import ConceptSetSettings
from crce.files import write_json
from crce.judges import load_judge
from crce.sampling import draw
from crce.training import Erasure, Trainer, erase, load_config


OUT = Path(__file__).with_suffix(".json")
RESULTS = Path(__file__).parents[1] / "erasure"
LONG = (RESULTS / "foundation.json", RESULTS / "results/kinds/results.json")
CHOICE = ("dog", "car", "apple")
TARGETS = ("cat", "airplane", "bird", "ship", "horse", "frog", "santa claus", "ghost", "robot", "snowman")
LONG_IMAGES = 4  # of a prompt
FEW = 8  # images of one prompt, as in a report
GROUPS = {"erased": "target", "coref_erased": "coref_held_out", "kept": "retain_held_out"}
FIRST_STEP = """
import sys, time
from crce.cli.main import main
from crce.training import run
step = run.Trainer.step
def first(trainer):
    step(trainer)
    print("seconds", time.process_time())
    sys.stdout.flush()
    raise SystemExit
run.Trainer.step = first
main(["erase", "cat", "--no-eval", "--out", sys.argv[1]])
"""


def long_job(concept: str) -> dict[str, dict[str, float]]:
    """The figures of the long job with their intervals: {"kept": {"value", "low", "high"}, ...}."""
    rows = [row for file in LONG for row in json.loads(file.read_text())["rows"]]
    row = next(r for r in rows if (r["method"], r["crce"], r["concept"], r["seed"]) == ("esd", True, concept, 0))
    figures = {}
    for name, group in GROUPS.items():
        value, n = row[name], row["groups"][group]["n"]
        low, high = (float(beta.ppf(p, value * n + 0.5, (1 - value) * n + 0.5)) for p in (0.025, 0.975))
        figures[name] = {"value": value, "low": round(min(low, value), 4), "high": round(max(high, value), 4)}
    return figures


def held_out(run: Erasure) -> Erasure:
    """The run, to be measured by its target and the phrases that it was not trained on: no figure is about others."""
    concept_set.UNRELATED_PROMPTS = 0
    sets = (replace(c, corefs=c.held_out_corefs, retains=c.held_out_retains) for c in run.sets)
    return replace(run, sets=tuple(sets))


def short_job(concept: str, backbone: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """The figures of the short job, of images from the seeds that the long one's have."""
    with tempfile.TemporaryDirectory() as folder:
        config = load_config("demo", settings)
        run = erase(find_concepts(concept), config=config, backbone=backbone, out=Path(folder) / "run")
        report = evaluate(held_out(run), backbone=backbone, images_per_prompt=LONG_IMAGES)
    return {name: report.summary[name]["value"] for name in GROUPS}


def count(backbone: Any, concept: str = "cat") -> dict[str, float]:
    """Teraflops of the training and of the report of `crce erase`, from those of one step and of a few images.

    The pools of both sides are filled first: trajectory i of n is sampled up to i / n of the grid. After a round all
    of them move on by a step.
    """
    config, sets = load_config(kind=find_concepts(concept).kind), [find_concepts(concept)]
    one = Trainer(backbone, sets, config.model_copy(update={"pool": 1}))
    first, second = flops(one.step), flops(one.step)  # with one trajectory a side the second step moves both on
    one.close()
    filled = sum(config.ddim_steps * i // config.pool for i in range(config.pool))
    moved = filled + (config.steps - 1) // config.pool * config.pool
    run = Erasure(Path(), tuple(sets), config, {"model": "demo", "sampling": defaults_of(backbone).as_json()})
    (questions,), plan, _ = concept_set_questions(run, ConceptSetSettings())
    images = 2 * sum(len(plan.own_seeds.get(prompt.text, plan.seeds)) for prompt in questions.prompts)
    few: list[Any] = []
    sampling: dict[str, Any] = {"steps": plan.steps, "guidance": plan.guidance, "solver": plan.solver}
    drawn = flops(lambda: few.extend(draw(backbone.pipe, [concept] * FEW, list(range(FEW)), **sampling)))
    judged = flops(lambda: load_judge().probs(few))
    return {
        "training": round((config.steps * first + moved * (second - first)) / 1e12, 3),
        "report": round(images / FEW * (drawn + judged) / 1e12, 3),
    }


def flops(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def first_step() -> float:
    """CPU seconds from the start of `crce erase cat` to the end of its first training step."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", FIRST_STEP, f"{folder}/run"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    return round(float(done.stdout.split("seconds")[-1]), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choose", nargs="*", metavar="NAME=VALUE", help="measure the targets of the choice instead")
    parser.add_argument("--targets", nargs="+")
    args = parser.parse_args()
    backbone = load_backbone("demo", device="cpu")
    data: dict[str, Any] = json.loads(OUT.read_text()) if OUT.exists() else {}
    settings = dict(pair.split("=") for pair in args.choose or ())
    place = "agreement" if args.choose is None else "choice"
    rows = data.setdefault(place, [])
    for concept in args.targets or (TARGETS if args.choose is None else CHOICE):
        if any((row["concept"], row.get("settings", {})) == (concept, settings) for row in rows):
            continue
        long, short = long_job(concept), short_job(concept, backbone, settings)
        within = all(short[n] is not None and long[n]["low"] <= short[n] <= long[n]["high"] for n in GROUPS)
        rows.append({"concept": concept, "long": long, "short": short, "within": within})
        if settings:
            rows[-1]["settings"] = settings
        print(rows[-1], flush=True)
        differences = [abs(row["long"][n]["value"] - row["short"][n]) for row in rows for n in GROUPS]
        if args.choose is None:
            data["mean_difference"] = round(sum(differences) / len(differences), 4)
        write_json(OUT, data)
    if args.choose is None and "tflop" not in data:
        parts = count(backbone)
        data |= {"tflop": round(sum(parts.values()), 2), "parts": parts, "first_step_seconds": first_step()}
        write_json(OUT, data)


if __name__ == "__main__":
    main()
