"""Heat maps of H over M and N as SVG: corefs to the right, retains upwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import PackageLoader

from crce.bench.cells import Cell
from crce.bench.grid import SIZES
from crce.evaluate.page import make_environment


LOW, HIGH = (247, 251, 255), (8, 69, 148)  # light and dark blue, distinct also in greyscale


def heat_maps(cells: Sequence[Cell], means: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """SVGs by title, for each method and model of a grid in which both M and N vary; `means` are those of the rows."""
    found: dict[str, dict[tuple[int, int], float | None]] = {}
    for cell in cells:
        m, n = (cell.axes.get(name) for name in SIZES)
        if m is None or n is None:
            continue
        title = " ".join(part for part in cell.row.split(" ") if part not in (f"corefs={m}", f"retains={n}"))
        mean = means.get(cell.row)
        found.setdefault(title, {})[m, n] = mean["H"]["value"] if mean else None
    varied = {t: values for t, values in found.items() if all(len({p[i] for p in values}) > 1 for i in (0, 1))}
    return {title: _heat_map(title, values) for title, values in varied.items()}


def _heat_map(title: str, values: Mapping[tuple[int, int], float | None]) -> str:
    """One map, of H by (M, N); None where it was not measured."""
    ms, ns = (sorted({pair[axis] for pair in values}) for axis in (0, 1))
    known = [value for value in values.values() if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    places = {}
    for pair in ((m, n) for m in ms for n in ns):
        value = values.get(pair)
        share = 0.0 if value is None else (value - low) / (high - low) if high > low else 0.5
        red, green, blue = (round(a + (b - a) * share) for a, b in zip(LOW, HIGH, strict=True))
        places[pair] = {
            "fill": "#eee" if value is None else f"#{red:02x}{green:02x}{blue:02x}",
            "ink": "#fff" if share > 0.5 else "#222",
            "shown": "–" if value is None else f"{value:.2f}",
        }
    template = make_environment(PackageLoader("crce", "bench")).get_template("heatmap.svg.j2")
    return template.render(title=title, ms=ms, ns=ns, places=places).strip() + "\n"
