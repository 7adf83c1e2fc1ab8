from __future__ import annotations

import pytest

from crce.errors import RunError
from crce.evaluate.curve import POINTS, draw_curve, read_trace


def coordinates(points: str) -> list[tuple[float, float]]:
    return [tuple(map(float, pair.split(","))) for pair in points.split()]


def test_lines_run_from_the_first_to_the_last_step():
    curve = draw_curve([{"step": 10 * i, "loss": 2.0, "target": 1.0} for i in range(1, 6)])
    assert (curve["first"], curve["last"], curve["top"]) == (10, 50, 2)
    assert coordinates(curve["lines"]["loss"]) == [(0, 0), (25, 0), (50, 0), (75, 0), (100, 0)]
    assert {y for _, y in coordinates(curve["lines"]["target"])} == {50}
    assert set(curve["lines"]) == {"loss", "target"}


def test_long_runs_are_smoothed_and_thinned():
    curve = draw_curve([{"step": i, "loss": i % 2} for i in range(5000)])
    ys = [y for _, y in coordinates(curve["lines"]["loss"])]
    assert len(ys) == POINTS
    value = [curve["top"] * (100 - y) / 100 for y in ys]
    assert min(value) > 0.45
    assert max(value) < 0.55


def test_what_is_no_number_is_skipped():
    rows = [
        {"step": 1, "loss": float("nan")},
        {"step": 2, "loss": 1.0},
        {"step": 3, "loss": None},
        {"step": 4, "loss": 1},
    ]
    assert len(coordinates(draw_curve(rows)["lines"]["loss"])) == 2


@pytest.mark.parametrize("rows", [[], [{"step": 1, "loss": 1.0}], [{"step": 1}, {"step": 2}]])
def test_too_few_rows_draw_nothing(rows):
    assert draw_curve(rows) is None


@pytest.mark.parametrize("data", [b"x\n", b"[1]\n", b"\xff\n", b"[" * 100_000 + b"\n"])
def test_damaged_metrics_are_refused_by_name(tmp_path, data):
    (tmp_path / "metrics.jsonl").write_bytes(data)
    with pytest.raises(RunError, match=f"Cannot read {tmp_path / 'metrics.jsonl'}: .*. Move it away"):
        read_trace(tmp_path)
