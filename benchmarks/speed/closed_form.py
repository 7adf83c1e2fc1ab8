"""How long the closed forms take for one target and for fifty, plain and with corefs and retains.

    python benchmarks/speed/closed_form.py

writes closed_form.json beside this file: seconds of `erase` on the bundled model, which is loaded before, from the
concept sets to the saved adapter; and of these the seconds in which weights are computed.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

from crce.backbones import load_backbone
from crce.concepts import atlas
from crce.files import write_json
from crce.methods import METHODS
from crce.training import erase, load_config


TARGETS = (1, 50)


def main() -> None:
    backbone = load_backbone("demo", device="cpu", dtype="float32")
    sets = [concepts for concepts in atlas().values() if concepts.kind in ("object", "character")]
    erase_into(backbone, sets[:1], "uce", True)  # what is done once in a process is not counted
    rows = [
        {"method": method, "crce": crce, "targets": count, **erase_into(backbone, sets[:count], method, crce)}
        for count in TARGETS
        for method in METHODS
        if METHODS[method].solved
        for crce in (False, True)
    ]
    write_json(Path(__file__).with_suffix(".json"), {"rows": rows, "threads": torch.get_num_threads()})
    for row in rows:
        print(row)


def erase_into(backbone, sets, method: str, crce: bool) -> dict[str, float]:
    """Seconds of one erasure, which is thrown away."""
    config = load_config(None, {"method": method, "crce": crce})
    with tempfile.TemporaryDirectory() as folder:
        clock = time.perf_counter()
        run = erase(sets, config=config, backbone=backbone, out=Path(folder) / "run")
        seconds = time.perf_counter() - clock
    return {"seconds": round(seconds, 2), "seconds_solving": round(run.info["seconds"]["train"], 2)}


if __name__ == "__main__":
    main()
