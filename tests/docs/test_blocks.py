"""Every command and every Python block of README, CONTRIBUTING and docs/ holds.

It is run on the bundled model, with few steps, or is marked with the reason why not, and then checked against the real
command line and the real signatures. `pytest tests/docs -rs` lists what is not run.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import io
import re
import shlex
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
from blocks import DOCUMENTS, ROOT, Block, Command, blocks, commands, fences, inline_commands

import crce.api
from crce.cli.flags import flag_words
from crce.cli.main import command_line, main
from crce.evaluate import evaluation
from crce.methods.table import is_solved


pytestmark = pytest.mark.usefixtures("few_unrelated_prompts")

# What is added to a command, or set where a Python block leaves it out, to make it quick. Nothing else is changed.
QUICK = {
    "attack": "--phrases 1 --images-per-prompt 1 --images-per-try 1 --steps 1 --budget 1",
    "bench": "--dry-run",
    "erase": "--no-eval",
    "evaluate": "--images-per-prompt 1 --steps 1",
    "generate": "--n 1 --steps 1",
    "suggest": "--corefs 2 --retains 2 --held-out 0",
}
QUICK_SETTINGS = {"steps": 1, "pool": 1, "ddim_steps": 3, "corefs_per_step": 1, "retains_per_step": 1}
QUICK_EVALUATION = {"images_per_prompt": 1, "steps": 1, "phrases_per_group": 1}
QUICK_CALLS = {
    "attack": {"phrases": 1, "images_per_prompt": 1, "images_per_try": 1, "steps": 1, "budget": 1},
    "generate": {"n": 1, "steps": 1},
}
LANGUAGES = {"sh", "python", "yaml", "toml", "text", "bibtex"}


def ids(value: Any) -> str:
    return value.name if isinstance(value, Path) else value.place


ALL = [b for document in DOCUMENTS for language in ("sh", "python") for b in blocks(document, language)]
SHELL = [block for block in ALL if block.language == "sh" and block.test is None]
PYTHON = [block for block in ALL if block.language == "python" and block.test is None]


def crce_words(command: Command) -> list[str] | None:
    """The arguments of `crce` in a command; None if it is of another program."""
    program = Path(command.words[0]).name
    return list(command.words[1:]) if program == "crce" else None


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_every_block_is_read(document):
    assert sum(len(blocks(document, language)) for language in LANGUAGES) == fences(document)


@pytest.mark.parametrize("block", SHELL, ids=ids)
def test_every_command_is_one_of_crce_with_flags_that_exist_or_is_marked(block):
    for command in commands(block):
        words = crce_words(command)
        if words is None:
            assert not command.runs, (
                f"{block.place}: {shlex.join(command.words)} needs a comment <!-- not run: ... -->"
            )
            for word in command.words[1:]:
                assert not word.endswith((".py", ".yaml")) or (ROOT / word).exists() or block.reason, word
        else:
            parse(words)


def parse(words: list[str]) -> None:
    """Read the arguments of `crce` as the command line does; nothing is run.

    Raises:
        click.UsageError: they can't be read.
    """
    group: Any = typer.main.get_command(command_line(words[0]))
    verb = group.commands[words[0]]
    with contextlib.suppress(typer.Exit), contextlib.redirect_stdout(io.StringIO()):
        verb.make_context(words[0], words[1:], resilient_parsing=False)


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_every_command_in_the_text_has_a_verb_and_flags_that_exist(document):
    for text in inline_commands(document):
        verb, *rest = text.split()[1:]
        if verb == "--help":
            continue
        command: Any = typer.main.get_command(command_line(verb)).commands[verb]
        known = {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)} | {
            "--help",
            "--help-all",
            "--debug",
        }
        for word in rest:
            if word.startswith("--"):
                assert word.split("=")[0] in known, text


@pytest.fixture
def place(short_run, tmp_path, monkeypatch) -> Path:
    """The working folder of a reader: a clone's benchmarks, and runs/cat-1, which the documents speak of."""
    shutil.copytree(short_run, tmp_path / "runs" / "cat-1")
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # at once at an end, for what asks
    return tmp_path


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if blocks(d, "sh")], ids=ids)
def test_commands_run_in_the_order_of_the_document(document, place):
    for block in blocks(document, "yaml"):  # a file where its first line names one
        if name := re.match(r"# (\S+\.yaml)\n", block.text):
            (place / name[1]).write_text(block.text, encoding="utf-8")
    for command in (c for block in blocks(document, "sh") for c in commands(block) if c.runs):
        words = crce_words(command)
        assert words is not None
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            code = main(quickly(words))
        assert code == 0, f"{command.block.place}: crce {shlex.join(words)}\n{err.getvalue()}"
        if command.output:
            (place / command.output).write_text(out.getvalue(), encoding="utf-8")


def quickly(words: list[str]) -> list[str]:
    """A command with what makes it quick; it goes last, where it wins."""
    verb, rest = words[0], words[1:]
    if any(word in ("--replay", "--list", "--resume") for word in rest):
        return words
    more = QUICK.get(verb, "")
    if verb == "erase" and not any(is_solved(word) for word in rest):
        unread = {"corefs_per_step"} if "--no-crce" in rest else set()
        own = {name: value for name, value in QUICK_SETTINGS.items() if name not in unread}
        more = " ".join([more, *flag_words(own)])
    return [verb, *rest, *more.split()]


@pytest.mark.parametrize("block", [block for block in PYTHON if not block.runs()], ids=ids)
def test_a_python_block_that_is_not_run_names_what_exists(block):
    check(block)


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if any(b.runs() for b in blocks(d, "python"))], ids=ids)
def test_python_blocks_run_in_the_order_of_the_document(document, place, monkeypatch):
    for name, values in QUICK_CALLS.items():
        function = getattr(crce, name)
        function = function if inspect.isfunction(function) else getattr(function, name)
        function = inspect.unwrap(function)
        assert values.keys() <= function.__kwdefaults__.keys()
        monkeypatch.setattr(function, "__kwdefaults__", function.__kwdefaults__ | values)
    quick = functools.partial(evaluation.ConceptSetSettings, **QUICK_EVALUATION)
    monkeypatch.setattr(evaluation, "ConceptSetSettings", quick)
    load_config = crce.api.load_config
    monkeypatch.setattr(crce.api, "load_config", lambda name, own, **at: load_config(name, QUICK_SETTINGS | own, **at))
    space: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(document, "python"):
        if block.runs():
            check(block)
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(block.text, block.place, "exec"), space)


def check(block: Block) -> None:
    """Raises AssertionError if a block imports what is not there, or calls it with arguments that it does not take."""
    tree = ast.parse(block.text, block.place)
    names: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                module = import_module(alias.name)
                names[alias.asname or alias.name.partition(".")[0]] = (
                    module if alias.asname else sys.modules[alias.name.partition(".")[0]]
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = getattr(import_module(node.module or ""), alias.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (function := _named(node.func, names)) is not None:
            with contextlib.suppress(ValueError):  # some built-in functions have no signature
                signature = inspect.signature(function)
                arguments = {keyword.arg: None for keyword in node.keywords if keyword.arg}
                try:
                    signature.bind(*node.args, **arguments)
                except TypeError as error:
                    raise AssertionError(f"{block.place}: {ast.unparse(node)}: {error}") from error


def _named(node: ast.expr, names: dict[str, Any]) -> Any:
    """What `f` or `module.f` stands for, where it comes from an import."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute) and (owner := _named(node.value, names)) is not None:
        return getattr(owner, node.attr)
    return None


@pytest.mark.parametrize("block", [block for block in SHELL + PYTHON if block.reason is not None], ids=ids)
def test_what_is_not_run_says_why(block):
    assert block.reason.strip()
    pytest.skip(f"{', '.join(block.only) or 'the block'}: {block.reason}")


@pytest.mark.parametrize("block", [block for block in ALL if block.test is not None], ids=ids)
def test_a_block_that_another_test_runs_names_one_that_reads_the_document(block):
    assert block.document.name in (ROOT / block.test).read_text(encoding="utf-8")
