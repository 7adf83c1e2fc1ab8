"""The file of a benchmark: what it may hold, and that all of its faults are told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crce.bench import expand, read_grid
from crce.concepts import atlas, read_sets
from crce.errors import ConfigError


ROOT = Path(__file__).parents[2]
GRIDS = ROOT / "benchmarks" / "erasure"


def test_the_shortest_file(grid):
    found = grid("concepts: cat\nmethods: esd\n")
    assert [task.name for task in found.tasks] == ["cat"]
    assert [entry.name for entry in found.methods] == ["esd"]
    assert (found.seeds, found.name, found.methods[0].crce) == ((0,), "grid", (True,))


def test_concepts_by_name_kind_and_file(grid, write):
    write("- {target: yak, retains: [cow]}\n- {target: gnu, retains: [cow]}\n", "sets.yaml")
    found = grid("concepts: [cat, {kind: explicit}, sets.yaml]\nmethods: [esd]\n")
    explicit = [c.target for c in atlas().values() if c.kind == "explicit"]
    assert explicit
    assert [task.name for task in found.tasks] == ["cat", *explicit, "yak", "gnu"]
    assert [task.name for task in grid("concepts: [sets.yaml#gnu]\nmethods: [esd]\n").tasks] == ["gnu"]


def test_several_targets_are_one_cell_or_follow_one_another(grid):
    text = "concepts: [cat, {together: [cat, dog], name: both}, {in_turn: [dog, car]}]\nmethods: [uce]\n"
    tasks = grid(text).tasks
    assert [task.name for task in tasks] == ["cat", "both", "2 in turn"]
    assert [[c.target for c in task.sets] for task in tasks] == [["cat"], ["cat", "dog"], ["dog", "car"]]
    assert [task.in_turn for task in tasks] == [False, False, True]


def test_attacks_are_names_or_have_settings(grid):
    found = grid("concepts: [cat]\nmethods: [uce]\nattacks: [typo, {attack: p4d, budget: 9, phrases: 1}]\n").attacks
    assert [(a.attack, a.budget, a.phrases) for a in found] == [("typo", None, 3), ("p4d", 9, 1)]


def test_all_faults_are_told_with_their_lines(write):
    path = write(
        "concepts: [cat, cta, {kind: stlye}, missing.yaml, cat]\n"
        "methods:\n"
        "  - ecd\n"
        "  - {method: uce, stps: 3}\n"
        "  - {method: esd, recipe: fast}\n"
        "  - {method: rece, crce: maybe}\n"
        "seeds: [0, 0, -1]\n"
        "axis: 3\n"
        "axes: {corefs: [0, a], rnk: [3], eta: []}\n"
        "evaluate: {images_per_promt: 3, steps: 0, guidance: x}\n"
        "compare: [[esd, uce], esd]\n"
    )
    with pytest.raises(ConfigError) as raised:
        read_grid(path)
    told = str(raised.value).split("\n  ")
    wanted = [
        (1, "'cta'", "'cat'"),
        (1, "'cat' is given twice"),
        (1, "'stlye'", "'style'"),
        (1, "missing.yaml"),
        (3, "'ecd'", "'esd'"),
        (4, "'stps'", "'steps'"),
        (5, "'fast'", "paper"),
        (6, "'maybe'", "[false, true]"),
        (7, "0 is listed twice"),
        (7, "seed is -1"),
        (8, "'axis'", "'axes'"),
        (9, "corefs is 'a'"),
        (9, "'rnk'", "'rank'"),
        (9, "eta is empty"),
        (10, "'images_per_promt'", "'images_per_prompt'"),
        (10, "steps is 0"),
        (10, "guidance is 'x'"),
        (11, "compare takes pairs"),
    ]
    assert told[0] == f"grid.yaml has {len(wanted)} faults:"
    for line, *words in wanted:
        assert any(text.startswith(f"grid.yaml:{line}: ") and all(w in text for w in words) for text in told), words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("concepts: [cat]\nmethods: [{method: rece, steps: 3}]\n", ["grid.yaml:2", "rece", "steps: 1"]),
        ("concepts: [cat]\nmethods: [esd]\naxes: {rank: [0, 4]}\n", ["rank is 0"]),
        (
            "concepts: [cat]\nmethods: [esd]\ncompare: [[esd+crc, esd+crce]]\n",
            ["grid.yaml:3", "esd+crc'", "'esd+crce'"],
        ),
        ("concepts: [cat]\nmethods: [esd, {method: esd, steps: 9}]\n", ["two methods", "'esd'", "name"]),
        ("methods: [esd]\n", ["concepts is missing"]),
        ("concepts: []\nmethods: [esd]\n", ["concepts is empty"]),
        ("concepts: [cat]\nmethods: [esd]\ncrce: []\n", ["grid.yaml:3", "crce is empty"]),
        ("concepts: [cat]\nmethods: [esd]\nseeds: []\n", ["grid.yaml:3", "seeds is empty"]),
        ("concepts: [cat]\nmethods: [esd]\nmodels: []\n", ["grid.yaml:3", "models is empty"]),
        ("concepts: [cat]\nmethods: [{method: esd, crce: []}]\n", ["grid.yaml:2", "crce is empty"]),
        ("- cat\n", ["key: value"]),
        ("", ["concepts is missing", "methods is missing"]),
        ("concepts: [cat\n", ["not valid YAML"]),
        ("concepts: [cat]\nconcepts: [dog]\nmethods: [esd]\n", ["key 'concepts' is given twice"]),
        ("concepts: [cat]\nmethods: [esd]\nmodels: [{revision: main}]\n", ["model is missing"]),
        ("concepts: [{together: [cat]}]\nmethods: [esd]\n", ["together takes two targets"]),
        ("concepts: [{in_turn: [cat, dog], together: [cat, dog]}]\nmethods: [esd]\n", ["Keep one of the two"]),
        ("concepts: [cat]\nmethods: [esd]\nattacks: [tpyo]\n", ["'tpyo'", "'typo'"]),
        ("concepts: [cat]\nmethods: [esd]\nattacks: [{attack: typo, budget: 0}]\n", ["budget is 0"]),
        ("concepts: [cat]\nmethods: [esd]\nattacks: [typo, {attack: typo, seed: 1}]\n", ["'typo' is listed twice"]),
        ("concepts: [cat]\nmethods: [esd]\naxes: {certainty: [unifrom]}\n", ["'unifrom'", "'uniform'"]),
        ("concepts: [cat]\nmethods: [esd]\naxes: {lists: [own, 3]}\n", ["lists is 3"]),
        ("concepts: [cat]\nmethods: [esd]\naxes: {lists: [none.yaml]}\n", ["none.yaml"]),
        ("concepts: [cat]\nmethods: [esd]\nevaluate: {threshold: 2}\n", ["threshold is 2"]),
        ("concepts: [cat]\nmethods: [esd]\nevaluate: {quality: 1}\n", ["quality is 1"]),
        ("concepts: [cat]\nmethods: [esd]\nseeds: [!!python/object 3]\n", ["not valid YAML"]),
        ("concepts: [{together: [cat, dog], name: [a]}]\nmethods: [esd]\n", ["grid.yaml:1", "name is a list"]),
        ('concepts: [{together: [cat, dog], name: " "}]\nmethods: [esd]\n', ["name is empty"]),
        ('concepts: [cat]\nmethods: [{method: esd, name: "\\u202e"}]\n', ["name", "invisible character"]),
        ("concepts: [cat]\nmethods: [{method: esd, scenes: [{a: 1, a: 2}]}]\n", ["key 'a' is given twice"]),
        (f"concepts: [cat]\nmethods: [esd]\nseeds: [{'9' * 23}]\n", ["seed is 999", "9223372036854775807"]),
        ("concepts: [cat]\nmethods: [{method: esd, alpha: .inf}]\n", ["alpha is inf"]),
        ("concepts: [cat]\nmethods: [esd]\nevaluate: {guidance: .nan}\n", ["guidance is nan"]),
        ("concepts: [cat]\nmethods: [esd]\nevaluate: {steps: 1001}\n", ["steps is 1001"]),
    ],
)
def test_faults(write, text, words):
    with pytest.raises(ConfigError) as raised:
        read_grid(write(text))
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize("file", sorted(GRIDS.glob("*.yaml")), ids=lambda file: file.stem)
def test_grids_of_the_repository_can_be_read(file):
    if file.name == "entangled_sets.yaml":
        assert {c.target for c in read_sets(file)} == {"wolf", "fox", "taxi", "leopard"}
    else:
        cells = list(expand(read_grid(file)))
        known = re.search(rf"`{file.name}` \| (\d+) ", (ROOT / "docs" / "bench.md").read_text(encoding="utf-8"))
        assert len(cells) == int(known.group(1))


def test_the_example_of_the_document_can_be_read(write):
    text = re.search(r"```yaml\n(.*?)```", (ROOT / "docs" / "bench.md").read_text(encoding="utf-8"), re.DOTALL).group(
        1
    )
    write("- {target: yak}\n- {target: gnu}\n", "my-sets.yaml")
    write("- {target: wolf}\n", "more-sets.yaml")
    found = read_grid(write(text))
    assert {"yak", "gnu", "wolf"} < {task.name for task in found.tasks}


def test_a_missing_file_names_the_nearest(write):
    write("", "quick.yaml")
    with pytest.raises(ConfigError, match=r"quik\.yaml.*'quick\.yaml'"):
        read_grid(write("").with_name("quik.yaml"))


def test_the_grid_for_stable_diffusion_takes_the_published_files(write, tmp_path):
    text = (ROOT / "benchmarks" / "sd14" / "corefconcept.yaml").read_text(encoding="utf-8")
    for name, target in (("object", "cat"), ("ip", "Batman"), ("celebrity", "Tom Hanks")):
        entry = f'{{"type": "{name}", "concept": "{target}", "train-coref": ["x {name}"], "train-retain": ["dog"]}}'
        write(f'{{"{name}": [{entry}]}}', f"{name}.json")
    found = read_grid(write(text))
    assert [(task.name, task.kind) for task in found.tasks] == [
        ("cat", "object"),
        ("Batman", "character"),
        ("Tom Hanks", "person"),
    ]
    assert len(list(expand(found))) == 3 * len(found.methods) * 2


def test_a_recipe_that_is_none_is_named(grid, tmp_path):
    (tmp_path / "listed.yaml").write_text("- steps: 3\n")
    with pytest.raises(ConfigError, match="there is no recipe 5"):
        grid("concepts: [cat]\nmethods: [{method: esd, recipe: 5}]\n")
    with pytest.raises(ConfigError, match="must be a list of"):
        grid("concepts: [cat]\nmethods: [{method: esd, recipe: listed.yaml}]\n")
