"""Texts as tokens, where whatever a text says is text."""

from __future__ import annotations

from typing import Any


def tokenized(tokenizer: Any, *texts: Any, **options: Any) -> Any:
    """
    Return what a tokenizer makes of lists of texts, with no special token but those that it adds.

    A text may say "</s>" or "[MASK]", which would end it, or hide a part of it.

    Args:
        tokenizer: of the base.
        texts: the texts, and perhaps those that are paired with them.
        options: of the tokenizer.
    """
    encoded = tokenizer(
        *texts, split_special_tokens=True, return_special_tokens_mask=True, **options
    )
    added = encoded.pop("special_tokens_mask")
    unknown = tokenizer.unk_token_id
    # Unigram vocabularies hold the special tokens as if they were words. They know what is unknown.
    if tokenizer.is_fast and unknown is not None:
        special = special_ids(tokenizer) - {unknown}
        encoded["input_ids"] = [
            [
                unknown if token in special and not own else token
                for token, own in zip(ids, mask, strict=True)
            ]
            for ids, mask in zip(encoded["input_ids"], added, strict=True)
        ]
    return encoded


def special_ids(tokenizer: Any) -> set[int]:
    """Return the tokens that stand for no text."""
    added = tokenizer.added_tokens_decoder
    return {*tokenizer.all_special_ids, *(token for token, one in added.items() if one.special)}


def special_tokens(tokenizer: Any) -> list[str]:
    """Return how those are written."""
    return sorted(tokenizer.convert_ids_to_tokens(sorted(special_ids(tokenizer))))
