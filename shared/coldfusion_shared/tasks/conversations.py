"""Conversations as text: by the tokenizer's own chat template, or a plain one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from os.path import commonprefix
from typing import Any

from coldfusion_shared.errors import BadData
from coldfusion_shared.tasks.tokenized import special_tokens
from coldfusion_shared.tasks.tokens import IGNORED

# A role and what it says.
Message = tuple[str, str]
Conversation = tuple[Message, ...]

ASSISTANT = "assistant"
ROLES = ("system", "user", ASSISTANT)

# Begins every message of the plain template; an empty line ends it.
NAMES = {"system": "System:", "user": "User:", ASSISTANT: "Assistant:"}


def turns(conversation: Conversation) -> list[int]:
    """Return the indices of the assistant's messages."""
    return [i for i, (role, _) in enumerate(conversation) if role == ASSISTANT]


def rendered(tokenizer: Any, conversation: Conversation, *, ask: bool = False) -> str:
    """
    Return a conversation as the model reads it.

    The plain template, for tokenizers without one of their own: every message is its role's name,
    a colon, a space and the content; the assistant's end with the token for the end of a text;
    between messages is an empty line.

    Args:
        tokenizer: of the base.
        conversation: messages, the first one first.
        ask: whether the assistant is to speak next.
    """
    if not getattr(tokenizer, "chat_template", None):
        return _plain(tokenizer, conversation, ask)
    if not conversation:
        return ""
    from jinja2 import TemplateError

    messages = [{"role": role, "content": content} for role, content in conversation]
    try:
        text: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=ask
        )
    except TemplateError as error:
        said = conversation[0][1]
        raise BadData(
            f"The base's chat template refuses the conversation that begins {said!r:.40}: {error}",
            hint="Many templates want user and assistant in turns, and some no system message.",
        ) from error
    return text


def plainly_said(tokenizer: Any, conversations: Iterable[Conversation]) -> Iterator[Conversation]:
    """
    Yield conversations with a space in whatever somebody says that would be a special token.

    Those that the template writes are to be read as such, so the tokenizer cannot tell.
    """
    written = "|".join(map(re.escape, special_tokens(tokenizer)))
    marks = re.compile(f"(?=(?:{written}))(.)", re.DOTALL)
    for conversation in conversations:
        yield tuple((role, marks.sub(r"\1 ", content)) for role, content in conversation)


def learnt_tokens(
    tokenizer: Any, conversation: Conversation, max_length: int
) -> tuple[list[int], list[int]]:
    """
    Return token ids of a conversation, and as labels those of them that the assistant says.

    What is longer than `max_length` loses its end; where the first answer begins later than that,
    what is far before it, too.
    """
    # What comes after the last answer is nothing to learn from.
    conversation = conversation[: turns(conversation)[-1] + 1]
    text = rendered(tokenizer, conversation)
    spans = [_said(tokenizer, conversation, i, text) for i in turns(conversation)]
    encoded = tokenizer(
        text,
        # A chat template writes these itself.
        add_special_tokens=not getattr(tokenizer, "chat_template", None),
        return_offsets_mapping=True,
        verbose=False,
    )
    ids: list[int] = encoded["input_ids"]
    labels = [
        token if any(begin < stop and end > start for start, stop in spans) else IGNORED
        for token, (begin, end) in zip(ids, encoded["offset_mapping"], strict=True)
    ]
    # A decoder gives the token after each, so that nothing gives the first.
    labels[0] = IGNORED
    start = _start(labels, max_length)
    return ids[start : start + max_length], labels[start : start + max_length]


def _start(labels: list[int], max_length: int) -> int:
    """Return where to begin so that some of the first answer is among `max_length` tokens."""
    first = next((i for i, label in enumerate(labels) if label != IGNORED), None)
    if first is None:
        raise BadData(
            "The base's chat template leaves out what the assistant says.",
            hint="Give its tokenizer another chat_template, or none.",
        )
    return 0 if first < max_length else min(first - max_length // 2, len(labels) - max_length)


def _said(tokenizer: Any, conversation: Conversation, turn: int, text: str) -> tuple[int, int]:
    """Return from where to where in `text` is what the assistant says in a turn."""
    before = _agreeing(text, rendered(tokenizer, conversation[:turn], ask=True))
    return before, _agreeing(text, rendered(tokenizer, conversation[: turn + 1]))


def _agreeing(text: str, beginning: str) -> int:
    """Return how far they agree: some templates leave out parts of earlier answers."""
    # Letter by letter, which is slow, only for those.
    agreed = beginning if text.startswith(beginning) else commonprefix([text, beginning])
    return len(agreed)


def _plain(tokenizer: Any, conversation: Conversation, ask: bool) -> str:
    end = tokenizer.eos_token or ""
    said = [
        f"{NAMES[role]} {content}{end if role == ASSISTANT else ''}"
        for role, content in conversation
    ]
    return "\n\n".join([*said, *([NAMES[ASSISTANT]] if ask else [])])
