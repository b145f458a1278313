"""The vocabulary that a model folder's tokenizer files describe, read without a library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coldfusion_shared.errors import IncompatibleWeights


def vocabulary_of(folder: Path) -> dict[str, int] | None:
    """
    Return the number of each token; null where the files do not say it in a form that we know.

    Read from tokenizer.json, vocab.json or vocab.txt, and what is added to them elsewhere.
    """
    found = _of_fast(_json(folder / "tokenizer.json")) or _numbered(_json(folder / "vocab.json"))
    if found is None:
        try:
            # Not splitlines: some vocabularies have rare line separators among their tokens.
            lines = (folder / "vocab.txt").read_bytes().decode().split("\n")
        except (OSError, ValueError):
            return None
        found = {token.removesuffix("\r"): number for number, token in enumerate(lines) if token}
    added = _numbered(_json(folder / "added_tokens.json")) or {}
    return {**found, **added, **_decoder(_json(folder / "tokenizer_config.json"))}


def check_vocabulary(base: Path, finetuned: Path) -> None:
    """
    Refuse a finetuned model that reads texts in other tokens than its base.

    Its embeddings belong to other words, so that a mean with others' would be nonsense. Where one
    of the two does not say its vocabulary, nothing is checked.

    Raises:
        IncompatibleWeights: the tokenizer was changed.
    """
    ours, theirs = vocabulary_of(base), vocabulary_of(finetuned)
    if ours is None or theirs is None:
        return
    fault = _moved(ours, theirs) or _beyond(theirs, _rows(base))
    if fault is not None:
        raise IncompatibleWeights(
            f"The tokenizer in {finetuned} is not the base's: {fault}.",
            hint="Finetune with the base's own tokenizer, as coldfusion-client pull brings it.",
        )


def _moved(ours: Mapping[str, int], theirs: Mapping[str, int]) -> str | None:
    here = {number: token for token, number in theirs.items()}
    for token, number in ours.items():
        # Libraries do not agree on what a token of nothing but rare spaces is called.
        if not token.strip():
            continue
        if theirs.get(token, number) != number:
            return f"{token!r} is number {number} there, and number {theirs[token]} here"
        if here.get(number, token) != token and token not in theirs:
            return f"number {number} is {token!r} there, and {here[number]!r} here"
    return None


def _beyond(theirs: Mapping[str, int], rows: int | None) -> str | None:
    added = [token for token, number in theirs.items() if rows is not None and number >= rows]
    if not added:
        return None
    return f"it has tokens that the base has no embedding for, such as {added[0]!r}"


def _rows(base: Path) -> int | None:
    config = _json(base / "config.json")
    rows = config.get("vocab_size") if isinstance(config, dict) else None
    return rows if isinstance(rows, int) else None


def _of_fast(content: Any) -> dict[str, int] | None:
    model = content.get("model") if isinstance(content, dict) else None
    tokens = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(tokens, list):
        # Unigram models list tokens with their scores.
        tokens = {str(entry[0]): number for number, entry in enumerate(tokens) if entry}
    found = _numbered(tokens)
    if found is None:
        return None
    for added in content.get("added_tokens") or ():
        if isinstance(added, dict) and isinstance(added.get("id"), int):
            found[str(added.get("content"))] = added["id"]
    return found


def _numbered(content: Any) -> dict[str, int] | None:
    if not isinstance(content, dict):
        return None
    return {str(token): number for token, number in content.items() if isinstance(number, int)}


def _decoder(config: Any) -> dict[str, int]:
    """Return the tokens that tokenizer_config.json adds, which it lists by their numbers."""
    listed = config.get("added_tokens_decoder") if isinstance(config, dict) else None
    entries = listed.items() if isinstance(listed, dict) else ()
    return {
        str(token["content"]): int(number)
        for number, token in entries
        if isinstance(token, dict) and "content" in token and number.isdecimal()
    }


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
