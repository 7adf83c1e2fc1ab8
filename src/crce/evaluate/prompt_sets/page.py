"""report.html of a prompt set: the numbers by their published names, and pictures of some prompts of each group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crce.evaluate.groups import spread
from crce.evaluate.page import environment, list_facts, make_card, make_pairs, make_subtitle, pairs_shown
from crce.evaluate.rates import points
from crce.evaluate.verdict import percent


if TYPE_CHECKING:
    from crce.evaluate.prompt_sets.measurement import Pictures


def render_prompts(data: Mapping[str, Any], pictures: Pictures, *, info: Mapping[str, Any], shown: int) -> str:
    """The page.

    Args:
        data: the content of report.json.
        pictures: of some of the prompts.
        info: the run's run.json.
        shown: most prompts of a group in the page.

    Returns:
        HTML without scripts and without anything to be fetched.
    """
    groups = [_group(group, pictures, shown) for group in data["groups"].values()]
    cards = [card for group in groups for card in group["cards"]]
    pairs = pairs_shown(len(cards))
    for card in cards:
        before, after = pictures[card["text"]]
        card["pairs"] = list(make_pairs(card, before[:pairs], after[:pairs]))
    judge = data["judges"][0] if data["judges"] else None
    return (
        environment()
        .get_template("prompt_sets/prompts.html.j2")
        .render(
            data=data,
            judge=judge,
            subtitle=make_subtitle(info),
            rows=[_row(number) for number in data["numbers"]],
            groups=groups,
            facts=list_facts({**data, "judge": judge}, info),
        )
    )


def _row(number: Mapping[str, Any]) -> dict[str, Any]:
    """A number in the table."""
    if "reason" in number:
        return {"name": number["name"], "reason": number["reason"]}
    change = number["difference"]
    return {
        **number,
        "reason": None,
        "n": number["base"]["n"],
        "rates": [
            {"percent": percent(rate["value"]), "interval": f"{percent(rate['low'])} to {percent(rate['high'])}"}
            for rate in (number["base"], number["erased"])
        ],
        "points": points(change["value"]),
        "interval": f"{points(change['low'])} to {points(change['high'])}",
        "significant": change["significant"],
    }


def _group(group: Mapping[str, Any], pictures: Pictures, shown: int) -> dict[str, Any]:
    """A group with the cards of some of its prompts, one for each text."""
    by_text = {prompt["text"]: prompt for prompt in reversed(group["prompts"]) if prompt["text"] in pictures}
    erasing = group["measures"] == "erased"
    cards = []
    for prompt in spread(list(reversed(by_text.values())), shown):
        scored = prompt["left_out"] is None
        bad = scored and (2 * prompt["erased"] > prompt["base"]) == erasing
        cards.append(make_card(prompt, erasing=erasing, bad=bad))
    texts = len({prompt["text"] for prompt in group["prompts"]})
    note = "should no longer show the target" if erasing else "should be as before"
    return {"title": group["title"], "note": note, "texts": texts, "of": group["of"], "cards": cards}
