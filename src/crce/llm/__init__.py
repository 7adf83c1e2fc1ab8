"""Chats with language models, behind a web service or in this process."""

from crce.llm.protocol import Chat, Message, Reply, load_chat


__all__ = ["Chat", "Message", "Reply", "load_chat"]
