"""Charts for the documents, as SVG."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from jinja2 import FileSystemLoader

from crce.evaluate.page import make_environment


LEFT, WIDTH, LINE, TOP = 130, 460, 30, 54  # pixels
PLAIN, CRCE = "#9aa5b1", "#0b4a8f"
LOW, HIGH = (247, 251, 255), (8, 69, 148)  # of heat maps, light and dark blue, distinct also in greyscale


def pairs_chart(title: str, pairs: Mapping[str, tuple[float, float]], low: float, high: float) -> str:
    """A line for each name from its plain value, a ring, to its value with CRCE, a dot.

    Args:
        title: stands above.
        pairs: the two values of each name.
        low: where the scale begins.
        high: where it ends.
    """
    height = TOP + LINE * len(pairs) + 40
    bottom = TOP + LINE * len(pairs)

    def place(value: float) -> float:
        return round(LEFT + WIDTH * (value - low) / (high - low), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 40} {height}" '
        f'width="{LEFT + WIDTH + 40}" height="{height}" font-family="sans-serif" font-size="14">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{LEFT + WIDTH + 40}" height="{height}" fill="#fff"/>',
        _text(LEFT, 24, title, size=16),
        f'<circle cx="{LEFT + 6}" cy="40" r="5" fill="#fff" stroke="{PLAIN}" stroke-width="2"/>',
        _text(LEFT + 18, 45, "plain"),
        f'<circle cx="{LEFT + 76}" cy="40" r="6" fill="{CRCE}"/>',
        _text(LEFT + 88, 45, "with corefs and retains"),
    ]
    for tick in range(round(10 * low), round(10 * high) + 1):
        x = place(tick / 10)
        parts.append(f'<line x1="{x}" y1="{TOP}" x2="{x}" y2="{bottom}" stroke="#e4e7eb"/>')
        parts.append(_text(x, bottom + 20, f"{tick / 10:.1f}", anchor="middle"))
    for i, (name, (plain, crce)) in enumerate(pairs.items()):
        y = TOP + LINE * (i + 0.5)
        parts.append(_text(LEFT - 12, y + 5, name, anchor="end"))
        parts.append(
            f'<line x1="{place(plain)}" y1="{y}" x2="{place(crce)}" y2="{y}" stroke="#cbd2d9" stroke-width="3"/>'
        )
        parts.append(
            f'<circle cx="{place(plain)}" cy="{y}" r="5" fill="#fff" stroke="{PLAIN}" stroke-width="2"/>'
            f'<circle cx="{place(crce)}" cy="{y}" r="6" fill="{CRCE}"/>'
        )
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 14) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}" fill="#222">{escape(text)}</text>'


def heat_map(title: str, means: Mapping[str, Mapping[str, Any]]) -> str:
    """A map of H over M corefs and N retains, from the means of rows that are named "... corefs=M retains=N"."""
    values: dict[tuple[int, int], float | None] = {}
    for row, numbers in means.items():
        if found := re.search(r" corefs=(\d+) retains=(\d+)", row):
            values[int(found[1]), int(found[2])] = numbers["H"]["value"]
    ms, ns = (sorted({pair[axis] for pair in values}) for axis in (0, 1))
    known = [value for value in values.values() if value is not None]
    low, high = min(known), max(known)
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
    template = make_environment(FileSystemLoader(Path(__file__).parent)).get_template("heatmap.svg.j2")
    return template.render(title=title, ms=ms, ns=ns, places=places).strip() + "\n"
