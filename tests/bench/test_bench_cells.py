"""Cells of a grid, and the hash by which they are found again."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace

import pytest

from crce.bench import expand, plan_grid
from crce.bench.cells import cell_content, key_of
from crce.bench.grid import GridEvaluation
from crce.concepts import find_concepts
from crce.methods import METHODS


def test_every_combination_is_one_cell(grid):
    cells = list(expand(grid("concepts: [cat, dog]\nmethods: [esd, spm]\ncrce: [false, true]\nseeds: [0, 1, 2]\n")))
    assert len(cells) == 2 * 2 * 2 * 3
    assert Counter(cell.row for cell in cells) == dict.fromkeys(["esd", "esd+crce", "spm", "spm+crce"], 6)
    assert len({(cell.row, cell.task.name, cell.config.seed) for cell in cells}) == len(cells)
    targets = [cell.task.name for cell in cells]
    assert targets == sorted(targets)  # base pictures of a target are drawn once


def test_methods_without_random_choices_have_one_seed(grid):
    cells = list(expand(grid("concepts: [cat]\nmethods: [uce, speed, esd]\nseeds: [3, 4]\n")))
    seeds = {name: [c.config.seed for c in cells if c.name == name] for name in ("uce", "speed", "esd")}
    assert seeds == {"uce": [3], "speed": [3, 4], "esd": [3, 4]}


def test_m_and_n_cut_the_training_lists_and_mean_nothing_to_the_plain_method(grid):
    cells = list(
        expand(
            grid("concepts: [cat]\nmethods: [esd]\ncrce: [false, true]\naxes: {corefs: [0, 3, 99], retains: [2]}\n")
        )
    )
    assert [cell.row for cell in cells] == ["esd", *(f"esd+crce corefs={m} retains=2" for m in (0, 3, 99))]
    cat = find_concepts("cat")
    for cell, m in zip(cells[1:], (0, 3, len(cat.train_corefs)), strict=True):
        (concepts,) = cell.task.sets
        assert concepts.train_corefs == cat.train_corefs[:m]
        assert concepts.train_retains == cat.train_retains[:2]
        assert (cell.config.corefs_per_step, cell.config.retains_per_step) == (m, 2)
        assert concepts.held_out_corefs == cat.held_out_corefs
        assert concepts.held_out_retains == cat.held_out_retains
    assert cells[0].task.sets == (cat,)


def test_settings_of_a_method_win_over_axes(grid):
    text = "concepts: [cat]\nmethods: [esd, {method: spm, eta: 3.0, corefs_per_step: 2}]\n"
    cells = list(expand(grid(text + "axes: {eta: [1.0, 2.0], corefs: [4]}\n")))
    assert [cell.row for cell in cells] == [
        "esd+crce eta=1.0 corefs=4",
        "esd+crce eta=2.0 corefs=4",
        "spm+crce corefs=4",
    ]
    assert [cell.config.eta for cell in cells] == [1.0, 2.0, 3.0]
    assert [cell.config.corefs_per_step for cell in cells] == [4, 4, 2]


def test_the_recipe_is_the_methods_own_unless_told(grid):
    plain, paper = expand(
        grid("concepts: [cat]\nmethods: [esd, {method: esd, name: paper, recipe: paper, rank: 4}]\n")
    )
    assert (plain.config.layers, paper.config.layers) == ("noxattn", "qk")
    assert (paper.name, paper.config.rank) == ("paper", 4)


def test_lists_of_a_file_replace_the_training_phrases_alone(grid, write):
    cat = find_concepts("cat")
    kept_out = cat.held_out_corefs[0].text
    write(f"- {{target: cat, corefs: [tomcat, {kept_out}], retains: [otter]}}\n", "mine.yaml")
    plain, mine = expand(grid("concepts: [cat]\nmethods: [uce]\naxes: {lists: [own, mine.yaml]}\n"))
    assert plain.task.sets == (cat,)
    (made,) = mine.task.sets
    assert [r.text for r in made.train_corefs] == ["tomcat"]
    assert [r.text for r in made.train_retains] == ["otter"]
    assert (made.held_out_corefs, made.held_out_retains) == (cat.held_out_corefs, cat.held_out_retains)


def test_certainties_are_shuffled_or_levelled_within_each_list(grid):
    text = "concepts: [cat]\nmethods: [uce]\nseeds: [0, 1]\naxes: {certainty: [own, uniform, random]}\n"
    cells = list(expand(grid(text)))
    assert [(c.axes["certainty"], c.config.seed) for c in cells] == [
        ("own", 0),
        ("uniform", 0),
        ("random", 0),
        ("random", 1),
    ]
    cat = find_concepts("cat")
    own, *others = ([r.certainty for r in c.task.sets[0].train_corefs] for c in cells)
    assert own == [r.certainty for r in cat.train_corefs]
    assert others[0] == pytest.approx([sum(own) / len(own)] * len(own))
    assert own != others[1] != others[2]
    assert sorted(others[1]) == sorted(others[2]) == sorted(own)
    for cell in cells:
        assert [r.text for r in cell.task.sets[0].retains] == [r.text for r in cat.retains]
        assert cell.task.sets[0].held_out_corefs == cat.held_out_corefs


PLACE = {"device": "cpu", "dtype": "float32"}
JUDGE = {"name": "emoji", "version": "1", "hash": "0"}


def keys(cells, revision="a", judge=JUDGE, how=None):
    return [
        key_of(cell_content(cell, revision=revision, **PLACE, judge=judge, evaluation=asdict(how or GridEvaluation())))
        for cell in cells
    ]


def test_the_hash_is_the_same_in_every_process_and_order_of_the_file(grid, write):
    text = "concepts: [cat]\nmethods: [{method: esd, steps: 9, eta: 2}]\n"
    one = keys(expand(grid(text)))
    assert one == keys(expand(grid("methods: [{eta: 2.0, steps: 9, method: esd, name: other}]\nconcepts: [CAT]\n")))
    code = (
        "from crce.bench import expand, read_grid; from crce.bench.cells import cell_content, key_of\n"
        "from dataclasses import asdict; from crce.bench.grid import GridEvaluation\n"
        f"pinned = dict({PLACE}, revision='a', judge={JUDGE}, evaluation=asdict(GridEvaluation()))\n"
        f"print(*(key_of(cell_content(cell, **pinned)) for cell in expand(read_grid({str(write(text))!r}))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == one


def test_all_that_decides_numbers_changes_the_hash(grid):
    def cells(text):
        return list(expand(grid(text)))

    plain = cells("concepts: [cat]\nmethods: [esd]\n")
    found = keys(plain)
    for text in (
        "concepts: [dog]\nmethods: [esd]\n",
        "concepts: [cat]\nmethods: [spm]\n",
        "concepts: [cat]\nmethods: [{method: esd, steps: 9}]\n",
        "concepts: [cat]\nmethods: [esd]\ncrce: false\n",
        "concepts: [cat]\nmethods: [esd]\nseeds: [1]\n",
        "concepts: [cat]\nmethods: [esd]\naxes: {corefs: [2]}\n",
    ):
        found += keys(cells(text))
    found += keys(plain, revision="b")
    found += keys(plain, judge={**JUDGE, "hash": "1"})
    found += keys(plain, how=GridEvaluation(images_per_prompt=9))
    assert len(set(found)) == len(found) == 10


def test_only_the_cells_of_a_method_that_was_changed_are_measured_anew(grid, monkeypatch):
    both = list(expand(grid("concepts: [cat]\nmethods: [esd, uce]\ncrce: true\n")))
    before = keys(both)
    monkeypatch.setitem(METHODS._own, "uce", replace(METHODS["uce"], results=7))
    after = keys(both)
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_cells_that_come_to_the_same_share_a_job(tmp_path, grid):
    plan = plan_grid(grid("concepts: [cat]\nmethods: [uce]\naxes: {corefs: [3, 50, 60]}\n"), cache=tmp_path)
    assert len(plan.jobs) == 3
    assert len(plan.distinct) == 2
    assert plan.jobs[1].folder == plan.jobs[2].folder


def test_styles_are_pinned_to_the_judge_of_styles(tmp_path, grid):
    plan = plan_grid(grid("concepts: [cat, noto style]\nmethods: [uce]\n"), cache=tmp_path)
    assert [job.content["judge"]["name"] for job in plan.jobs] == ["emoji", "emoji-style"]


def test_an_axis_of_one_method_means_nothing_to_others(grid):
    cells = expand(grid("concepts: [cat]\nmethods: [esd, spm]\naxes: {spm_states: [2, 4]}\n"))
    assert [cell.row for cell in cells] == ["esd+crce", "spm+crce spm_states=2", "spm+crce spm_states=4"]


def test_rows_of_models_that_differ_in_their_numbers_have_names_of_their_own(grid):
    text = "concepts: [cat]\nmethods: [uce]\nmodels: [{model: demo, dtype: float32}, {model: demo, dtype: bfloat16}]\n"
    assert len({cell.row for cell in expand(grid(text)) if cell.config.crce}) == 2
