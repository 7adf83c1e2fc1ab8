"""Every method, plain and with CRCE, on the bundled model, each with its own recipe.

    python benchmarks/erasure/methods.py

measures the grid methods.yaml as `crce bench` does, and writes its rows to methods.json beside it. With --methods or
--seeds it measures these alone, and the rows of the others stay. Measured cells are taken from the cache, so a run
that was stopped goes on where it was.
"""

from __future__ import annotations

import json
from pathlib import Path

from grid_part import read_part

from crce.files import write_json


def main() -> None:
    part = read_part(__doc__, Path(__file__).with_suffix(".yaml"))
    if part is None:
        return
    result = part.run()
    data = json.loads(part.out.read_text()) if part.out.exists() else {"rows": [], "configs": {}}
    measured = {(row["method"], row["seed"]) for row in result.data["rows"]}
    others = [row for row in data["rows"] if (row["method"], row["seed"]) not in measured]
    rows = sorted(
        [*others, *result.data["rows"]], key=lambda row: (part.methods.index(row["method"]), row["crce"], row["seed"])
    )
    made = {"models": result.data["models"], "evaluation": result.data["evaluation"]}
    write_json(part.out, data | {"rows": rows, "configs": data["configs"] | result.data["configs"]} | made)
    print(result.table)


if __name__ == "__main__":
    main()
