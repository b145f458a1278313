"""What each file of a push is to us: part of a contribution, of no use, or refused. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.weights.layout import INDEX_FILE, SIDE_FILES, SINGLE_FILE
from coldfusion_shared.weights.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS

# What one may push, by the encoding that it makes. The others look alike from outside, and our own
# client sends those.
WHOLE: dict[str, tuple[str, ...]] = {
    "full": (SINGLE_FILE,),
    "lora": (ADAPTER_WEIGHTS, ADAPTER_CONFIG),
}
TAKEN = frozenset(path for files in WHOLE.values() for path in files)
# They come from the base, or are made by us; to refuse them would be no help to anybody.
LEFT = frozenset(
    {
        *SIDE_FILES,
        ".gitattributes",
        ".gitignore",
        "README.md",
        "LICENSE.md",
        "LICENSE.txt",
        "chat_template.json",
        "preprocessor_config.json",
        "processor_config.json",
    }
)
TEMPLATES = "additional_chat_templates/"
PICKLED = re.compile(r"\.(?:bin|pt|pth|pkl|pickle|ckpt|joblib|dill|npy|npz)$", re.IGNORECASE)
SHARD = re.compile(r"-\d{5}-of-\d{5}\.")
HEADER_BYTES = 8
# Of refused files.
NAMED = 5

_PICKLE = "That is a pickle, which can run programs where it is opened; nobody reads it here."
_LEAVE_OUT = "Leave it out, for instance with --exclude or ignore_patterns."


class Fate(StrEnum):
    """What becomes of a file that is not refused."""

    TAKEN = "taken"
    LEFT = "left"


def fate_of(path: str, sample: bytes | None = None, size: int | None = None) -> Fate:
    """
    Return what becomes of a pushed file.

    Args:
        path: inside the repository.
        sample: its first bytes; null: they are not known.
        size: in bytes; null: it is not known.

    Raises:
        InvalidRequest: it is refused; the sentence says what to do.
    """
    if sample is not None and is_pickle(sample):
        raise _refused(path, _PICKLE, _as_safetensors(path))
    if path in TAKEN:
        _check_start(path, sample, size)
        return Fate.TAKEN
    if path in LEFT or path.startswith(TEMPLATES):
        return Fate.LEFT
    name = path.rsplit("/", 1)[-1]
    if PICKLED.search(name):
        raise _refused(path, _PICKLE, _as_safetensors(path))
    if name == INDEX_FILE or (SHARD.search(name) and name.endswith(".safetensors")):
        raise _refused(
            path,
            f"A contribution's weights are one file, {SINGLE_FILE}.",
            'Push with max_shard_size="1TB"; older versions of transformers take it, too.',
        )
    if name in TAKEN:
        raise _refused(
            path, "A contribution's files lie at the top of the repository.", "Push it as " + name
        )
    made_of = " or ".join(" with ".join(files) for files in WHOLE.values())
    raise _refused(path, f"A contribution is {made_of}.", _LEAVE_OUT)


def fates_of(files: Sequence[tuple[str, bytes | None, int | None]]) -> list[Fate]:
    """
    Return what becomes of each file of a push, of which path, first bytes and size are given.

    Raises:
        InvalidRequest: some are refused; all are named at once.
    """
    fates, refused = list[Fate](), dict[str, InvalidRequest]()
    for path, sample, size in files:
        try:
            fates.append(fate_of(path, sample, size))
        except InvalidRequest as error:
            refused[path] = error
    if refused:
        (_, first), *others = refused.items()
        names = [ascii(path[:60]) for path, _ in others]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        also = f" Neither are {', '.join(names[:NAMED])}{more}." if names else ""
        raise InvalidRequest(first.message + also, hint=first.hint)
    return fates


def check_has_weights(fates: Iterable[Fate]) -> None:
    """Raise `InvalidRequest` unless something of a push is taken."""
    if Fate.TAKEN not in set(fates):
        made_of = ", or ".join(" and ".join(files) for files in WHOLE.values())
        raise InvalidRequest(
            "There are no weights in this push.",
            hint=f"A contribution is {made_of}. Tokenizer, settings and model card come from the "
            "base; to change those, ask the model's maintainers.",
        )


def encoding_of(paths: Iterable[str]) -> str | None:
    """
    Return the encoding that the files make; null: some are missing still.

    Raises:
        InvalidRequest: they are more than one contribution.
    """
    have = set(paths)
    found = [name for name, files in WHOLE.items() if have.issuperset(files)]
    if found and have != set(WHOLE[found[0]]):
        raise InvalidRequest(
            f"The files {', '.join(sorted(have))} are no one contribution.",
            hint="Push the adapter alone, or the whole weights alone.",
        )
    return found[0] if found else None


def missing_of(paths: Iterable[str]) -> str:
    """Return which files are missing beside `paths`, in words."""
    have = set(paths)
    for files in WHOLE.values():
        if have & set(files):
            return ", ".join(file for file in files if file not in have)
    return " or ".join(files[0] for files in WHOLE.values())


def is_pickle(sample: bytes) -> bool:
    """Return whether a file that begins so is a pickle, or an archive with one as torch makes."""
    # A zip archive; or opcode PROTO with a version from 2 on. Safetensors begin with the length of
    # a header that begins with a brace.
    if sample.startswith(b"PK\x03\x04"):
        return True
    if sample[HEADER_BYTES : HEADER_BYTES + 1] == b"{":
        return False
    return len(sample) > 1 and sample[0] == 0x80 and 2 <= sample[1] <= 5


def _check_start(path: str, sample: bytes | None, size: int | None) -> None:
    if not path.endswith(".safetensors") or sample is None:
        return
    length = int.from_bytes(sample[:HEADER_BYTES], "little")
    fits = size is None or HEADER_BYTES + length <= size
    if len(sample) <= HEADER_BYTES or sample[HEADER_BYTES] != ord("{") or not fits:
        raise _refused(
            path, "It does not begin as safetensors do.", "Save it with model.save_pretrained."
        )


def _as_safetensors(path: str) -> str:
    if path.startswith(("training_args", "optimizer", "scheduler", "rng_state")):
        return _LEAVE_OUT
    return "Save the model with safe_serialization=True, as transformers does by default."


def _refused(path: str, why: str, hint: str) -> InvalidRequest:
    return InvalidRequest(f"{ascii(path[:100])} is not taken. {why}", hint=f"{hint.rstrip('.')}.")
