"""ESD, plain and with CRCE, on the layers of the bundled flow transformer: does what is not erased collapse?

    python benchmarks/erasure/flow.py

writes flow.json beside this file: rows as methods.py makes them, with the layers (`scope`) and the share of unrelated
concepts that were kept. Layers that text and image share are trained as they are, and with the change kept to the
tokens of the text. Rows already there are kept, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

from pathlib import Path

from foundation import flags, measure_all

from crce.training import load_config


MODEL = "demo-flow"
TARGETS = (
    "cat",
    "dog",
    "car",
    "airplane",
    "bird",
    "apple",
    "ship",
    "horse",
    "frog",
    "santa claus",
    "elephant",
    "house",
)
SCOPES = {
    "text": {"layers": "text"},
    "kv": {"layers": "kv"},  # of the text, in the double-stream blocks
    # these and the keys and values of the single-stream blocks, which text and image share
    "shared": {"target_modules": r"transformer_blocks\.\d+\.attn\.add_[kv]_proj|single_.+\.attn\.to_[kv]"},
    "masked": {"layers": "kv", "text_tokens_only": True},  # the same layers
}


def main() -> None:
    parser = flags(__doc__, TARGETS, [0, 1], Path(__file__).with_suffix(".json"))
    parser.add_argument("--scopes", nargs="+", default=list(SCOPES), choices=list(SCOPES))
    args = parser.parse_args()
    cells = (
        (concept, load_config(None, {"crce": crce, "seed": seed, **SCOPES[scope]}, model=MODEL), scope)
        for seed in args.seeds
        for concept in args.concepts
        for scope in args.scopes
        for crce in (False, True)
    )
    configs = {scope: load_config(None, SCOPES[scope], model=MODEL).model_dump(mode="json") for scope in SCOPES}
    measure_all(cells, args, {"configs": configs}, model=MODEL)


if __name__ == "__main__":
    main()
