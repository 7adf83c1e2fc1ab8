"""H of erasures with the lists of the offline suggester and with those of the atlas.

    python benchmarks/suggest/lists.py

writes the suggester's lists to offline.yaml, runs lists.yaml and writes lists.json: H of each target by both, as
{target: {"atlas": H, "offline": H}}, the means and their difference. The suggester is `wordnet`, as `lexicon` would
copy the atlas. What the atlas holds out is left out of its lists, as in benchmarks/erasure/suggested.py. An
interrupted run continues; an erasure takes about a minute of a core. Targets are those of which the bundled
model draws a held-out coref: without one there is no H.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
from pathlib import Path

import yaml

from crce import __version__
from crce.bench import plan_grid, read_grid, run_bench
from crce.files import write_json, write_text
from crce.suggest import load_suggester


HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "lists.json")
    args = parser.parse_args()
    spec = importlib.util.spec_from_file_location("suggested", HERE.parent / "erasure/suggested.py")
    suggested = importlib.util.module_from_spec(spec)
    sys.modules["suggested"] = suggested  # where dataclasses look their types up
    spec.loader.exec_module(suggested)
    targets = yaml.safe_load((HERE / "lists.yaml").read_text(encoding="utf-8"))["concepts"]
    rows = [suggested.ask(target, lambda: load_suggester("wordnet")) for target in targets]
    made = {"suggester": "wordnet", "what": "Open English WordNet", "crce": __version__, "rows": rows}
    write_text(HERE / "offline.yaml", suggested.text_of(made).replace("suggested.py", "lists.py"))
    result = run_bench(plan_grid(read_grid(HERE / "lists.yaml")), out=Path("runs/bench/lists"))
    found: dict[str, dict[str, float]] = {}
    for row in result.data["rows"]:
        found.setdefault(row["concept"], {})["atlas" if row["lists"] == "own" else "offline"] = row["H"]
    means = {name: round(statistics.fmean(each[name] for each in found.values()), 4) for name in ("atlas", "offline")}
    write_json(args.out, {"targets": found, "means": means, "difference": round(means["offline"] - means["atlas"], 4)})
    print(means)


if __name__ == "__main__":
    main()
