"""Heat maps of H over M and N as SVG: corefs to the right, retains upwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from crce.bench.cells import Cell
from crce.bench.grid import SIZES


SIDE, LEFT, TOP, BOTTOM = 64, 70, 44, 56  # pixels
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
    width, height = LEFT + SIDE * len(ms) + 16, TOP + SIDE * len(ns) + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="14" text-anchor="middle">',
        f"<title>{escape(title)}: mean H by corefs and retains</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        _text(width / 2, 26, f"{title}: H", size=16),
    ]
    for row, n in enumerate(reversed(ns)):
        y = TOP + SIDE * row
        parts.append(_text(LEFT - 14, y + SIDE / 2 + 5, str(n)))
        for column, m in enumerate(ms):
            x, value = LEFT + SIDE * column, values.get((m, n))
            share = 0.0 if value is None else (value - low) / (high - low) if high > low else 0.5
            red, green, blue = (round(a + (b - a) * share) for a, b in zip(LOW, HIGH, strict=True))
            fill = "#eee" if value is None else f"#{red:02x}{green:02x}{blue:02x}"
            parts.append(f'<rect x="{x}" y="{y}" width="{SIDE}" height="{SIDE}" fill="{fill}" stroke="#fff"/>')
            shown = "–" if value is None else f"{value:.2f}"
            parts[-1] += _text(x + SIDE / 2, y + SIDE / 2 + 5, shown, "#fff" if share > 0.5 else "#222")
    bottom = TOP + SIDE * len(ns)
    parts += [_text(LEFT + SIDE * (column + 0.5), bottom + 20, str(m)) for column, m in enumerate(ms)]
    parts.append(_text(LEFT + SIDE * len(ms) / 2, bottom + 44, "M, training corefs"))
    middle = TOP + SIDE * len(ns) / 2
    parts.append(f'<g transform="rotate(-90 24 {middle:g})">{_text(24, middle + 5, "N, training retains")}</g>')
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, text: str, ink: str = "#222", size: int = 14) -> str:
    return f'<text x="{x:g}" y="{y:g}" fill="{ink}" font-size="{size}">{escape(text)}</text>'
