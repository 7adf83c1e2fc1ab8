"""`crce plan`, and the example in docs/backbones.md."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import published
import pytest

from crce.backbones.families import FAMILIES
from crce.backbones.memory_plan import GIB, SHARE
from crce.backbones.scopes import SCOPES
from crce.evaluate.observe import concept_set_questions
from crce.evaluate.settings import ConceptSetSettings
from crce.training import Erasure


DOCS = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    return {name: published.folder(name, root) for name in ("sd15", "sdxl")}


def cards(crce, *arguments):
    result = crce("plan", *arguments, "--json")
    assert result.code == 0, result.err
    return {card["gigabytes"]: card for card in json.loads(result.out)["cards"]}


def test_the_demo_is_planned_by_itself(crce):
    result = crce("plan")
    assert (result.code, result.err) == (0, "")
    assert "StableDiffusionPipeline in float16" in result.out
    for line in ("unet", "text_encoder", "vae", "adapter, its gradients and Adam", "activations", "peak", "8 GB"):
        assert line in result.out


def test_a_row_for_each_of_the_usual_cards_or_one_for_yours(crce, folders):
    usual = cards(crce, "--model", folders["sd15"])
    assert list(usual) == [8, 12, 16, 24, 48, 80]
    assert usual[80]["flags"] == []
    assert usual[8]["flags"] == ["--micro-batch", "4"]
    assert list(cards(crce, "--vram", "11.5")) == [11.5]


def test_four_bits_are_suggested_where_nothing_else_fits(crce):
    flux = ["--model", "black-forest-labs/FLUX.1-dev"]
    facts = json.loads(crce("plan", *flux, "--json").out)
    cards = {card["gigabytes"]: card for card in facts["cards"]}
    assert cards[16]["flags"][:2] == ["--quantize", "nf4"]
    assert "--quantize nf4" in cards[16]["command"]
    assert cards[16]["peak"] <= SHARE * 16 * GIB < facts["bytes"]["weights"]["transformer"]
    assert "--quantize" not in cards[80]["flags"]
    # the encoders go before the denoiser comes, where networks take turns
    assert "--offload" in cards[12]["flags"]
    assert cards[12]["system"] < 0.3 * facts["bytes"]["system"]
    assert facts["bytes"]["disk"] == sum(facts["bytes"]["weights"].values())
    asked = json.loads(crce("plan", *flux, "--quantize", "nf4", "--vram", "16", "--json").out)
    assert asked["bytes"]["weights"]["transformer"] < 0.3 * facts["bytes"]["weights"]["transformer"]
    assert asked["cards"][0]["peak"] == cards[16]["peak"]
    assert asked["cards"][0]["flags"] == cards[16]["flags"][2:]


def test_stable_diffusion_3_is_planned_without_t5(crce):
    model = ["--model", "stabilityai/stable-diffusion-3.5-medium", "--vram", "12"]
    whole, without = (json.loads(crce("plan", *model, *own, "--json").out) for own in ([], ["--drop-t5"]))
    assert without["bytes"]["weights"].keys() == whole["bytes"]["weights"].keys() - {"text_encoder_3"}
    assert " --drop-t5" in without["cards"][0]["command"]
    refused = crce("plan", "--model", "black-forest-labs/FLUX.1-dev", "--drop-t5")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "drop_t5 is for Stable Diffusion 3 and 3.5" in refused.err


def test_a_closed_form_on_a_large_model_is_planned_by_what_it_reads_of_it(crce):
    facts = json.loads(crce("plan", "--model", "black-forest-labs/FLUX.1-dev", "--config", "uce", "--json").out)
    assert facts["trained_layers"] == 2
    assert facts["trained_parameters"] == 3072 * (4096 + 1) + 3072 * (768 + 1)
    sizes = facts["bytes"]
    encoders = sum(size for name, size in sizes["weights"].items() if name.startswith("text_encoder"))
    assert encoders + 2 * GIB <= sizes["text_side"] < encoders + 3 * GIB < sizes["weights"]["transformer"]


@pytest.mark.parametrize("name", published.MODELS)
def test_well_known_models_are_planned_at_once_and_as_their_configs_are(crce, folders, tmp_path, name, monkeypatch):
    """Nothing is built for them. The numbers are those of their configs (each family's by benchmarks/plan)."""
    with monkeypatch.context() as patched:
        patched.setattr("crce.backbones.meta_model.read_meta_model", None)
        known = [json.loads(crce("plan", "--model", id, "--json").out) for id in published.ENTRIES[name]["models"]]
    assert all(facts["pipeline"] == published.MODELS[name][0] for facts in known)
    if name == "sd15":
        counted = json.loads(crce("plan", "--model", folders[name], "--json").out)
        for own in (part for facts in (*known, counted) for part in (facts, *facts["cards"])):
            own.pop("model", None), own.pop("command", None)
        assert known == 3 * [counted]


def test_a_known_model_needs_no_network_with_other_settings_either(crce):
    own = cards(crce, "--model", "stable-diffusion-v1-5/stable-diffusion-v1-5", "--target-modules", "to_q,to_out.0")
    assert own[80]["command"].endswith("--target-modules to_q,to_out.0")


def test_refusals_import_nothing_large():
    code = (
        "import sys\nfrom crce.cli.main import main\n"
        "wrong = ['--model', '/nowhere/model'], ['--dtype', 'int8'], ['--layers', 'x']\n"
        "codes = [main(['plan', *words]) for words in wrong]\n"
        "codes.append(main(['erase', 'cat', '--model', '/nowhere/model']))\n"
        "print(codes, [m for m in ('torch', 'diffusers', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[2, 2, 2, 2] []"


def test_the_steps_and_images_of_a_run_are_those_it_takes(crce, tmp_path, monkeypatch):
    """Of the bundled model, whose run is short here. The time is that of a trial; how long is not asserted."""
    monkeypatch.setattr("crce.sampling.generate.batch_size", lambda pipe: 2)  # images of the trial
    (tmp_path / "cat.yaml").write_text("target: cat\ncorefs: [kitty]\nretains: [dog, {text: fox, held_out: true}]\n")
    (tmp_path / "short.yaml").write_text("method: esd\nsteps: 3\ncorefs_per_step: 1\nretains_per_step: 1\npool: 2\n")
    own = [tmp_path / "cat.yaml", "--config", tmp_path / "short.yaml"]
    run = json.loads(crce("plan", *own, "--time", "--json").out)["run"]
    assert (run["steps"], run["targets"]) == (3, ["cat"])
    assert min(run["seconds"][name] for name in ("loading", "steps", "images")) > 0
    (erased,) = [path for path in [tmp_path / "run"] if crce("erase", *own, "--no-eval", "--out", path).code == 0]
    questions, plan, _ = concept_set_questions(Erasure.load(erased), ConceptSetSettings())
    texts = {prompt.text for own in questions for prompt in own.prompts}
    own = sum(len(plan.own_seeds.get(text, plan.seeds)) for text in texts)
    assert run["images"] == 2 * own + len(texts) * len(plan.probe_seeds)


@pytest.mark.parametrize("gigabytes", [4, 8])
def test_crce_erase_takes_the_flags_that_are_printed(crce, folders, gigabytes):
    given = ["--layers", "xattn", "--rank", "4", "--dtype", "bfloat16"]
    result = crce("plan", "--model", folders["sd15"], "--vram", gigabytes, *given)
    assert result.code == 0
    command = shlex.split(result.out.splitlines()[-1])
    assert command[:5] == ["crce", "erase", "CONCEPT", "--model", str(folders["sd15"])]
    assert {"--layers", "--rank", "--dtype"} < set(command)
    done = crce("erase", "cat", *command[3:], "--device", "cpu")  # ends where it looks for the weights
    assert done.code == 2
    assert f"Cannot load the model '{folders['sd15']}'" in done.err


def test_what_a_recipe_sets_already_is_not_said_again(crce, folders, tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("method: esd\nlayers: kv\nmicro_batch: 4\ngradient_checkpointing: true\n")
    small = cards(crce, "--model", folders["sd15"], "--config", recipe, "--vram", 8)[8]
    assert small["flags"] == ["--no-gradient-checkpointing"]
    assert f"--config {recipe}" in small["command"]


def test_settings_decide_the_memory(crce):
    def peak(*arguments):
        return cards(crce, "--vram", 80, *arguments)[80]["peak"]

    own = peak()
    assert peak("--rank", 64) > own
    assert peak("--corefs-per-step", 2, "--retains-per-step", 2) < own
    assert peak("--adapter", "weights") > own
    assert peak("--dtype", "float32") > own
    assert peak("--config", "uce") < own  # no activations are kept


def test_a_step_of_gem_takes_its_prompts_at_all_its_early_x_t(crce):
    model = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    facts = json.loads(crce("plan", "--model", model, "--config", "gem", "--json").out)
    assert facts["prompts_per_step"] == 10 * (1 + 5 + 5)


def test_a_card_that_is_too_small_is_told_what_is_missing(crce):
    large = ["--layers", "full", "--adapter", "weights", "--dtype", "float32"]
    result = crce("plan", "--vram", 1, *large)
    assert result.code == 0
    assert "does not fit" in result.out
    assert "crce erase CONCEPT" not in result.out
    card = cards(crce, "--vram", 1, *large)[1]
    assert (card["fits"], card["flags"], card["command"]) == (False, None, None)
    assert card["peak"] > SHARE * 2**30


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "/nowhere/model"], "There is no model at /nowhere/model"),
        (["--dtype", "int8"], "dtype is 'int8'"),
        (["--layers", "strict"], "layers is 'strict'"),
        (["--vram", "0"], "Invalid value for '--vram'"),
        (["--config", "advunlearn"], "advunlearn trains the text encoder"),
    ],
)
def test_what_can_not_be_planned_is_one_line(crce, arguments, says):
    result = crce("plan", *arguments)
    assert (result.code, result.out) == (2, "")
    assert says in result.err
    assert len(result.err.splitlines()) == 1


def test_another_pipeline_is_refused_by_its_class(crce, tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "KandinskyPipeline"}))
    result = crce("plan", "--model", tmp_path)
    assert result.code == 2
    assert "is a KandinskyPipeline" in result.err


# ---- docs/backbones.md --------------------------------------------------------------------------------------------


def test_the_example_of_the_documents_is_what_is_printed(crce, folders, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("crce.evaluate.prompt_sets.concept_set.UNRELATED_PROMPTS", 6)  # which these tests shorten
    example = re.search(r"```text\n(.*?)```", DOCS, re.DOTALL).group(1)
    assert crce("plan", "--model", folders["sdxl"]).out == example


def test_the_documents_name_every_family_and_preset():
    for name in FAMILIES:
        assert f"`{name}`" in DOCS
    for scope in SCOPES:
        assert f"| `{scope}` |" in DOCS
