from __future__ import annotations

from pathlib import Path

import pytest

from crce.evaluate.verdict import make_verdict, percent


RECIPE = {"method": "esd", "crce": True, "steps": 250, "alpha": 1.0, "beta": 0.5}


def verdict(groups, config=RECIPE):
    return make_verdict([groups], config, Path("runs/cat 1"))


def points(groups, config=RECIPE):
    return {p.label: p.text for p in verdict(groups, config).points}


def test_clean_erasure_needs_no_advice(scored):
    said = points(
        scored(target=[("cat", 6, 0)], coref_held_out=[("kitten", 5, 1)], retain_held_out=[("dog", 6, 5)]),
    )
    assert said == {
        "Erased": '"cat" is gone: 0 of 6 pictures still show it (6 of 6 before).',
        "No leaks": 'of 1 other name, none still draws "cat".',
        "Nothing broke": "of 1 thing to keep, all are still drawn.",
    }


@pytest.mark.parametrize(("left", "label"), [(0, "Erased"), (2, "Partly erased"), (4, "Not erased")])
def test_how_far_the_target_is_gone(scored, left, label):
    groups = scored(target=[("cat", 6, left)])
    assert verdict(groups).points[0].label == label
    assert f"{left} of 6 pictures still show it" in verdict(groups).points[0].text
    assert ("Train longer (--steps 500, now 250)." in verdict(groups).text) is (left > 0)


def test_leaks_are_named_worst_first_with_before_and_after(scored):
    groups = scored(
        target=[("cat", 6, 0)], coref=[("kitty", 6, 2), ("moggy", 6, 1)], coref_held_out=[("feline", 3, 3)]
    )
    said = points(groups)
    assert said["Leaked"] == (
        f'of 3 other names, 2 still draw "cat": "feline" ({percent(0.5)} → {percent(0.5)}), '
        f'"kitty" ({percent(1)} → {percent(1 / 3)}).'
    )
    assert said["Try next"] == (
        "Raise the weight of the corefs (--alpha 2, now 1): corefs it was trained on leak. "
        'Train "feline" too, as coref.'
    )
    assert verdict(groups).points[-1].command == "crce erase --like 'runs/cat 1' --alpha 2 --coref feline"
    assert [(c.text, c.group, c.base, c.erased, c.n) for c in verdict(groups).leaks] == [
        ("feline", "coref_held_out", 3, 3, 6),
        ("kitty", "coref", 6, 2, 6),
    ]


def test_broken_phrases_are_named_worst_first_with_before_and_after(scored):
    groups = scored(
        target=[("cat", 6, 0)],
        retain=[("dog", 6, 4), ("fox", 6, 5)],
        retain_held_out=[("wolf", 4, 0)],
        unrelated=[("ship", 6, 6)],
    )
    said = points(groups)
    assert said["Broke"] == (
        f'of 4 things to keep, 2 dropped: "wolf" ({percent(2 / 3)} → {percent(0)}), '
        f'"dog" ({percent(1)} → {percent(2 / 3)}). Of what is unrelated, {percent(1)} is kept.'
    )
    assert "(--beta 1, now 0.5)" in said["Try next"]
    assert 'Train "wolf" too, as retain.' in said["Try next"]
    assert [c.text for c in verdict(groups).broken] == ["wolf", "dog"]


def test_run_without_corefs_and_retains_is_told_to_use_them(scored):
    groups = scored(target=[("cat", 6, 0)], coref_held_out=[("kitten", 6, 6)], retain=[("dog", 6, 0)])
    said = points(groups, {"crce": False})
    assert said["Try next"] == "This run used the target alone. Erase it again with its corefs and retains."


def test_undrawable_target_is_said_plainly(scored):
    groups = scored(target=[("cat", 1, 0)], retain=[("dog", 6, 6)])
    assert points(groups)["Not measured"] == '"cat": the base model draws it as "it" in only 1 of 6 pictures.'
    assert verdict(groups).points[0].tone == "unknown"


def test_undrawable_phrases_neither_leak_nor_break(scored):
    groups = scored(target=[("cat", 6, 0)], coref=[("moggy", 2, 2)], retain=[("ferret", 2, 0)])
    assert verdict(groups).leaks == ()
    assert verdict(groups).broken == ()
    assert "Leaks unknown" in points(groups)
    assert "Damage unknown" in points(groups)


def test_long_lists_are_cut(scored):
    groups = scored(target=[("cat", 6, 0)], coref=[(f"name {i}", 6, 6) for i in range(9)])
    assert "and 3 more" in points(groups)["Leaked"]
    assert len(verdict(groups).leaks) == 9
