"""Token by token: batches of encoded examples, likelihoods, and what those come to."""

from __future__ import annotations

import math
from typing import Any

from coldfusion_shared.errors import BadModel

# The label of a token that is not learnt; torch's cross entropy leaves it out.
IGNORED = -100
# Beyond this, e to the power of it is no number any more.
MOST_LOSS = 700.0


class PadRight:
    """
    Makes one batch of encoded examples, filled up on the right.

    Not by the tokenizer: decoders' often fill up on the left, which moves spans and positions.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Take the tokenizer's padding token."""
        self.fillers = {"input_ids": tokenizer.pad_token_id, "labels": IGNORED}

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Return tensors (examples, longest) of lists, and (examples,) of numbers."""
        import torch

        return {
            name: torch.tensor(_filled([e[name] for e in examples], self.fillers.get(name, 0)))
            for name in examples[0]
        }


def token_sums(logits: Any, labels: Any) -> Any:
    """
    Return what scoring needs of a batch, in place of its logits, which would fill the memory.

    Args:
        logits: tensor (examples, positions, vocabulary).
        labels: tensor (examples, positions): the token each position should give, or `IGNORED`.

    Returns:
        Tensor (examples, 3): right tokens, their summed negative log-likelihood in nats, tokens.
    """
    import torch

    # One by one: the likelihoods of a whole batch would be as large as its logits once more.
    return torch.stack([_sums(*example) for example in zip(logits, labels, strict=True)])


def next_token_sums(logits: Any, labels: Any) -> Any:
    """Return `token_sums` of a decoder, whose every position gives the token after it."""
    return token_sums(logits[:, :-1], labels[:, 1:])


def token_metrics(sums: Any) -> dict[str, float]:
    """Return accuracy in percent and perplexity over all tokens, from `token_sums` of examples."""
    import numpy as np

    right, loss, tokens = (float(total) for total in np.asarray(sums, np.float64).sum(axis=0))
    return {
        "accuracy": 100.0 * right / tokens,
        "perplexity": math.exp(min(loss / tokens, MOST_LOSS)),
    }


def require_offsets(tokenizer: Any) -> None:
    """Refuse a tokenizer that cannot say which characters a token stands for."""
    if not tokenizer.is_fast:
        raise BadModel(
            "The base's tokenizer does not say which characters of the text a token stands for.",
            hint="The base needs a tokenizer.json: save it with AutoTokenizer and use_fast=True.",
        )


def _filled(values: list[Any], filler: int) -> list[Any]:
    if not isinstance(values[0], list):
        return values
    longest = max(len(value) for value in values)
    return [value + [filler] * (longest - len(value)) for value in values]


def _sums(logits: Any, labels: Any) -> Any:
    import torch

    counted = labels != IGNORED
    wanted, given = labels[counted], logits[counted].float()
    loss = torch.nn.functional.cross_entropy(given, wanted, reduction="sum")
    right = (given.argmax(dim=-1) == wanted).sum()
    return torch.stack([right.to(loss), loss, counted.sum().to(loss)])
