"""Whatever is given ends soon: in a result that its reader takes back, or in one error that says what to do.

In CI a thousand inputs are tried, always the same. `CRCE_FUZZ=20 python -m pytest tests/fuzz` tries twenty thousand,
other ones each time.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from crce.bench.grid import BenchmarkGrid
from crce.bench.reader import read_grid
from crce.cli.main import VERBS, command_line, main
from crce.concepts import ConceptSet, Related, dump_concepts, parse_concepts, read_sets
from crce.concepts.documents import parse_sets
from crce.config import ErasureConfig, load_config
from crce.errors import CRCEError, escaped
from crce.evaluate.prompt_sets.files import load
from crce.suggest.phrases import parse_concept
from crce.suggest.prompts import _turns
from crce.suggest.schemas import AnswerError, parse_judgements, parse_proposals


TIMES = int(os.environ.get("CRCE_FUZZ", "1"))
CORPUS = {file.name: file.read_text(encoding="utf-8") for file in sorted((Path(__file__).parent / "corpus").iterdir())}
LONGEST = 200_000  # characters of an error; it lists 50 faults at most
TOKENS = (
    *(
        ".inf",
        "-.nan",
        "1e400",
        "nan",
        "true",
        "null",
        "~",
        "-1",
        "0",
        "9" * 30,
        "0x" + "f" * 200,
        "1:1:1",
        "2026-99-99",
    ),
    *(
        "&a ",
        "*a",
        "&a [*a]",
        "<<: *a",
        "<<: {a: b}",
        "!!int x",
        "!!bool x",
        "!!timestamp x",
        "!!binary x",
        "!!set {a}",
    ),
    *("!!python/object/apply:os.system [x]", "? ", "- ", "{", "}", "[", "]", "[" * 60, "---\n", "...\n", "%YAML 9\n"),
    *(
        ": ",
        "#",
        ",",
        "|",
        ">",
        "'",
        '"',
        "\\",
        "\t",
        "\n",
        "\r\n",
        "\0",
        "\x1b[31m",
        "\u202e",
        "\u200b",
        "\ud800",
        "\ufeff",
    ),
    *("<script>", "![](http://x)", "../../x", "/dev/zero", "{{7*7}}", "{target}", "%s", "x" * 5000, "target: dog\n"),
    *(
        "Very High",
        "certainty: Hihg",
        "held_out: maybe",
        "kitty",
        "cat",
        "method: uce\n",
        "rank: 8\n",
        "\ufb01",
        "\u0301",
    ),
)
tokens = st.one_of(st.sampled_from(TOKENS), st.text(max_size=8))


@st.composite
def mutated(draw: Callable[[Any], Any], *names: str) -> str:
    """A file of the corpus with some of its parts deleted, repeated or replaced by tokens."""
    text = CORPUS[draw(st.sampled_from(names))]
    for _ in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from((0, 0, 1, 5, 40))))
        text = text[:start] + draw(st.one_of(tokens, st.just(text[start:end] * 2))) + text[end:]
    return text


def fuzz(examples: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=examples * TIMES,
        deadline=10_000 if TIMES > 1 else None,  # no test asserts seconds, and a busy machine is slow
        derandomize=TIMES == 1,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of which only `work`, the current folder, may change."""
    import crce.training  # noqa: F401  takes longer than any input may

    load_config(model="nobody/nothing")  # and so does the first question to the Hub's cache
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "work").mkdir()
    before = Path.cwd()
    os.chdir(folder / "work")
    yield folder / "work"
    os.chdir(before)
    assert [path.name for path in folder.iterdir()] == ["work"]


def outcome(read: Callable[[], Any]) -> Any:
    """What `read` returns; None where it raises an error for the person at the keyboard."""
    try:
        return read()
    except CRCEError as error:
        text = str(error)
        assert text.strip()
        assert len(text) < LONGEST
        assert all(line.startswith("  ") for line in text.splitlines()[1:]), text
        return None


def written(place: Path, name: str, text: str) -> Path:
    path = place / name
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


@fuzz(150)
@given(text=mutated("concepts.yaml", "sets.yaml"))
def test_concept_files(place: Path, text: str) -> None:
    sets = outcome(lambda: read_sets(written(place, "sets.yaml", text)))
    assert sets is None or tuple(parse_sets(dump_concepts(sets), "again")) == sets


@fuzz(100)
@given(text=mutated("concepts.json", "corefconcept.json"))
def test_concept_files_in_json(place: Path, text: str) -> None:
    sets = outcome(lambda: read_sets(written(place, "sets.json", text)))
    assert not sets or tuple(parse_sets(dump_concepts(sets), "again")) == sets


@fuzz(150)
@given(text=mutated("recipe.yaml"))
def test_recipes(place: Path, text: str) -> None:
    config = outcome(lambda: load_config(written(place, "recipe.yaml", text)))
    assert config is None or ErasureConfig(**json.loads(json.dumps(config.model_dump(mode="json")))) == config


@fuzz(80)
@given(text=mutated("grid.yaml"))
def test_grids(place: Path, text: str) -> None:
    grid = outcome(lambda: read_grid(written(place, "grid.yaml", text)))
    assert grid is None or isinstance(grid, BenchmarkGrid)


@fuzz(100)
@given(name=st.sampled_from(["prompts.csv", "prompts.json", "prompts.txt"]), data=st.data())
def test_prompt_files(place: Path, name: str, data: st.DataObject) -> None:
    path = written(place, name, data.draw(mutated(name)))
    prompts = outcome(lambda: load(path, ConceptSet("cat", corefs=(Related("kitty"),))))
    for group in () if prompts is None else prompts.groups:
        assert group.prompts
        assert all(prompt.text.strip() and "\0" not in prompt.text for prompt in group.prompts)


@fuzz(50)
@given(text=mutated("template.md"))
def test_templates_of_questions(place: Path, text: str) -> None:
    turns = outcome(lambda: _turns(written(place, "object.md", text)))
    assert turns is None or all(turn.content for turn in turns)


@fuzz(150)
@given(phrases=st.lists(tokens, min_size=2, max_size=4), certainty=st.floats() | st.integers() | tokens)
def test_phrases(phrases: list[str], certainty: Any) -> None:
    def make() -> ConceptSet:
        target, *others = phrases
        parse_concept(target)
        return ConceptSet(target, corefs=tuple(Related(text, certainty) for text in others))

    concepts = outcome(make)
    if concepts is not None:
        assert parse_concepts(dump_concepts(concepts), "again") == concepts
        for text in (concepts.target, *(related.text for related in concepts.corefs)):
            assert escaped(text) == text


@fuzz(120)
@given(text=mutated("answer.txt", "judgements.txt"))
def test_answers_of_language_models(text: str) -> None:
    for parse in (
        lambda: parse_proposals(text, [], target="cat"),
        lambda: parse_judgements(text, [], count=2),
    ):
        with contextlib.suppress(AnswerError):
            assert parse()


# verbs that would serve, train, or measure for long if nothing were wrong get something that is
WRONG = {
    **dict.fromkeys(("erase", "generate"), ["--device", "abacus"]),
    "bench": ["--dry-run"],
    "plan": ["--model", "./nowhere"],
    "suggest": ["--no-ground"],
}
HEAVY = {"--ground", "--debug", "--model", "--help", "--device"}
VALUES = (
    *TOKENS,
    "nowhere",
    "nowhere.yaml",
    "file.txt",
    "file.yaml",
    ".",
    "1001",
    "1e30",
    "demo",
    "openai:x",
    "local:x",
)


def flags_of(verb: str) -> list[tuple[str, bool]]:
    """The flags of a verb, and whether each takes a value."""
    group = typer.main.get_command(command_line(verb))
    params = group.commands[verb].params
    found = [(name, not getattr(p, "is_flag", False)) for p in params for name in (*p.opts, *p.secondary_opts)]
    return [(name, takes) for name, takes in found if name.startswith("--") and name not in HEAVY]


FLAGS = {verb: flags_of(verb) for verb in VERBS if verb != "web"}


@st.composite
def command_lines(draw: Callable[[Any], Any]) -> list[str]:
    verb = draw(st.sampled_from(sorted(FLAGS)))
    names = st.sampled_from(("nowhere", "file.yaml", "file.txt", "nowhere.json"))  # of files and folders, to be safe
    values = st.one_of(st.sampled_from(VALUES), st.text(max_size=8))
    line = [
        verb,
        *draw(st.lists(names | values if verb in ("erase", "show", "suggest", "generate") else names, max_size=2)),
    ]
    for name, takes in draw(st.lists(st.sampled_from(FLAGS[verb]), max_size=4)) if FLAGS[verb] else ():
        path = name in ("--out", "--cache", "--replay", "--run", "--resume", "--start-from")
        line += [name, draw(names if path else values)] if takes else [name]
    return [*line, *WRONG.get(verb, [])]


@fuzz(100)
@example(line=["show", "...\n"])
@given(line=command_lines())
def test_command_lines(place: Path, line: list[str]) -> None:
    shutil.rmtree(place)
    place.mkdir()
    os.chdir(place)
    written(place, "file.txt", "not what anybody asked for\n")
    written(place, "file.yaml", CORPUS["concepts.yaml"])
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr("sys.stdin", io.StringIO())
        code = main(line)
    printed = err.getvalue()
    assert code in (0, 2), printed
    if code == 2:
        _, error, faults = printed.partition("error: ")
        assert error, printed
        assert all(text.startswith("  ") for text in faults.splitlines()[1:]), printed
    assert "\x1b" not in out.getvalue() + printed
    for path in place.glob("*.yaml"):
        assert path.name == "file.yaml" or read_sets(path)
