"""Every method that fits the bundled flow transformer, plain and with CRCE: does what is not erased collapse?

    python benchmarks/erasure/flow.py

writes flow.json beside this file: rows as methods.py makes them, with the layers (`scope`) and the share of unrelated
concepts that were kept. ESD trains several sets of layers; those that text and image share are trained as they are,
and with the change kept to the tokens of the text. Rows already there are kept, so a run that was stopped goes on
where it was.
"""

from __future__ import annotations

from pathlib import Path

from foundation import flags, measure_all

from crce.methods import METHODS
from crce.training import load_config


MODEL = "demo-flow"
TARGETS = (  # of each the model draws a coref that is held out
    "cat",
    "dog",
    "car",
    "airplane",
    "bird",
    "ship",
    "horse",
    "frog",
    "santa claus",
    "robot",
    "princess",
    "rose",
)
SCOPES = {
    "text": {"layers": "text"},
    # these and the keys and values of the single-stream blocks, which text and image share
    "shared": {"target_modules": r"transformer_blocks\.\d+\.attn\.add_[kv]_proj|single_.+\.attn\.to_[kv]"},
    "kv": {"layers": "kv"},  # of the text, in the double-stream blocks
    "masked": {"layers": "kv", "text_tokens_only": True},  # the layers of "shared"
}
VARIANTS = {  # by what stands in a row, its method and scope; those that the others are compared with are first
    ("esd", "text"): {},
    ("uce", "text"): {"method": "uce"},  # closed forms edit the layers that read the text encoders' states
    ("rece", "text"): {"method": "rece"},
    ("speed", "text"): {"method": "speed"},
    # these layers and the second block, on what it reads in a forward pass; guidance of states is not needed then
    ("uce", "deep"): {"method": "uce", "deep": True, "state_guidance": 0.0},
    ("speed", "deep"): {"method": "speed", "deep": True, "state_guidance": 0.0},
    ("esd", "shared"): {},
    ("esd", "kv"): {},
    ("esd", "masked"): {},
    ("gem", "text"): {"method": "gem"},
    ("esd", "text surgery"): {"layers": "text", "gradient_surgery": True},
}


def main() -> None:
    parser = flags(__doc__, TARGETS, [0, 1], Path(__file__).with_suffix(".json"))
    parser.add_argument("--variants", nargs="+", default=[" ".join(key) for key in VARIANTS])
    args = parser.parse_args()
    settings = {
        (method, scope): (own if METHODS[method].solved else SCOPES.get(scope, {}) | own)
        for (method, scope), own in VARIANTS.items()
    }
    cells = (
        (concept, load_config(None, own | {"crce": crce, "seed": seed}, model=MODEL), scope)
        for seed in args.seeds
        for (method, scope), own in settings.items()
        if f"{method} {scope}" in args.variants
        for concept in args.concepts
        for crce in (False, True)
        if seed == args.seeds[0] or METHODS[method].random
    )
    configs = {
        " ".join(key): load_config(None, own, model=MODEL).model_dump(mode="json") for key, own in settings.items()
    }
    measure_all(cells, args, {"configs": configs}, model=MODEL)


if __name__ == "__main__":
    main()
