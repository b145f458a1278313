"""Policies and accepted contributions to try closing with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from hypothesis import strategies as st

from coldfusion_shared.rounds.limits import Limit, Waiting, limits
from coldfusion_shared.schemas.models import Policy

SHARES = (0.2, 0.25, 0.29, 1 / 3, 0.4, 0.5, 0.75, 1.0)
# Each data set belongs to one task.
TASK_OF = {"sst2": "classification", "trec": "classification", "stsb": "regression", None: None}


def waiting(*rows: str) -> list[Waiting]:
    """Return contributions in order, each given as ``contributor [dataset [task]]``."""
    found = []
    for position, row in enumerate(rows):
        contributor, dataset, task, *_ = [*row.split(), None, None]
        found.append(Waiting(f"c{position}", str(contributor), dataset, task, position))
    return found


def of(name: str, count: int) -> list[str]:
    """Return rows of `count` contributions of one contributor."""
    return [name] * count


def nested(most: int) -> st.SearchStrategy[list[Waiting]]:
    """Contributions, up to `most`, where a data set has one task."""
    rows = st.tuples(st.sampled_from("abcd"), st.sampled_from([*TASK_OF]))
    return st.lists(rows, max_size=most).map(
        lambda found: [
            Waiting(f"c{place}", name, dataset, TASK_OF[dataset], place)
            for place, (name, dataset) in enumerate(found)
        ]
    )


def crossing(most: int) -> st.SearchStrategy[list[Waiting]]:
    """Contributions, up to `most`, of any data set and any task."""
    some = st.sampled_from(["x", "y", None])
    rows = st.tuples(st.sampled_from("abcd"), some, some)
    return st.lists(rows, max_size=most).map(
        lambda found: [Waiting(f"c{place}", *row, place) for place, row in enumerate(found)]
    )


def limit_sets(*kinds: str) -> st.SearchStrategy[dict[str, float | int | None]]:
    """Policies' limits for `kinds`, any of them null."""
    numbers, shares = st.none() | st.integers(1, 4), st.none() | st.sampled_from(SHARES)
    return st.fixed_dictionaries(
        {f"max_per_{kind}": numbers for kind in kinds}
        | {f"max_share_per_{kind}": shares for kind in kinds}
    )


KINDS = ("contributor", "dataset", "task")


def policies(*kinds: str) -> st.SearchStrategy[Policy]:
    """Policies that close by themselves, with limits for `kinds`."""
    return st.builds(
        lambda low, more, seconds, quorum, found: Policy(
            min_contributions=low,
            # Large enough for any share that is drawn.
            max_contributions=None if more is None else max(5, low) + more,
            deadline_seconds=seconds,
            min_contributors=quorum,
            **found,
        ),
        st.integers(1, 8),
        st.none() | st.integers(0, 4),
        st.none() | st.integers(1, 1000),
        st.integers(1, 4),
        limit_sets(*kinds),
    )


def within(chosen: Sequence[Waiting], found: Sequence[Limit]) -> bool:
    """Whether `chosen` keeps all limits of a round of its size."""
    return all(
        count <= limit.most(len(chosen))
        for limit in found
        for count in Counter(one.group(limit.kind) for one in chosen).values()
    )


def largest_of_all(policy: Policy, found: Sequence[Waiting]) -> int:
    """Return the size of the largest choice, by trying all."""
    most = min(len(found), policy.max_contributions or len(found))
    return next(
        size
        for size in range(most, -1, -1)
        if any(within(chosen, limits(policy)) for chosen in combinations(found, size))
    )
