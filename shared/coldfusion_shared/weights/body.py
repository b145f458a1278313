"""
Body and head: which of a model's tensors the community shares. Names only, no numpy.

The body is what every contributor has in common; heads belong to their own tasks. A finetuned
model also names its body differently from the bare encoder that it came from (``bert.encoder...``
for ``encoder...``), so names are aligned before anything is compared.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from coldfusion_shared.errors import IncompatibleWeights
from coldfusion_shared.weights.header import ITEM_BYTES, TensorSpan

# The modules that transformers puts on top of a body, over all architectures that it has.
HEAD_MODULES = frozenset(
    {
        "classifier", "pre_classifier", "score", "lm_head", "cls", "qa_outputs", "logits_proj",
        "vocab_transform", "vocab_layer_norm", "vocab_projector", "predictions", "lm_predictions",
        "mask_predictions", "generator_predictions", "generator_lm_head",
        "discriminator_predictions", "sop_classifier", "sequence_summary", "multiple_choice_head",
        "classification_head", "final_logits_bias",
    }
)  # fmt: skip

_NUMBER = re.compile(r"\d+")

# Task models of several architectures drop it, so a contribution may come without.
OPTIONAL_MODULE = "pooler"


def is_head(name: str) -> bool:
    """Return whether the tensor called `name` belongs to a task's head."""
    return name.split(".", 1)[0] in HEAD_MODULES


def body(spans: Mapping[str, TensorSpan], *, heads: bool = False) -> dict[str, TensorSpan]:
    """Return the tensors of `spans` that are fused: floats of the body, and `heads` if wanted."""
    return {
        name: span for name, span in spans.items() if span.is_float and (heads or not is_head(name))
    }


def twins(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """
    Return those of `others` that differ from one of `names` by numbers alone.

    They are layers that another model has more of: ``encoder.layer.12.bias`` beside ``...11.bias``.
    """
    patterns = {_NUMBER.sub("#", name) for name in names}
    return [name for name in others if _NUMBER.sub("#", name) in patterns]


def align(ours: Collection[str], theirs: Collection[str]) -> dict[str, str]:
    """
    Map our tensor names to theirs, where the two differ by a leading module name.

    Args:
        ours: names of the base's body.
        theirs: names of a finetuned model, heads among them.

    Returns:
        Our name to their name, for every name of ours that they have.
    """
    candidates = [dict(_same(ours, theirs))]
    candidates += [_under(ours, theirs, module) for module in _modules(theirs)]
    candidates += [_above(ours, theirs, module) for module in _modules(ours)]
    candidates += [
        _instead(ours, theirs, module, other)
        for module in _modules(ours)
        for other in _modules(theirs)
    ]
    return max(candidates, key=len)


def base_names(base: Collection[str], theirs: Collection[str]) -> dict[str, str]:
    """
    Return what the base calls each tensor of a model that came whole, by their own names.

    As `align` has it, for names that may be hostile: each is looked at a few times, however many
    modules they name. What the base has under no name keeps its own.

    Args:
        base: names of all the base's tensors.
        theirs: names of a finetuned model, its head's among them.
    """
    have, known = set(theirs), set(base)
    under = Counter[str]()
    for name in theirs:
        module, _, rest = name.partition(".")
        under[module] += rest in known and not is_head(rest)
    above = Counter[str]()
    for name in base:
        module, _, rest = name.partition(".")
        above[module] += rest in have and not is_head(name)
    same = sum(not is_head(name) for name in known & have)
    prefix, more = max(under.items(), key=_count, default=("", 0))
    lost, less = max(above.items(), key=_count, default=("", 0))
    if same >= max(more, less):
        found = {name: name for name in theirs}
    elif more >= less:
        found = {name: _shorter(name, prefix, known) for name in theirs}
    else:
        longer = {name: f"{lost}.{name}" for name in theirs}
        found = {name: new if new in known else name for name, new in longer.items()}
    # Of two tensors for one of ours nobody can say which is meant.
    return found if len(set(found.values())) == len(found) else {name: name for name in theirs}


def check_body(
    base: Mapping[str, TensorSpan], candidate: Mapping[str, TensorSpan], *, heads: bool = False
) -> None:
    """
    Check that `candidate`, with names aligned, has every tensor of the base's body, and no other.

    Tensors of the base outside its body (positions, heads) may be there, too; they are ignored.

    Raises:
        IncompatibleWeights: all differences in one message, the tensors named.
    """
    wanted = body(base, heads=heads)
    missing = [name for name in wanted if name not in candidate]
    unknown = [name for name in candidate if name not in base]
    different = [
        name
        for name, span in wanted.items()
        if name in candidate and not _fits(span, candidate[name])
    ]
    if not (missing or unknown or different):
        return
    narrow = [name for name in different if _is_narrower(candidate[name], wanted[name])]
    if narrow == [*missing, *unknown, *different]:
        raise IncompatibleWeights(
            f"{_listed(narrow, candidate[narrow[0]].dtype)}, where the base has "
            f"{wanted[narrow[0]].dtype}: rounding has lost most of what was learnt.",
            hint="Finetune in the base's own dtype: load it with dtype=torch.float32, and let the "
            "Trainer compute in half precision (bf16=True) if it should be quick.",
            tensors=narrow[:10],
        )
    faults = [
        _listed(missing, "missing"),
        _listed(unknown, "not in the base"),
        _listed(
            [f"{n} ({candidate[n].kind()} for {wanted[n].kind()})" for n in different],
            "of another shape or dtype",
        ),
    ]
    raise IncompatibleWeights(
        "The weights do not fit the base: " + "; ".join(fault for fault in faults if fault) + ".",
        hint="Contribute a model that was finetuned from a base of this very model; "
        "coldfusion-client pull gets it.",
        tensors=[*missing, *unknown, *different][:10],
    )


def _count(item: tuple[str, int]) -> int:
    return item[1]


def _shorter(name: str, prefix: str, known: Collection[str]) -> str:
    """Return `name` without a leading module, if the base has that."""
    rest = name.removeprefix(f"{prefix}.")
    return rest if rest in known else name


def _fits(span: TensorSpan, other: TensorSpan) -> bool:
    return other.shape == span.shape and other.dtype in {span.dtype, "F32"}


def _is_narrower(span: TensorSpan, base: TensorSpan) -> bool:
    narrow = ITEM_BYTES[span.dtype] < ITEM_BYTES[base.dtype]
    return span.is_float and span.shape == base.shape and narrow


def _listed(names: list[str], what: str) -> str:
    if not names:
        return ""
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} {what} ({shown})"


def _same(ours: Collection[str], theirs: Collection[str]) -> Iterable[tuple[str, str]]:
    have = set(theirs)
    return ((name, name) for name in ours if name in have)


def _under(ours: Collection[str], theirs: Collection[str], module: str) -> dict[str, str]:
    have = set(theirs)
    return {name: f"{module}.{name}" for name in ours if f"{module}.{name}" in have}


def _above(ours: Collection[str], theirs: Collection[str], module: str) -> dict[str, str]:
    have = set(theirs)
    start = len(module) + 1
    return {
        name: name[start:]
        for name in ours
        if name.startswith(f"{module}.") and name[start:] in have
    }


def _instead(
    ours: Collection[str], theirs: Collection[str], module: str, other: str
) -> dict[str, str]:
    """Some decoders call their body by another name under some heads."""
    have = set(theirs)
    names = ((name, other + name.removeprefix(module)) for name in ours)
    return {name: named for name, named in names if name.startswith(f"{module}.") and named in have}


def _modules(names: Iterable[str]) -> list[str]:
    return sorted({name.split(".", 1)[0] for name in names if "." in name})
