"""In which order the fields of a form stand, and below which headings. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coldfusion_server.dashboard.decisions.forms import Field

POLICY: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "When a round closes",
        (
            "by_hand", "min_contributions", "max_contributions", "min_contributors",
            "deadline_seconds",
        ),
    ),
    (
        "How much of it may come from where",
        (
            "max_per_contributor", "max_per_dataset", "max_per_task", "max_share_per_contributor",
            "max_share_per_dataset", "max_share_per_task", "contributor_weights",
        ),
    ),
    (
        "How it is fused",
        (
            "method", "parameters", "dare", "server_lr", "server_lr_cap", "line_search",
            "optimizer", "optimizer_parameters", "pull", "step_cap",
        ),
    ),
    ("What a candidate has to pass", ("gate",)),
    ("What comes late", ("max_staleness", "staleness_exponent", "after_rollback")),
    ("What is taken, and kept", ("encodings", "screening", "keep_contributions")),
)  # fmt: skip


@dataclass(frozen=True)
class Section:
    """Fields that belong together; an empty title: there is nothing to say above them."""

    title: str
    fields: tuple[Field, ...]


def sections(fields: Sequence[Field], order: Sequence[tuple[str, Sequence[str]]]) -> list[Section]:
    """Return `fields` in `order`, and at the end those that it does not name."""
    by_name = {field.name: field for field in fields}
    found = [
        Section(title, tuple(by_name.pop(name) for name in names if name in by_name))
        for title, names in order
    ]
    rest = Section("More" if found else "", tuple(by_name.values()))
    return [one for one in [*found, rest] if one.fields]
