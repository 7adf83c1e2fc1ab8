"""Fetch the open emoji artwork from npm and rasterise it: `python tools/demo/artwork.py`.

Writes build/demo/artwork.npz. Icons of concepts carry the concept's index, other icons of the training sets carry -1
(they train the autoencoder).
"""

from __future__ import annotations

import io
import json
import random
import subprocess
import tarfile

import numpy as np
import resvg_py
from common import WORK, world
from PIL import Image


SIZE = 128
OTHERS_PER_SET = 300


def fetch(name: str) -> dict:
    folder = WORK / "npm"
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(folder.glob(f"iconify-json-{name}-[0-9]*.tgz"))
    if not found:
        subprocess.run(["npm", "pack", "-s", f"@iconify-json/{name}"], cwd=folder, check=True)
        found = sorted(folder.glob(f"iconify-json-{name}-[0-9]*.tgz"))
    with tarfile.open(found[-1]) as tar:
        return json.load(tar.extractfile("package/icons.json"))


def render(pack: dict, name: str) -> np.ndarray | None:
    icon = pack["icons"].get(name)
    if icon is None:
        alias = pack.get("aliases", {}).get(name)
        if alias is None or set(alias) - {"parent"}:
            return None
        return render(pack, alias["parent"])
    width, height = (icon.get(k, pack.get(k, 16)) for k in ("width", "height"))
    left, top = (icon.get(k, pack.get(k, 0)) for k in ("left", "top"))
    side = max(width, height)
    box = f"{left - (side - width) / 2} {top - (side - height) / 2} {side} {side}"
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box}" width="{SIZE}" height="{SIZE}">{icon["body"]}</svg>'
    )
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg))
    picture = Image.open(io.BytesIO(png)).convert("RGBA").resize((SIZE, SIZE))
    return np.asarray(picture).transpose(2, 0, 1)


def main() -> None:
    w = world()
    training = [style["set"] for style in w["styles"].values()]
    rows: list[tuple[np.ndarray, int, str, str]] = []
    for pack_name in training + w["judge_training_sets"] + w["judge_test_sets"]:
        pack = fetch(pack_name)
        used = set()
        for index, concept in enumerate(w["concepts"]):
            names = concept["icons"] + [n.replace("-", "") for n in concept["icons"]] + concept.get("alt", [])
            for icon in dict.fromkeys(names):
                picture = render(pack, icon)
                if picture is not None:
                    rows.append((picture, index, pack_name, icon))
                    used.add(icon)
        if pack_name in training:
            others = sorted(set(pack["icons"]) - used)
            others = [
                o for o in others if not any(k in o for k in ("flag", "skin", "light", "dark", "medium", "keycap"))
            ]
            for icon in random.Random(0).sample(others, OTHERS_PER_SET):
                rows.append((render(pack, icon), -1, pack_name, icon))
        print(pack_name, sum(r[2] == pack_name for r in rows), flush=True)
    rgba, concept, packs, icons = zip(*rows, strict=True)
    np.savez_compressed(
        WORK / "artwork.npz", rgba=np.stack(rgba), concept=np.array(concept), set=np.array(packs), icon=np.array(icons)
    )


if __name__ == "__main__":
    main()
