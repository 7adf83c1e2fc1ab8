"""What `crce erase cat` costs, and whether it finds what longer work finds: `python benchmarks/speed/whole_job.py`.

agreement: runs of a closed form, measured as by default and with 20 steps of the model's own scheduler (the long
figures of benchmarks/demo/solver.json), on the same seeds. `within` says whether every figure lies in the interval of
the long one's, that of Jeffreys without a design effect, which is narrower than in reports; `worse` names those below
it. Steps and rate of the recipe are chosen by benchmarks/erasure/tuning.py.

Operations are those of `torch.utils.flop_counter`, for a first run on a machine; of the base model it has
the words that come with the package. Seconds are CPU seconds of one thread, imports included. Writes whole_job.json
beside this file; rows that are there already are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from scipy.stats import beta
from torch.utils.flop_counter import FlopCounterMode

from crce.backbones import load_backbone
from crce.backbones.defaults import defaults_of
from crce.concepts import find_concepts
from crce.evaluate import evaluate
from crce.evaluate.base_words import BaseWords
from crce.evaluate.observe import concept_set_questions
from crce.evaluate.prompt_sets import concept_set
from crce.evaluate.settings import ConceptSetSettings
from crce.files import write_json
from crce.judges import load_judge
from crce.sampling import ModelState, draw
from crce.training import Erasure, ErasureConfig, Trainer, erase, load_config


BENCHMARKS = Path(__file__).parents[1]
LONG_EVALUATION = BENCHMARKS / "demo/solver.json"
FEW = 8  # images of one prompt, as in a report
NUMBERS = {"erased": 1, "coref_erased": 5, "kept": 5}  # of prompts
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


def evaluated_long(concept: str) -> dict[str, Any]:
    """The figures of a run of UCE by 20 steps, two images of each prompt, as if all of them counted."""
    (row,) = (row for row in json.loads(LONG_EVALUATION.read_text())["rows"] if row["concept"] == concept)
    return {name: figure(row["long"][name], 2 * prompts) for name, prompts in NUMBERS.items()}


def figure(value: float, n: int) -> dict[str, float]:
    """A share of n images with the interval of Jeffreys."""
    low, high = (float(beta.ppf(p, value * n + 0.5, (1 - value) * n + 0.5)) for p in (0.025, 0.975))
    return {"value": value, "low": round(min(low, value), 4), "high": round(max(high, value), 4)}


def held_out(run: Erasure) -> Erasure:
    """The run, to be measured by its target and the phrases that it was not trained on: no figure is about others."""
    concept_set.UNRELATED_PROMPTS = 0
    sets = (replace(c, corefs=c.held_out_corefs, retains=c.held_out_retains) for c in run.sets)
    return replace(run, sets=tuple(sets))


def short(concept: str, config: ErasureConfig, backbone: Any, images: int) -> dict[str, Any]:
    """The figures of a run as it is measured by default, but for the number of images."""
    with tempfile.TemporaryDirectory() as folder:
        run = erase(find_concepts(concept), config=config, backbone=backbone, out=Path(folder) / "run")
        report = evaluate(held_out(run), backbone=backbone, images_per_prompt=images)
    return {name: report.summary[name]["value"] for name in NUMBERS}


def compared(concept: str, long: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """A row; a figure of phrases that the base model does not draw is None and compared with nothing."""
    known = [name for name in NUMBERS if own[name] is not None]
    worse = [name for name in known if own[name] < long[name]["low"]]
    within = not worse and all(own[name] <= long[name]["high"] for name in known)
    return {"concept": concept, "long": long, "short": own, "within": within, "worse": worse}


def mean_difference(rows: list[dict[str, Any]]) -> float:
    pairs = [(row["long"][name]["value"], row["short"][name]) for row in rows for name in NUMBERS]
    found = [abs(long - short) for long, short in pairs if short is not None]
    return round(sum(found) / len(found), 4)


def count(backbone: Any, concept: str = "cat") -> dict[str, float]:
    """Teraflops of the training and of the report of `crce erase`, from those of one step and of a few images.

    The pools of both sides are filled first: trajectory i of n is sampled up to i / n of the grid. After a round all
    of them move on by a step. Images are those of both models and those that say whether a prompt counts.
    """
    config, sets = load_config(kind=find_concepts(concept).kind), [find_concepts(concept)]
    two = Trainer(backbone, sets, config.model_copy(update={"pool": 2}))
    two.step()  # fills the pools
    step, moving = flops(two.step), flops(two.step)  # with two trajectories a side the third step moves all on
    two.close()
    filled = sum(1 + (config.ddim_steps - 2) * i // config.pool for i in range(config.pool))
    moved = filled + (config.steps - 1) // config.pool * config.pool
    info = {"model": "demo", "revision": backbone.revision, "sampling": defaults_of(backbone).as_json()}
    (questions,), plan, _ = concept_set_questions(Erasure(Path(), tuple(sets), config, info), ConceptSetSettings())
    base = ModelState("base", "demo", backbone.revision, "float32")
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, CRCE_BASE_WORDS=folder):
        plan = BaseWords([questions], plan, base).recall()
    images = sum(
        len(plan.keys(prompt.text, base, probing=True))
        + sum(len(plan.keys(prompt.text, state)) for state in (base, replace(base, side="erased")))
        for prompt in questions.prompts
    )
    few: list[Any] = []
    sampling: dict[str, Any] = {"steps": plan.steps, "guidance": plan.guidance, "solver": plan.solver}
    drawn = flops(lambda: few.extend(draw(backbone.pipe, [concept] * FEW, list(range(FEW)), **sampling)))
    judged = flops(lambda: load_judge().probs(few))
    return {
        "training": round((config.steps * step + moved * (moving - step) / 2) / 1e12, 3),
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


def beside() -> float:
    """How many times longer 40 steps take beside another run of two threads than alone."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    with tempfile.TemporaryDirectory() as folder:

        def begin(name: str, steps: int) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "crce", "erase", "cat", "--no-eval", "--steps", str(steps), "--out"]
            return subprocess.Popen([*command, f"{folder}/{name}"], env={**environment, "OMP_NUM_THREADS": "2"})

        def seconds(name: str) -> float:
            begin(name, 40).wait()
            return float(json.loads(Path(folder, name, "run.json").read_text())["seconds"]["train"])

        alone, other = seconds("alone"), begin("other", 100_000)
        time.sleep(60)  # until the average load tells of it
        both = seconds("beside")
        other.kill()
        other.wait()
    return round(both / alone, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--beside", action="store_true", help="measure beside_ratio alone, on a machine with nothing to do"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    backbone = load_backbone("demo", device="cpu")
    data: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    evaluated = tuple(row["concept"] for row in json.loads(LONG_EVALUATION.read_text())["rows"])
    if args.beside:
        write_json(args.out, data | {"beside_ratio": beside()})
        return
    if "tflop" not in data:
        parts = count(backbone)
        data |= {"tflop": round(sum(parts.values()), 2), "parts": parts, "first_step_seconds": first_step()}
    rows = data.setdefault("agreement", [])
    for concept in evaluated[len(rows) :]:
        row = compared(concept, evaluated_long(concept), short(concept, load_config("uce"), backbone, 2))
        print(row, flush=True)
        rows.append(row)
        data["agreement_difference"] = mean_difference(rows)
        write_json(args.out, data)


if __name__ == "__main__":
    main()
