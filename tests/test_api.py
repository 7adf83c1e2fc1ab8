"""The Python face: what `import crce` offers, and what it costs."""

from __future__ import annotations

import doctest
import importlib
import inspect
import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

import crce
from crce.concepts import find_concepts, write_concepts
from crce.config import load_config
from crce.errors import ConceptError, ConfigError


FUNCTIONS = ("suggest", "erase", "generate", "evaluate", "attack", "export")
HEAVY = ("torch", "pydantic", "yaml", "numpy", "transformers", "diffusers", "typer", "rich")


pytestmark = pytest.mark.usefixtures("few_unrelated_prompts")


def python(code: str) -> str:
    source = str(Path(crce.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {source!r})\n{code}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# What each of these must not import; one after the other in one process.
STARTS = {
    "from crce.concepts import find_concepts; find_concepts('cat')": ("torch", "transformers", "diffusers", "numpy"),
    "import crce.methods, crce.config\n"
    "for name in crce.methods.METHODS: crce.config.load_config(None, {'method': name})": (
        "torch",
        "transformers",
        "diffusers",
        "scipy",
    ),
    "from crce.cli.main import main; assert main(['bench', '--help']) == main(['suggest', '--help']) == 0": (
        "torch",
        "transformers",
        "scipy",
        "ray",
    ),
    "from crce.llm import protocol, services, local_chat, service": ("torch", "openai", "anthropic", "llguidance"),
    "import crce.suggest.llm, crce.suggest.verification, crce.suggest.prompts": ("openai", "nltk", "json_repair"),
    "import crce.suggest.wordnet; assert crce.suggest.wordnet.load_wordnet.cache_info().currsize == 0": ("nltk",),
    "import crce.demo.embedding": ("torch", "transformers"),
    "import crce.suggest, importlib, pkgutil\n"
    "for m in pkgutil.iter_modules(crce.suggest.__path__): importlib.import_module('crce.suggest.' + m.name)": (
        "torch",
        "transformers",
        "diffusers",
        "openai",
        "anthropic",
        "nltk",
        "sklearn",
    ),
    "import crce.evaluate": ("torch",),
    "import crce.web.app": ("torch", "diffusers", "transformers"),
}


def test_packages_start_without_the_heavy_libraries():
    lines = [f"{code}\nseen += [({code!r}, m) for m in {heavy} if m in sys.modules]" for code, heavy in STARTS.items()]
    assert python("\n".join(["seen = []", *lines, "print(seen)"])).splitlines()[-1] == "[]"


def test_importing_crce_imports_no_other_library():
    loaded = f"[name for name in {HEAVY} if name in sys.modules]"
    assert python(f"import crce; sys.stdout.write(str({loaded}))") == "[]"


@pytest.mark.parametrize("order", [("", ".part"), (".part", ""), ("", ".call", ".part")], ids=" ".join)
def test_a_package_is_called_like_its_function_in_whatever_order_things_are_imported(order, tmp_path, monkeypatch):
    (tmp_path / "call").mkdir()
    lines = [
        "from typing import TYPE_CHECKING",
        "from crce.lazy import lazy_names, make_callable",
        "if TYPE_CHECKING:",
        "    from call.part import call",
        "__getattr__ = lazy_names(__name__)",
    ]
    (tmp_path / "call" / "__init__.py").write_text("\n".join([*lines, "make_callable(__name__)"]))
    (tmp_path / "call" / "part.py").write_text("def call(x: int) -> int:\n    return x + 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("call", "call.part"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in order:
        if name == ".call":
            assert sys.modules["call"].call(1) == 2
        else:
            importlib.import_module(f"call{name}")
    package = sys.modules["call"]
    assert package(1) == package.call(1) == package.part.call(1) == 2
    assert list(inspect.signature(package).parameters) == ["x"]


@pytest.mark.parametrize("name", ["suggest", "evaluate", "export"])
def test_the_packages_of_the_name_of_a_function_are_called_like_it(name):
    package = importlib.import_module(f"crce.{name}")
    assert getattr(crce, name) is package
    assert inspect.isfunction(getattr(package, name))
    assert callable(package)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_has_the_signature_and_the_annotations_of_its_own(name):
    function = getattr(crce, name)
    signature = inspect.signature(function)
    assert len(signature.parameters) > 3
    assert all(p.annotation is not p.empty for p in signature.parameters.values())
    if inspect.ismodule(function):
        assert signature == inspect.signature(getattr(function, name))


def test_the_package_says_that_it_is_typed():
    assert (resources.files("crce") / "py.typed").is_file()
    assert {*FUNCTIONS, "__version__"} == set(crce.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'forget'"):
        crce.forget  # noqa: B018


def test_the_examples_of_the_docstrings_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for name in FUNCTIONS:
        function = getattr(crce, name)
        function = getattr(function, name) if inspect.ismodule(function) else function
        found = doctest.DocTestFinder(recurse=False).find(function, name, globs={})
        assert [example for test in found for example in test.examples], name
        for test in found:
            assert runner.run(test).failed == 0


def test_a_name_a_file_and_a_set_are_one_to_erase(demo_backbone, tmp_path):
    cat = find_concepts("cat")
    write_concepts(tmp_path / "cat.yaml", cat)
    for name, given in {"name": "cat", "file": str(tmp_path / "cat.yaml"), "path": tmp_path / "cat.yaml"}.items():
        run = crce.erase(given, method="uce", backbone=demo_backbone, out=tmp_path / name)
        assert [[c.text for c in side] for side in (run.concepts.corefs, run.concepts.retains)] == [
            [c.text for c in side] for side in (cat.corefs, cat.retains)
        ]
    assert crce.erase(cat, method="uce", backbone=demo_backbone, out=tmp_path / "set").sets == (cat,)


def test_several_concepts_are_erased_at_once_and_a_suggested_one_keeps_its_record(demo_backbone, tmp_path):
    run = crce.erase([find_concepts("cat"), "walrus"], method="uce", backbone=demo_backbone, out=tmp_path / "run")
    assert [concepts.target for concepts in run.sets] == ["cat", "walrus"]
    record = json.loads((tmp_path / "run" / "suggest.json").read_text(encoding="utf-8"))
    assert record["request"]["target"] == "walrus"
    again = crce.erase("dog", method="uce", backbone=demo_backbone, start_from=run.folder, out=tmp_path / "again")
    assert [concepts.target for concepts in again.sets] == ["dog", "cat", "walrus"]


def test_settings_are_checked_before_anything_is_loaded(tmp_path):
    with pytest.raises(ConfigError, match="unknown setting 'stepps', did you mean steps"):
        crce.erase("cat", stepps=3)
    with pytest.raises(ConfigError, match="steps can't be set beside a config that is complete"):
        crce.erase("cat", config=load_config("demo"), steps=3)
    with pytest.raises(ConceptError, match="Did you mean 'cat'"):
        crce.erase("catt", model="nowhere")


def test_a_set_is_suggested_again_by_its_target(tmp_path):
    cat = find_concepts("cat")
    write_concepts(tmp_path / "cat.yaml", cat)
    quick = {"suggester": "wordnet", "corefs": 2, "retains": 2, "held_out": 0}
    sets = [crce.suggest(one, **quick).concepts for one in ("cat", cat, tmp_path / "cat.yaml")]
    assert sets[0] == sets[1] == sets[2]
    assert sets[0].kind == cat.kind


def test_generate_gives_the_images_of_each_prompt_by_seed(demo_backbone):
    done = []
    samples = crce.generate(["a cat", "a dog"], n=2, seed=5, steps=1, on_image=lambda *count: done.append(count))
    assert [(s.prompt, s.seed) for s in samples] == [("a cat", 5), ("a cat", 6), ("a dog", 5), ("a dog", 6)]
    assert all(s.before is None and s.image is not None for s in samples)
    assert done[-1] == (4, 4)
    with pytest.raises(ConfigError, match="n is 0"):
        crce.generate("a cat", n=0)
    with pytest.raises(ConfigError, match="no prompt"):
        crce.generate([])
