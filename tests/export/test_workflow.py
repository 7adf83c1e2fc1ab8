"""The workflow beside a kohya file: a whole graph, of the nodes of ComfyUI's core, with the run's own sampling."""

from __future__ import annotations

import json

import pytest
import tiny_families
from runs import make_run

from crce.concepts import ConceptSet
from crce.export import check, export


NODES = {  # the nodes' inputs, as ComfyUI's nodes.py and comfy_extras/nodes_sd3.py have them, and their outputs
    "CheckpointLoaderSimple": ({"ckpt_name"}, 3),
    "LoraLoaderModelOnly": ({"model", "lora_name", "strength_model"}, 1),
    "CLIPTextEncode": ({"clip", "text"}, 1),
    "EmptyLatentImage": ({"width", "height", "batch_size"}, 1),
    "EmptySD3LatentImage": ({"width", "height", "batch_size"}, 1),
    "KSampler": (
        {
            "model",
            "positive",
            "negative",
            "latent_image",
            "seed",
            "steps",
            "cfg",
            "sampler_name",
            "scheduler",
            "denoise",
        },
        1,
    ),
    "VAEDecode": ({"samples", "vae"}, 1),
    "SaveImage": ({"images", "filename_prefix"}, 0),
}


@pytest.mark.parametrize(
    ("family", "name", "steps", "cfg"), [("sd1", "my-model", 50, 7.5), ("flux_schnell", "tiny-schnell", 4, 1.0)]
)
def test_the_graph_is_whole_and_samples_as_the_run_does(tmp_path, family, name, steps, cfg):
    folder = tiny_families.saved(family, tmp_path).rename(tmp_path / name)
    erasure = make_run(tmp_path / "run", str(folder), [ConceptSet("cat")], rank=2)
    done = export(erasure, "kohya")
    graph = json.loads(done.path.with_name(f"{done.path.stem}-comfyui.json").read_text())
    for node in graph.values():
        inputs, _ = NODES[node["class_type"]]
        assert set(node["inputs"]) == inputs
        for value in node["inputs"].values():
            if isinstance(value, list):
                source, output = value
                assert output < NODES[graph[source]["class_type"]][1]
    assert graph["lora"]["inputs"]["lora_name"] == done.path.name
    before, after = (graph[f"draw_{when}"]["inputs"] for when in ("before", "after"))
    assert before == after | {"model": ["base", 0]}
    assert (before["steps"], before["cfg"]) == (steps, cfg)
    assert name in graph["base"]["inputs"]["ckpt_name"]
    assert any("is a ComfyUI workflow" in note for note in done.notes)


def test_the_bundled_model_has_none_and_check_says_who_reads_it(tmp_path):
    erasure = make_run(tmp_path / "run", "demo", [ConceptSet("cat")], rank=2)
    done = export(erasure, "kohya")
    assert not list(done.path.parent.glob("*.json"))
    assert check(done.path).readers == ["diffusers"]
