"""The conversation of a suggester with a language model: see `crce.chat`."""

from crce.chat import Chat, Message, Reply


__all__ = ["Chat", "Message", "Reply"]
