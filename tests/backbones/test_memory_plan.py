"""What is counted without weights is what a loaded model has, keeps and needs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import published
import pytest
import tiny_families
import torch
from diffusers.utils import logging as diffusers_logging
from huggingface_hub.errors import EntryNotFoundError

from crce.backbones import Backbone, load_backbone
from crce.backbones.memory_count import plan_memory
from crce.backbones.memory_plan import GIB, SHARE, MemoryOptions, MemoryPlan, Workload, on_device
from crce.backbones.meta_model import MetaModel, read_meta_model
from crce.backbones.sources import PLANNED
from crce.errors import ConfigError, ModelError
from crce.training import Trainer, load_config


FAMILIES = list(tiny_families.BUILDERS)
# The others have the denoiser of one of these, with fewer text encoders or another guidance.
DENOISERS = [
    name for name in FAMILIES if name not in ("sd2", "sd3_without_t5", "flux_schnell", "flux2_klein_distilled")
]
CARDS = (8, 12, 16, 24, 48, 80)
SD15 = Workload(layers="kv", adapter="lora", rank=16, rows=9, trajectories=8)  # as the recipe has it


@pytest.fixture(scope="module", autouse=True)
def quiet() -> None:
    diffusers_logging.set_verbosity_error()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[MetaModel, Backbone]]:
    """A family as a meta and as it is loaded, once; whoever puts an adapter on it takes it off again."""
    made: dict[str, tuple[Path, Backbone]] = {}

    def both(name: str) -> tuple[MetaModel, Backbone]:
        if name not in made:
            folder = tiny_families.saved(name, tmp_path_factory.mktemp("family"))
            made[name] = folder, load_backbone(str(folder), device="cpu")
        folder, loaded = made[name]
        meta = read_meta_model(str(folder))
        if name.startswith(("flux", "qwen")):
            meta.backbone.pipe.default_sample_size = loaded.pipe.default_sample_size = 8  # it knows 128 only
        return meta, loaded

    return both


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., MemoryPlan]:
    """The plan of a model of published size; each is made once."""
    root, made = tmp_path_factory.mktemp("published"), {}

    def plan(name: str, work: Workload = SD15) -> MemoryPlan:
        if (name, work) not in made:
            folder = root / name if (root / name).exists() else published.folder(name, root)
            made[name, work] = plan_memory(read_meta_model(str(folder)), work, torch.float16)
        return made[name, work]

    return plan


# ---- against loaded models ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "adapter", "name"),
    [
        *(("kv", "lora", name) for name in FAMILIES),
        *(
            (layers, adapter, name)
            for layers, adapter in (("full", "lora"), ("xattn", "weights"))
            for name in DENOISERS
        ),
    ],
)
def test_weights_and_trained_parameters_are_those_of_the_loaded_model(tiny, cats, name, layers, adapter):
    meta, loaded = tiny(name)
    plan = plan_memory(meta, Workload(layers, adapter, rank=4, rows=9, trajectories=8), torch.float32)
    parts = {part: net for part, net in loaded.pipe.components.items() if isinstance(net, torch.nn.Module)}
    assert plan.weights.keys() == parts.keys()
    for part, net in parts.items():
        assert plan.weights[part] == sum(t.nbytes for t in (*net.parameters(), *net.buffers())), part
    small = {"pool": 1, "ddim_steps": 3, "layers": layers, "adapter": adapter, "rank": 4}
    trainer = Trainer(loaded, [cats], load_config("demo", small))
    assert plan.trained == sum(p.numel() for p in trainer.adapter.parameters())
    assert plan.adapter == 4 * 4 * plan.trained  # float32: values, gradients and both moments of Adam
    trainer.close()


@pytest.mark.parametrize("name", FAMILIES)
def test_prompts_have_the_shapes_that_the_loaded_model_encodes_them_to(tiny, name):
    meta, loaded = tiny(name)
    planned, real = meta.conditioning(2, torch.float32), loaded.encode(["a cat", "the dog"])
    if name in ("z_image", "qwen_image"):  # padded; the network is shown the tokens that count
        assert planned.hidden.shape[-1] == real.hidden.shape[-1]
        # the tiny tokenizer reads the template of Qwen-Image letter by letter
        assert planned.mask.sum() >= real.mask.sum() or name == "qwen_image"
    else:
        assert planned.hidden.shape == real.hidden.shape
        assert (planned.pooled is None) == (real.pooled is None)
        assert planned.pooled is None or planned.pooled.shape == real.pooled.shape
    assert meta.backbone.latent_shape == loaded.latent_shape


def test_the_bundled_transformer_is_counted_with_the_tokens_that_it_reads():
    planned = read_meta_model("demo-flow").conditioning(2, torch.float32)
    assert planned.hidden.shape == load_backbone("demo-flow", device="cpu").encode(["a cat", "the dog"]).hidden.shape


def kept_by_a_forward(loaded: Backbone, rows: int, shown: int, *, checkpointing: bool) -> int:
    """Bytes that autograd keeps of a real forward in float32, each storage once, without the network's own.

    With checkpointing: the inputs of its parts, and of one part what the backward pass computes again.
    """
    network = loaded.network
    own = {t.untyped_storage()._cdata for t in (*network.parameters(), *network.buffers())}
    kept: list[dict[int, torch.Tensor]] = [{}]
    again = [0]

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage()._cdata not in own:
            kept[-1][tensor.untyped_storage()._cdata] = tensor
        return tensor

    def checkpoint(part, *args):
        for value in args:
            if isinstance(value, torch.Tensor):
                pack(value)
        kept.append({})
        out = part(*args)
        again.append(size(kept.pop()))
        return out

    def size(tensors: dict[int, torch.Tensor]) -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors.values())

    cond = loaded.encode(["a cat"] * rows)
    if cond.mask is not None:
        cond.mask[:] = torch.arange(cond.mask.shape[1]) < shown
    x_t = torch.randn(rows, *loaded.latent_shape)
    if checkpointing:
        network.enable_gradient_checkpointing(checkpoint)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loaded.predict(x_t, 500.0, cond)
    network.disable_gradient_checkpointing()
    return size(kept[0]) + max(again)


@pytest.mark.parametrize("name", DENOISERS)
def test_activations_are_those_that_a_real_forward_keeps(tiny, cats, name):
    """Compared in float32 on the CPU, whose attention is a flash kernel as that of GPUs: it keeps no scores.

    What half precision changes (autocast's copies) exists on GPUs alone, and is not compared.
    """
    meta, loaded = tiny(name)
    plan = plan_memory(meta, Workload("xattn", "lora", rank=4, rows=9, trajectories=8), torch.float32)
    trainer = Trainer(loaded, [cats], load_config("demo", {"layers": "xattn", "rank": 4, "ddim_steps": 3}))
    shown = meta.conditioning(1, torch.float32).hidden.shape[1]  # tokens, of families that are shown some only
    for forward in (plan.plain, plan.checkpointed):
        for rows in (1, 3):
            real = kept_by_a_forward(loaded, rows, shown, checkpointing=forward is plan.checkpointed)
            assert forward.fixed + rows * forward.per_row == pytest.approx(real, rel=0.06)
    assert plan.checkpointed.per_row < plan.plain.per_row
    trainer.close()


# ---- which settings fit -------------------------------------------------------------------------------------------


def stored(name: str, recipe: int = 0) -> MemoryPlan:
    """A plan that comes with the package, counted by benchmarks/plan; the first has the settings of SD15."""
    fields = published.ENTRIES[name]["plans"][recipe]
    known = dict(zip(PLANNED, fields, strict=False))
    return MemoryPlan.from_json(
        replace(SD15, layers=known["layers"], adapter=known["adapter"], rank=known["rank"]), fields[-1]
    )


@pytest.mark.parametrize(
    ("name", "recipe"), [(name, i) for name, entry in published.ENTRIES.items() for i in range(len(entry["plans"]))]
)
def test_a_bigger_card_never_gets_a_slower_choice(name, recipe):
    plan = stored(name, recipe)
    order = list(plan.options())
    choices = [plan.choose(gigabytes) for gigabytes in (*CARDS, 1000)]
    ranks = [len(order) if choice is None else order.index(choice) for choice in choices]
    assert ranks == sorted(ranks, reverse=True)
    assert choices[-1] == MemoryOptions()
    for choice, gigabytes in zip(choices, CARDS, strict=False):
        assert choice is None or plan.need(choice) <= SHARE * GIB * gigabytes
    assert plan.need(plan.least()) == min(plan.need(choice) for choice in order)


def test_stable_diffusion_1_5_fits_a_card_of_8_gb(plans):
    plan = plans("sd15")
    assert plan.weights["unet"] == 2 * 859_520_964
    assert plan.weights["text_encoder"] == pytest.approx(2 * 123_060_480, rel=1e-4)
    assert plan.weights["vae"] == 2 * 83_653_863
    choice = plan.choose(8)
    assert choice is not None
    assert plan.need(choice) < SHARE * 8 * GIB < plan.need(MemoryOptions())


def test_published_sizes(plans):
    """Parameters as the models' own pages and files have them, in 16 bits."""
    sdxl, flux = plans("sdxl"), stored("flux_dev")
    assert sdxl.weights == stored("sdxl").weights
    assert sdxl.weights["unet"] == 2 * 2_567_463_684
    assert sdxl.weights["text_encoder_2"] == pytest.approx(2 * 694_659_840, rel=1e-4)
    assert flux.weights["transformer"] == pytest.approx(2 * 11.9e9, rel=0.01)
    assert flux.weights["transformer"] / GIB == pytest.approx(22.2, abs=0.1)
    assert flux.weights["text_encoder_2"] == pytest.approx(2 * 4.76e9, rel=0.01)
    assert stored("sd35_medium").weights["transformer"] == pytest.approx(2 * 2.47e9, rel=0.01)
    assert stored("z_image_turbo").weights["transformer"] == pytest.approx(2 * 6.15e9, rel=0.01)
    klein, qwen = stored("flux2_klein_4b"), stored("qwen_image")
    assert klein.weights["transformer"] == pytest.approx(2 * 3.88e9, rel=0.01)
    assert klein.weights["text_encoder"] == pytest.approx(2 * 4.02e9, rel=0.01)
    assert qwen.weights["transformer"] == pytest.approx(2 * 20.4e9, rel=0.01)
    assert qwen.weights["text_encoder"] == pytest.approx(2 * 8.29e9, rel=0.01)
    assert sdxl.choose(24) is not None
    assert flux.choose(16) is None
    assert flux.choose(80) is not None
    # One prompt of SDXL takes several times the activations of one of Stable Diffusion 1.5, at four times its pixels.
    assert 4 < sdxl.plain.per_row / plans("sd15").plain.per_row < 12


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_every_setting_of_a_choice_spares_memory(plans, name):
    plan = plans(name)
    steps = [
        MemoryOptions(),
        MemoryOptions(micro_batch=4),
        MemoryOptions(4, gradient_checkpointing=True),
        MemoryOptions(4, True, offload=True),
    ]
    needs = [plan.need(choice) for choice in steps]
    assert needs == sorted(needs, reverse=True)
    assert len(set(needs)) == len(needs)


def test_weights_are_not_offloaded_and_a_closed_form_has_one_choice(plans):
    weights = plans("sd15", Workload("kv", "weights", 16, 9, 8))
    assert not any(choice.offload for choice in weights.options())
    solved = plans("sd15", Workload("kv", "weights", 16, 9, 8, trained=False))
    assert list(solved.options()) == [MemoryOptions()]
    assert solved.adapter == weights.adapter // 4
    assert solved.steps(MemoryOptions()) == 0
    assert solved.need(MemoryOptions()) < weights.need(MemoryOptions())


def test_networks_take_turns_where_they_are_offloaded(plans):
    parts = list(plans("sdxl").weights)
    assert parts == ["unet", "text_encoder", "text_encoder_2", "vae"]
    for phase, here in (("encode", parts[1:3]), ("predict", ["unet"]), ("decode", ["vae"])):
        assert on_device(parts, phase, offload=True) == here
        assert on_device(parts, phase, offload=False) == parts


# ---- what can't be planned ----------------------------------------------------------------------------------------


def test_a_hub_model_is_read_by_its_json_files_alone(tmp_path, monkeypatch):
    folder, asked = published.folder("sd15", tmp_path), []

    def download(model: str, name: str, revision: str | None = None) -> str:
        asked.append(name)
        assert (model, revision) == ("some/model", "main")
        if not (folder / name).is_file():
            raise EntryNotFoundError(name)
        return str(folder / name)

    monkeypatch.setattr("crce.backbones.meta_model.hf_hub_download", download)
    meta = read_meta_model("some/model", revision="main")
    assert type(meta.backbone.pipe).__name__ == "StableDiffusionPipeline"
    assert all(name.endswith(".json") for name in asked)
    assert {"model_index.json", "unet/config.json", "vae/config.json"} <= set(asked)


def test_a_hub_model_without_a_network_is_one_clear_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ModelError, match="Cannot read model_index.json of 'nobody/nothing': .* the Hub can't be reached"
    ):
        read_meta_model("nobody/nothing")


def test_models_that_can_not_be_erased_from_are_refused_by_name(tmp_path):
    folder = published.folder("sd15", tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "KandinskyPipeline"}))
    with pytest.raises(ModelError, match=r"is a KandinskyPipeline\. crce erases from StableDiffusionPipeline"):
        read_meta_model(str(folder))
    (folder / "model_index.json").write_text(json.dumps(index))
    unet = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps(unet | {"in_channels": 9}))
    with pytest.raises(ModelError, match="9 input channels where its latents have 4: an inpainting"):
        read_meta_model(str(folder))
    (folder / "unet" / "config.json").unlink()
    with pytest.raises(ModelError, match="unet/config.json is missing"):
        read_meta_model(str(folder))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelError, match="a single file, which has no configs"):
        read_meta_model(str(tmp_path / "model.safetensors"))
    with pytest.raises(ModelError, match="There is no model at"):
        read_meta_model(str(tmp_path / "nowhere"))


def test_unknown_layers_are_refused(tiny):
    meta, _ = tiny("sd1")
    with pytest.raises(ConfigError):
        plan_memory(meta, Workload("strict", "lora", 4, 9, 8), torch.float32)
