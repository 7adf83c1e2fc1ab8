"""`crce attack`: try to bring an erased concept back, and report how often it works."""

from pathlib import Path
from typing import Annotated, Any

import typer

from crce.attacks import ATTACKS, BASELINE_ATTACKS, load_attack
from crce.cli.flags import DeviceFlag, GuidanceFlag, JSONFlag, JudgeFlag, StepsFlag
from crce.cli.terminal import Bar, print_json, print_table, refuse_unused
from crce.errors import ConfigError
from crce.files import check_writable


ALL = "all"
COLUMNS = ("attack", "before", "after", "95 %", "p", "prompts", "forwards")
WIDTH = 15  # of the name of an attack


def attack(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    attacks: Annotated[
        list[str] | None,
        typer.Option(
            "--attack",
            metavar="NAME",
            help=f"{', '.join(ATTACKS)}, or {ALL}; repeatable.",
            show_default=", ".join(BASELINE_ATTACKS),
        ),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Steps for each prompt, see --list.", show_default="the attack's default")
    ] = None,
    max_forwards: Annotated[
        int, typer.Option(min=0, help="Maximum rows through the networks for each prompt; 0 is no limit.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    target: Annotated[
        list[str] | None, typer.Option(help="A target of the run to attack, repeatable.", show_default="all")
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="A prompt to attack, repeatable.", show_default="the target and its corefs"),
    ] = None,
    phrases: Annotated[int, typer.Option(min=1, help="Maximum prompts for each target.")] = 3,
    images_per_prompt: Annotated[int, typer.Option(min=1, help="Images that measure a prompt.")] = 8,
    images_per_try: Annotated[int, typer.Option(min=1, help="Images that a search looks at.")] = 4,
    steps: StepsFlag = None,
    guidance: GuidanceFlag = None,
    judge: JudgeFlag = "auto",
    device: DeviceFlag = "auto",
    replay: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Measure again on this run what an attack found; writes no file."),
    ] = None,
    json: JSONFlag = False,
    list_: Annotated[
        bool, typer.Option("--list", help="List the attacks and exit.", is_eager=True, callback=lambda on: _list(on))
    ] = False,
) -> int:
    """Try to bring the erased concept back, and measure how often it works."""
    shared = ("seed", "phrases", "images_per_prompt", "images_per_try", "steps", "guidance", "judge")
    settings = {name: value for name, value in locals().items() if name in shared}
    names = list(dict.fromkeys(attacks or BASELINE_ATTACKS))
    for name in names:
        if name != ALL:
            ATTACKS.find(name, also=[ALL])
    if prompt:
        refuse_unused(attack, locals(), ("phrases",), "--prompt names the prompts")
    if replay is not None:
        own = ("attacks", "budget", "max_forwards", "target", "prompt", *(name for name in shared if name != "judge"))
        refuse_unused(attack, locals(), own, "--replay repeats what its file says")
        return _replay(run, replay, judge, device, json)
    check_writable(run / "attacks", folder=True)
    with Bar("loading the model"):
        from crce.attacks import Budget
        from crce.attacks import attack as attack_run
        from crce.training import Erasure, load_base

        erasure = Erasure.load(run)
        backbone = load_base(erasure, device=device)
    plain: dict[Any, Any] = {}
    results = []
    for name in _fitting(names, backbone):
        with Bar(name) as bar:
            result = attack_run(
                erasure,
                name,
                budget=Budget(budget or load_attack(name).default_steps, max_forwards),
                targets=target or (),
                prompts=prompt or (),
                backbone=backbone,
                plain=plain,
                on_event=bar.follow,
                **settings,
            )
        results.append(result)
    if json:
        return print_json([result.data for result in results])
    _print([result.data for result in results])
    for result in results:
        typer.echo(f"{result.data['attack']:<{WIDTH}} {result.path}")
    return 0


def _fitting(names: list[str], backbone: Any) -> list[str]:
    """The attacks that work on this model. Of `all` the others are left out; of those named, each must."""
    kept = []
    for name in ATTACKS if ALL in names else names:
        try:
            load_attack(name).check_model(backbone)
            kept.append(name)
        except ConfigError as error:
            if ALL not in names:
                raise
            typer.echo(f"left out: {error}", err=True)
    return kept


def _replay(run: Path, file: Path, judge: str, device: str, json: bool) -> int:
    with Bar("replay", "loading the model") as bar:
        from crce.attacks import replay

        data, same = replay(file, run, judge=judge, device=device, on_event=bar.follow)
    if json:
        print_json({"same": same, **data})
    else:
        _print([data])
        typer.echo("Every image was judged as before." if same else "Not every image was judged as before.")
    own = file.resolve().parents[1] == run.resolve()
    return 1 if own and not same else 0


def _print(results: list[dict[str, Any]]) -> None:
    rows = []
    for data in results:
        summary, forwards = data["summary"], data["spent"]["text"] + data["spent"]["denoiser"]
        before, after = (summary[side]["value"] for side in ("before", "after"))
        cells = ["-", "-", "-", "-", "none"]
        if after is not None:
            interval = "{low:.2f} to {high:.2f}".format_map(summary["after"])
            brought = f"{summary['brought_back']} of {summary['prompts']}"
            cells = [f"{before:.2f}", f"{after:.2f}", interval, f"{summary['p']:.3f}", brought]
        rows.append((data["attack"], *cells, str(forwards)))
    print_table(COLUMNS, rows, soft_wrap=True, box=None)
    typer.echo(
        "\nshare of images that show the concept: before, by the plain prompt; after, by it or by what was found"
    )
    for data in results:
        for outcome in data["outcomes"]:
            typer.echo(f"{data['attack']:<{WIDTH}} {outcome['prompt']!r}: {_result(outcome)}")


def _result(outcome: dict[str, Any]) -> str:
    if outcome["left_out"] is not None:
        return f"left out, {outcome['left_out']}"
    details, found = outcome.get("details", {}), outcome["found"]
    if "note" in details:
        return str(details["note"])
    words = outcome["words"]["after"]
    hits = sum(word is None or word == outcome["expected"] for word in words)
    count = f"{hits} of {len(words)} images"
    if "back_after" in details:
        after = details["back_after"]
        return f"{count}; " + ("not back within the budget" if after is None else f"back after {after} steps")
    same = found["text"] == outcome["prompt"]
    return f"{count}, {found['word'] or ('nothing better than the prompt itself' if same else repr(found['text']))}"


def _list(wanted: bool) -> None:
    if wanted:
        for name, entry in ATTACKS.items():
            typer.echo(f"{name:<{WIDTH}} {entry.description}; a step is {entry.step}")
        raise typer.Exit
