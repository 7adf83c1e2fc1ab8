"""How many tokens a chat may use."""

from __future__ import annotations

from crce.errors import SuggestError
from crce.llm.protocol import Message, Reply


SHORTEST_ANSWER = 100  # tokens; below that an answer is cut off before it says anything
CHARACTERS = 4  # of a token, about, where nobody has counted
PICTURE = 1000  # tokens of a picture, about: services count 100 to 1600, by its size


class TokenBudget:
    """Counts the tokens of all questions and answers of a chat.

    Attributes:
        total: how many there may be.
        spent: how many there were.
    """

    def __init__(self, total: int) -> None:
        """Start with `total` tokens.

        Raises:
            SuggestError: the total is not positive.
        """
        if total < 1:
            raise SuggestError(f"The token budget is {total}. Use a positive number, e.g. --token-budget 100000.")
        self.total = total
        self.spent = 0

    def allow(self, messages: list[Message], max_tokens: int) -> int:
        """How many tokens the next answer may have, at most `max_tokens`.

        Raises:
            SuggestError: too little is left for the question and a short answer.
        """
        room = self.total - self.spent - _tokens(messages)
        if room < min(max_tokens, SHORTEST_ANSWER):
            raise SuggestError(
                f"The token budget of {self.total} is too small for the next question: {self.spent} are spent. "
                "Raise --token-budget, or ask for fewer phrases."
            )
        return min(max_tokens, room)

    def spend(self, messages: list[Message], reply: Reply) -> None:
        """Count a question and its answer."""
        answered = reply.completion_tokens or len(reply.text) // CHARACTERS
        self.spent += (reply.prompt_tokens or _tokens(messages)) + answered


def _tokens(messages: list[Message]) -> int:
    pictures = sum(len(message.images) for message in messages)
    return sum(len(message.content) for message in messages) // CHARACTERS + pictures * PICTURE
