from __future__ import annotations

from crce.evaluate.prompts import Prompt, concept_group
from crce.evaluate.scores import score_group, summarise_groups


def test_prompt_counts_and_words_are_kept():
    group = concept_group("coref", [Prompt("kitty", 0.8, "cat")])
    scored = score_group(group, [["cat", "cat", "dog", None]], [["cat", None, "dog", "dog"]])
    assert scored.as_json() == {
        "measures": "erased",
        **scored.measure.as_json(),
        "available": 1,
        "left_out": 0,
        "prompts": [
            {
                "text": "kitty",
                "certainty": 0.8,
                "class": "cat",
                "base": 2,
                "erased": 2,
                "n": 3,
                "left_out": None,
                "words": {"base": ["cat", "cat", "dog", None], "erased": ["cat", None, "dog", "dog"]},
            }
        ],
    }
    assert scored.measure.value == 0
    assert scored.prompts[0].failed == 1


def test_undrawable_prompt_is_left_out_with_the_reason():
    group = concept_group("coref", [Prompt("moggy", 1.0, "cat"), Prompt("kitty", 1.0, "cat")])
    scored = score_group(group, [["dog", "cat", "dog"], ["cat"] * 3], [["cat"] * 3, ["dog"] * 3])
    assert scored.prompts[0].left_out == 'the base model draws it as "cat" in only 1 of 3 pictures'
    assert scored.measure.value == 1
    assert scored.as_json()["left_out"] == 1


def test_prompt_that_the_base_model_failed_to_draw_is_left_out():
    scored = score_group(concept_group("target", [Prompt("cat", None, "cat")]), [[None, None]], [["dog", "dog"]])
    assert scored.prompts[0].left_out == "the base model failed to draw it"
    assert scored.measure.value is None
    assert scored.measure.reason == "the base model failed to draw it"


def test_empty_group_says_why_there_is_no_number(scored):
    groups = scored(target=[("cat", 6, 0)], retain_held_out=[("dog", 6, 6)])
    summary = summarise_groups(groups)
    assert summary["erased"].value == 1
    assert summary["coref_erased"].reason == "the concept set has no held-out corefs"
    assert summary["H"].value is None


def test_without_words_nothing_is_made_up():
    scored = score_group(concept_group("retain", [Prompt("dog", 1.0, None, "no judge scored it")]), None, None)
    (prompt,) = scored.as_json()["prompts"]
    assert (prompt["base"], prompt["erased"], prompt["n"], prompt["words"]) == (None, None, None, None)
    assert scored.measure.value is None
    assert scored.measure.reason == "no judge scored it"
