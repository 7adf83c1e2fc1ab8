"""Chats with language models, behind a web service or in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crce.lazy import lazy_names
from crce.llm.protocol import Chat, Message, Reply


if TYPE_CHECKING:
    from crce.llm.clients import load_chat

__all__ = ["Chat", "Message", "Reply", "load_chat"]

__getattr__ = lazy_names(__name__)
