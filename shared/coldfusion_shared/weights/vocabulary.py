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

    Read from tokenizer.json, vocab.json or vocab.txt. Tokens that are added besides count, too.
    """
    fast = _json(folder / "tokenizer.json")
    if isinstance(fast, dict):
        return _of_fast(fast)
    named = _json(folder / "vocab.json")
    if isinstance(named, dict):
        return {str(token): number for token, number in named.items() if isinstance(number, int)}
    try:
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    return {token: number for number, token in enumerate(lines)}


def check_vocabulary(base: Path, finetuned: Path) -> None:
    """
    Refuse a finetuned model that reads texts in other tokens than its base.

    Its embeddings belong to other words, so that a mean with others' would be nonsense. Where one
    of the two does not say its vocabulary, nothing is checked.

    Raises:
        IncompatibleWeights: the tokenizer was changed.
    """
    ours, theirs = vocabulary_of(base), vocabulary_of(finetuned)
    if ours is None or theirs is None or ours == theirs:
        return
    hint = "Finetune with the base's own tokenizer, as coldfusion-client pull brings it."
    moved = next((token for token in ours if theirs.get(token) != ours[token]), None)
    if moved is not None:
        now = f"number {theirs[moved]}" if moved in theirs else "missing"
        raise IncompatibleWeights(
            f"The tokenizer in {finetuned} is not the base's: {moved!r} is number {ours[moved]} "
            f"there, and {now} here.",
            hint=hint,
        )
    added = [token for token in theirs if token not in ours]
    raise IncompatibleWeights(
        f"The tokenizer in {finetuned} is not the base's: it has {len(added)} tokens more, such as "
        f"{added[0]!r}.",
        hint=hint,
    )


def _of_fast(content: Mapping[str, Any]) -> dict[str, int] | None:
    model = content.get("model")
    tokens = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(tokens, dict):
        found = {str(token): number for token, number in tokens.items() if isinstance(number, int)}
    elif isinstance(tokens, list):
        # Unigram models list tokens with their scores.
        found = {str(entry[0]): number for number, entry in enumerate(tokens) if entry}
    else:
        return None
    for added in content.get("added_tokens") or ():
        if isinstance(added, dict) and isinstance(added.get("id"), int):
            found[str(added.get("content"))] = added["id"]
    return found


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
