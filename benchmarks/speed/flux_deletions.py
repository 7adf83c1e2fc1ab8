"""What deletions cost on a model of FLUX.1's text side: the processor's seconds a concept and of a solve, and memory.

    python benchmarks/speed/flux_deletions.py

writes flux_deletions.json beside this file. The model is that of lazy_closed_form.py: the edited layers have true size
and random values, the text encoders true width and thin layers. Two calls with different numbers of concepts, each
with 5 corefs and 5 retains and without everyday words, tell the seconds of a concept from those of a solve, which does
not depend on how many there are; `seconds_2000`, of 2,000 concepts in one call, is computed from them, not measured.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from lazy_closed_form import COREFS, MODELS, RETAINS, concept_sets, write_model

from crce.backbones import load_backbone
from crce.backbones.text_side import text_side_parts
from crce.files import write_json
from crce.training import load_config
from crce.training.register import RegisterEvent, change_register
from crce.training.run_folder import peak_memory


COUNTS = (2, 10)


def main() -> None:
    with tempfile.TemporaryDirectory() as root:
        write_model(MODELS[0], Path(root) / "model")
        clock = time.process_time()
        backbone = load_backbone(str(Path(root) / "model"), device="cpu", parts=text_side_parts)
        loading, config = time.process_time() - clock, load_config(None, {"method": "uce", "everyday": 0.0})
        left, seconds, megabytes, folder = concept_sets(), [], [], Path(root) / "register"
        for count in COUNTS:
            sets, left = left[:count], left[count:]
            events = [RegisterEvent(action="delete", target=c.target, concepts=c) for c in sets]
            clock = time.process_time()
            change_register(folder, events, backbone, config)
            seconds.append(time.process_time() - clock)
            megabytes.append(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20)
            print(seconds, megabytes, flush=True)
        each = (seconds[1] - seconds[0]) / (COUNTS[1] - COUNTS[0])
        solve = seconds[0] - COUNTS[0] * each
        result = {
            "model": MODELS[0],
            "corefs_each": COREFS,
            "retains_each": RETAINS,
            "counts": COUNTS,
            "seconds": seconds,
            "seconds_loading": loading,
            "seconds_each": each,
            "seconds_solve": solve,
            "seconds_2000": solve + 2000 * each,
            "folder_mb": megabytes,
            "folder_mb_each": (megabytes[1] - megabytes[0]) / COUNTS[1],
            "peak_mb": peak_memory(backbone.device),
        }
    rounded = {name: round(value, 2) if isinstance(value, float) else value for name, value in result.items()}
    write_json(Path(__file__).with_suffix(".json"), rounded)
    print(rounded)


if __name__ == "__main__":
    main()
