"""Killed, doubled and cramped verbs go on to the end that they have undisturbed."""

from __future__ import annotations

import os

import pytest
from crash import Crashes


pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are killed in children made by fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def crashes(demo_backbone, tmp_path_factory) -> Crashes:
    return Crashes(tmp_path_factory.mktemp("crashes"), demo_backbone)


# Every verb and every trouble: refine kill, attack full disk, export twice, erase full disk, erase kill, evaluate
# kill at a time, bench kill.
@pytest.mark.parametrize("seed", [118544, 118545, 118546, 118548, 118550, 118552, 118554])
def test_a_disturbed_verb_ends_as_an_undisturbed_one(crashes, seed):
    """More of them: python tests/crash/crash.py 500"""
    crashes.case(seed)
