"""Tiny judges' models of the real classes with random weights, saved as any other model would be."""

from __future__ import annotations

from pathlib import Path

import tiny
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetForImageClassification,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)


SIZE = 32
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def clip(folder: Path) -> Path:
    """A CLIP model that reads single letters."""
    torch.manual_seed(0)
    words = tiny.tokenizer(folder / "words")
    ids = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    text = {**SMALL, "vocab_size": len(words), "max_position_embeddings": 24, **ids}
    vision = {**SMALL, "image_size": SIZE, "patch_size": 16}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    words.save_pretrained(folder)
    size = {"shortest_edge": SIZE}
    CLIPImageProcessor(size=size, crop_size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return folder


def siglip(folder: Path) -> Path:
    """A SigLIP model that reads a few words."""
    torch.manual_seed(0)
    known = ["<pad>", "</s>", "<unk>", "a", "photo", "of", "picture", "cat", "kitty", "dog", "fox", "the", "."]
    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    text = {**SMALL, "vocab_size": len(known), "max_position_embeddings": 12, "pad_token_id": 0, "eos_token_id": 1}
    vision = {**SMALL, "image_size": SIZE, "patch_size": 16}
    SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    SiglipImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return folder


LABELS = ["tabby, tabby cat", "golden retriever", "crane", "crane", "red fox, Vulpes vulpes", "fireboat"]


def vit(folder: Path, labels: list[str] | None = None) -> Path:
    """A ViT classifier with labels as ImageNet has them."""
    torch.manual_seed(0)
    names = {} if labels == [] else {"id2label": dict(enumerate(labels or LABELS))}
    config = ViTConfig(**SMALL, image_size=SIZE, patch_size=16, num_labels=len(labels or LABELS), **names)
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return folder


def resnet(folder: Path) -> Path:
    """A ResNet classifier: its features have a height and a width."""
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label=dict(enumerate(LABELS))
    )
    ResNetForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return folder
