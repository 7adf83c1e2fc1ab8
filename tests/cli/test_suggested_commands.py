"""Every command that the program suggests runs: those in its messages and examples, and the advice of a report."""

from __future__ import annotations

import ast
import io
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from colour_world import scored
from edited_run import edit_run
from safetensors.torch import load_file

import crce as package
from crce.cli.main import VERBS, command_line
from crce.concepts import read_sets
from crce.evaluate.verdict import make_verdict


__all__ = ["scored"]


COMMAND = re.compile(rf"crce (?:{'|'.join(VERBS)})\b[^`\n;,()]*")
QUICK = {
    "attack": "--phrases 1 --images-per-prompt 1 --images-per-try 1 --steps 1 --budget 1",
    "bench": "--dry-run",
    "erase": "--no-eval --device cpu",
    "evaluate": "--images-per-prompt 1 --steps 1",
    "generate": "--n 1 --steps 1",
    "refine": "--rounds 1 --images-per-prompt 1",
}
TRAINED = "--steps 1 --pool 1 --ddim-steps 3 --retains-per-step 1"

# What stands in the source, "{}" for what is filled in -> what a reader then types; "" for a mere name of a verb, and
# None for what needs more than this machine.
SUGGESTED: dict[str, str | None] = {
    "crce suggest {}": "suggest walrus",
    "crce ls": "ls",
    "crce evaluate": "",
    "crce erase {}": "erase 'Mickey Mouse'",
    "crce generate {} --run {}": "generate cat --run runs/cat-1",
    "crce evaluate {} --images-per-prompt 12": "evaluate runs/cat-1 --images-per-prompt 12",
    "crce evaluate {} --judge clip:{}": None,
    "crce review": "",
    "crce plan": "plan",
    "crce erase --config: {}": "erase cat --config demo",
    "crce erase": "",
    "crce delete CONCEPT --register FOLDER": "delete walrus --register runs/register",
    "crce plan estimates the training of a denoiser": "plan",
    "crce refine {}": "refine runs/cat-1",
    "crce show {} --yaml > {}.yaml": "show runs/cat-1/concepts.yaml --yaml",
    "crce suggest writes it": "",
    "crce suggest cat": "suggest cat",
    "crce web  {}": "",
    "crce web needs the package {}. Install it: pip install 'crce[web]'": "",
    "crce methods describes them": "methods",
    "crce bench": "",
    "crce evaluate {}": "evaluate runs/cat-1",
    "crce evaluate again": "",  # of a page, whose commands have a test of their own
    "crce export RUN --to diffusers writes it into the weights": "export runs/cat-1 --to diffusers",
    "crce export RUN --to kohya": "export runs/cat-1 --to kohya --force",
    "crce erase {} --like {}": "erase 'runs/cat-1/concepts.yaml#cat' --like runs/cat-1",
    "crce erase --like {} --crce": "erase --like runs/cat-1 --crce",
    "crce suggest CONCEPT": "suggest walrus",
    "crce suggest {} --kind KIND --out FILE.yaml": "suggest walrus --kind object --out own.yaml",
    "crce suggest: {}": "",
    "crce erase FILE.yaml": "erase own.yaml",
    "crce erase --resume {}": "erase --resume runs/cat-1",
    "crce plan --model MODEL estimates what fits": "plan --model demo",
    "crce erase CONCEPT": "erase cat",
    "crce erase CONCEPT CONCEPT": "erase cat dog",
    "crce erase CONCEPT --out {}": "erase cat --out 'my runs/other'",
    "crce web printed when it started": "",
}
# These take weights, a server, a folder of the clone, or minutes (tests/cli/test_cli_refine.py and
# tests/training/test_combine.py run them): only parsed.
DEAR = ("plan --model stabilityai", "web ", "bench ", "combine ", "refine ")


def strings(path: Path) -> Iterator[str]:
    """The strings of a module but its docstrings, with "{}" where a value is filled in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            skipped.add(body[0].value)
        if isinstance(node, ast.JoinedStr):
            skipped |= set(node.values)
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in skipped:
            yield node.value


def quickly(words: list[str]) -> list[str]:
    more = QUICK.get(words[0], "")
    if words[0] == "erase" and "--resume" not in words and "--method" not in words:
        more += f" {TRAINED}" if "--no-crce" in words else f" {TRAINED} --corefs-per-step 1"
    return words + more.split()


def said(text: str, verb: str) -> list[str]:
    """The words after `crce` of the first command of this verb in a message."""
    command = next(c for c in COMMAND.findall(text) if c.startswith(f"crce {verb} "))
    return shlex.split(command.split(". ")[0].rstrip("."))[1:]


@pytest.fixture(scope="module")
def place(short_run, tmp_path_factory) -> Iterator[Path]:
    """A folder to work in, with the run of the examples, and one whose name has to be quoted."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("runs/cat-1", "my runs/cat 1"):
        shutil.copytree(short_run, folder / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.stdin", io.StringIO())
        yield folder


def test_every_command_of_the_messages_is_known_here():
    written = {
        match.strip(" .")
        for path in Path(package.__file__).parent.rglob("*.py")
        if path.name != "main.py"
        for text in strings(path)
        for match in COMMAND.findall(text)
    }
    assert written - SUGGESTED.keys() == set()


EXAMPLES = [shlex.join(shlex.split(example.split(" > ")[0])[1:]) for _, _, example in VERBS.values()]


@pytest.mark.parametrize("commands", [EXAMPLES, list(dict.fromkeys(filter(None, SUGGESTED.values())))])
def test_suggested_commands_run_one_after_another(crce, place, commands):
    for command in commands:
        words = shlex.split(command)
        if command.startswith(DEAR):
            group = typer.main.get_command(command_line(words[0]))
            assert group.commands[words[0]].make_context(words[0], words[1:])
        else:
            result = crce(*quickly(words))
            assert result.code == 0, f"crce {command}: {result.err}"


def test_the_command_of_an_unfinished_run_continues_it(crce, place):
    folder = place / "my runs" / "half"
    shutil.copytree(place / "my runs" / "cat 1", folder)
    edit_run(folder, status="interrupted")
    for refused in (crce("evaluate", folder), crce("erase", "cat", "--out", folder)):
        assert refused.code == 2
        assert said(refused.err, "erase") == ["erase", "--resume", str(folder)]
    assert crce("erase", "--resume", folder, "--no-eval").code == 0


def test_the_commands_after_an_erasure_name_the_run_as_a_shell_reads_it(crce, place):
    done = crce(*quickly(["erase", "cat", "--out", "my runs/new"]))
    assert crce(*quickly(said(done.out, "generate"))).code == 0
    assert said(done.out, "evaluate")[1] == "my runs/new"


def test_the_commands_of_a_page_repeat_run_and_report(crce, place, monkeypatch):
    monkeypatch.chdir("my runs/cat 1")
    shown = re.findall("<code>(.*?)</code>", Path("report.html").read_text(encoding="utf-8"))
    erase, evaluate = (shlex.split(re.sub("<.*?>", "", command)) for command in shown)
    assert crce(*erase[1:]).code == 0
    then, now = (load_file(Path(folder, "adapter.safetensors")) for folder in (".", "again"))
    assert then.keys() == now.keys()
    assert all(then[name].equal(now[name]) for name in then)
    assert crce(*evaluate[1:]).code == 0
    summaries = [json.loads(Path(folder, "report.json").read_text())["summary"] for folder in (".", "again")]
    assert summaries[0] == summaries[1]


@pytest.mark.parametrize("given", ["Mickey Mouse", "my runs/cat 1/concepts.yaml"])
def test_what_is_not_reviewed_is_copied_by_the_command_and_then_reviewed(crce, place, given, monkeypatch):
    words = said(crce("review", given).err, "show")
    copied = crce(*words[: words.index(">")])
    assert copied.code == 0, copied.err
    copy = Path(words[words.index(">") + 1])
    copy.write_text(copied.out)
    monkeypatch.setattr("sys.stdin", io.StringIO("accept 1\n"))
    assert crce("review", copy).code == 0


def test_a_run_of_the_target_alone_is_erased_with_corefs_and_then_not_refused_for_that(crce, place):
    assert crce(*quickly(["erase", "cat", "--no-crce", "--out", "my runs/alone"])).code == 0
    refused = crce("refine", "my runs/alone")
    assert crce(*quickly(said(refused.err, "erase")), "--out", "my runs/with").code == 0
    assert json.loads((place / "my runs/with/run.json").read_text())["config"]["crce"] is True


def test_a_run_of_several_is_refined_one_target_at_a_time(crce, place):
    assert crce("erase", "cat", "dog", "--method", "uce", "--no-eval", "--out", "my runs/two").code == 0
    refused = crce("refine", "my runs/two")
    assert crce(*said(refused.err, "erase"), "--no-eval", "--out", "my runs/one").code == 0
    info = json.loads((place / "my runs/one/run.json").read_text())
    assert (info["targets"], info["config"]["method"]) == (["cat"], "uce")


def test_a_plan_prints_a_command_that_erases(crce, place):
    words = shlex.split(crce("plan", "--vram", "12").out.splitlines()[-1])[1:]
    words[words.index("CONCEPT")] = "cat"
    assert crce(*quickly(words)).code == 0


@pytest.mark.parametrize(
    ("groups", "config", "changed"),
    [
        # of the set of the run kitten, pussycat, tiger and wolf are held out; nothing of it is a ship
        ({"target": [("cat", 6, 0)], "retain_held_out": [("tiger", 6, 0)]}, {}, {}),
        ({"target": [("cat", 6, 0)], "coref_held_out": [("kitten", 6, 6)], "unrelated": [("ship", 6, 0)]}, {}, {}),
        (
            {"target": [("cat", 6, 6)], "coref": [("kitty", 6, 6)], "retain": [("dog", 6, 0)]},
            {},
            {"alpha": 2.0, "beta": 4.0, "steps": 8},
        ),
        ({"target": [("cat", 6, 0)], "retain": [("dog", 6, 0)]}, {"crce": False}, {"crce": True}),
    ],
)
def test_the_advice_of_a_report_erases_again_with_what_it_names(crce, place, scored, groups, config, changed):
    run = Path("my runs/cat 1")
    recipe = json.loads((run / "run.json").read_text())["config"] | config
    verdict = make_verdict([scored(**groups)], recipe, run)
    words = shlex.split(verdict.points[-1].command)[1:]
    out = place / "advised" / str(len(list(place.glob("advised/*"))))
    result = crce(*words, "--no-eval", "--out", out, "--device", "cpu")
    assert result.code == 0, result.err
    now = json.loads((out / "run.json").read_text())["config"]
    assert {name: now[name] for name in recipe if now[name] != recipe[name]} == changed or config
    assert changed.items() <= now.items()
    (concepts,) = read_sets(out / "concepts.yaml")
    trained = {r.text for r in concepts.train_corefs + concepts.train_retains}
    named = [
        text for name in ("coref_held_out", "retain_held_out", "unrelated") for text, _, _ in groups.get(name, [])
    ]
    assert trained >= set(named)
