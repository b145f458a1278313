"""The weights that are sent: a finetuned model's body, on the base it is contributed to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coldfusion_client.bases import base_folder
from coldfusion_client.source import Source
from coldfusion_shared.schemas.bases import Base


def frozen_in(base: Path, patterns: Sequence[str] | None) -> tuple[str, ...]:
    """Return patterns of what is frozen in the words of the base in that folder."""
    from coldfusion_shared.finetune.frozen import in_words_of
    from coldfusion_shared.weights.body import body
    from coldfusion_shared.weights.checkpoint import Checkpoint

    if not patterns:
        return ()
    with Checkpoint.from_folder(base) as checkpoint:
        return in_words_of(body(checkpoint.spans()), patterns)


def write_contribution(
    source: Source, finetuned: Path, made_from: Base, onto: Base, out: Path
) -> str:
    """
    Write the body of a finetuned model, moved to the base `onto` where that is another one.

    Returns the SHA-256 of the body as it was before it was moved, in hexadecimal.

    Args:
        source: brings the bases.
        finetuned: a transformers folder.
        made_from: the base that it was finetuned from.
        onto: the base that it is contributed to.
        out: the file to write; it appears whole or not at all.

    Raises:
        BadModel: `finetuned` is no model folder.
        IncompatibleWeights: it is a model of another architecture, the tensors are named; or its
            tokenizer is not the base's.
        MalformedWeights: its files are not strictly valid safetensors.
        StorageFull: no room.
    """
    # Here and not above: numpy takes a while to load, and most commands need no tensors.
    from coldfusion_shared.weights.checkpoint import Checkpoint
    from coldfusion_shared.weights.digests import file_sha256
    from coldfusion_shared.weights.vocabulary import check_vocabulary
    from coldfusion_shared.weights.write import write_body, write_rebased

    body = out if made_from.version == onto.version else out.with_name(f"{out.name}.own")
    with (
        Checkpoint.from_folder(finetuned) as model,
        Checkpoint.from_folder(base_folder(source, made_from)) as base,
    ):
        check_vocabulary(base_folder(source, made_from), finetuned)
        write_body(model, base, body)
        digest = file_sha256(body)
        if body != out:
            folder = base_folder(source, onto)
            with Checkpoint.from_file(body) as own, Checkpoint.from_folder(folder) as target:
                write_rebased(own, base, target, out)
            body.unlink()
    return digest
