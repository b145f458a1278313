"""
Which contributions did the harm: a search over what becomes of a fuse without some of them.

Whether a set does harm is for the caller to find out, who fuses it and has it measured, which takes
long. So few sets are tried, none of them twice, and the likely ones first: `suspicion` gives an
order that follows from the Gram matrix alone. The sets are as large as can be, all contributions
but those that may be at fault. Small ones would be misleading: a model that few have made is often
worse than its base, and harms nobody once many are in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.fusion.gram import Gram
from coldfusion_shared.fusion.updates import Doubles

Strategy = Literal["leave-one-out", "halving"]
Ids = frozenset[str]

# Whether the fuse of these contributions, and of no others, does harm.
Harmful = Callable[[Ids], bool]


@dataclass(frozen=True)
class Try:
    """
    A set that was tried.

    Attributes:
        without: the contributions that were left out, in their order.
        harmful: whether the others did harm all the same.
    """

    without: tuple[str, ...]
    harmful: bool


@dataclass(frozen=True)
class Culprits:
    """
    What a search has found.

    Attributes:
        named: contributions that are needed for the harm: with one of them, and others of `rest`
            or none, a set was harmful.
        suspected: contributions that may be at fault, too, but nothing was tried that shows it.
        rest: all others. A fuse of them was tried and did no harm, or they are none.
        tries: the sets that were tried, in their order.
        complete: whether the search came to its end; else the tries were used up.
    """

    named: tuple[str, ...]
    suspected: tuple[str, ...]
    rest: tuple[str, ...]
    tries: tuple[Try, ...]
    complete: bool


def find_culprits(
    ids: Sequence[str],
    harmful: Harmful,
    *,
    strategy: Strategy = "halving",
    max_tries: int = 32,
    progress: Callable[[Try], None] = lambda tried: None,
) -> Culprits:
    """
    Find contributions without which the others do no harm.

    With ``leave-one-out`` each is left out alone, which finds a single culprit after one try where
    it is the first of `ids`, and after K where it is the last; if there are several, it goes on by
    halves. With ``halving``, half of those that may be at fault are left out, then half of that
    half, and so on, by QuickXplain (https://www.aaai.org/Papers/AAAI/2004/AAAI04-027.pdf): c
    culprits among K take about ``2 c (1 + log2(K / c))`` tries. As long as more contributions never
    do less harm, both find a set of which no one can be let back in. Of two that are harmful only
    together one is enough, and one is named.

    The same answers lead to the same tries, so a search that was cut off, by whatever `harmful`
    raises, goes on where it was if the answers that were given before are given again.

    Args:
        ids: the contributions of a fuse that did harm, which is not tried again; the likely
            culprits first.
        harmful: answers for a set; never asked for all of them, for none, or for one set twice.
        strategy: which sets are tried.
        max_tries: how often `harmful` is asked at most.
        progress: told of each try.

    Raises:
        InvalidRequest: there are no contributions or one twice, no tries, or no such strategy.
    """
    _check(ids, strategy, max_tries)
    search, complete = _Search(ids, harmful, max_tries, progress), True
    try:
        if strategy == "halving" or not any(search.passes(Ids([name])) for name in ids):
            _halve(search)
    except _NoTriesLeft:
        complete = False
    return search.found(complete=complete)


def _check(ids: Sequence[str], strategy: str, max_tries: int) -> None:
    if not ids:
        raise InvalidRequest("Without contributions there is none that did harm.")
    if len(set(ids)) != len(ids):
        raise InvalidRequest("One contribution is given twice.")
    if max_tries < 1:
        raise InvalidRequest("A search needs at least one try.")
    known = get_args(Strategy)
    if strategy not in known:
        raise InvalidRequest(f"{strategy!r} is no strategy.", hint=f"One of {', '.join(known)}.")


class _NoTriesLeft(Exception):
    """The search may not ask again."""


class _Search:
    """What was asked and answered so far, by what was left out."""

    def __init__(
        self,
        ids: Sequence[str],
        harmful: Harmful,
        max_tries: int,
        progress: Callable[[Try], None],
    ) -> None:
        self.ids = tuple(ids)
        self.harmful = harmful
        self.max_tries = max_tries
        self.progress = progress
        self.tries: list[Try] = []
        # All of them are harmful, and the base alone is what harm is measured against.
        self.answers = {Ids(): True, Ids(ids): False}

    def passes(self, without: Ids) -> bool:
        """Return whether the others do no harm; raises `_NoTriesLeft`."""
        if without not in self.answers:
            if len(self.tries) == self.max_tries:
                raise _NoTriesLeft
            tried = Try(self.ordered(without), self.harmful(Ids(self.ids) - without))
            self.answers[without] = tried.harmful
            self.tries.append(tried)
            self.progress(tried)
        return not self.answers[without]

    def ordered(self, names: Ids) -> tuple[str, ...]:
        return tuple(name for name in self.ids if name in names)

    def found(self, *, complete: bool) -> Culprits:
        """Return the smallest set without which the others pass, and what is known of it."""
        passing = [without for without, harm in self.answers.items() if not harm]
        left_out = min(passing, key=len)
        named = Ids(name for name in left_out if self._is_needed(name, left_out))
        return Culprits(
            named=self.ordered(named),
            suspected=self.ordered(left_out - named),
            rest=self.ordered(Ids(self.ids) - left_out),
            tries=tuple(self.tries),
            complete=complete,
        )

    def _is_needed(self, name: str, left_out: Ids) -> bool:
        """Return whether `name` did harm with nobody else of `left_out` beside it."""
        return any(
            harm and name not in without and left_out - {name} <= without
            for without, harm in self.answers.items()
        )


def _halve(search: _Search) -> None:
    """Try until a set passes, and as few as possible are left out."""
    without = Ids()
    # Once is enough where more never do less harm.
    while not search.passes(without):
        without |= _needed(search, without, search.ordered(Ids(search.ids) - without))


def _needed(
    search: _Search, without: Ids, candidates: Sequence[str], *, is_new: bool = False
) -> Ids:
    """
    Return those of `candidates` that must be left out beside `without`.

    Args:
        search: answers.
        without: what is left out in any case.
        candidates: not empty; if all of them are left out, the others pass.
        is_new: whether `without` has not been found to be too few.
    """
    if is_new and search.passes(without):
        return Ids()
    if len(candidates) == 1:
        return Ids(candidates)
    half = len(candidates) // 2
    first, second = candidates[:half], candidates[half:]
    late = _needed(search, without | Ids(first), second, is_new=True)
    return late | _needed(search, without | late, first, is_new=bool(late))


@dataclass(frozen=True)
class Suspicion:
    """
    What the Gram matrix says about a contribution.

    Attributes:
        id: the contribution.
        norm_ratio: its update's norm over the median of all that are not zero; 0 for no update.
        cosine: of its update with the mean of the others; 0 where one of the two is zero.
        change: norm of the change to the fused update if it were left out, the weights of the
            others scaled to the same sum.
    """

    id: str
    norm_ratio: float
    cosine: float
    change: float


def suspicion(gram: Gram, weights: Sequence[float] | None = None) -> list[Suspicion]:
    """
    Return the contributions, those first that move the fused update most.

    That are the long ones and those that go elsewhere than the others, as far as they have weight.
    Of equals the longer comes first, then the one that agrees less with the others.

    Args:
        gram: of the updates.
        weights: those that the fuse had, such as `Plan.mean_weights`; null: all the same.
    """
    count = len(gram.ids)
    shares = np.full(count, 1 / count) if weights is None else np.array(weights, float)
    norms, cosines, changes = _norm_ratios(gram), _cosines(gram), _changes(gram, shares)
    found = [
        Suspicion(name, float(norms[place]), float(cosines[place]), float(changes[place]))
        for place, name in enumerate(gram.ids)
    ]
    return sorted(found, key=lambda one: (-one.change, -one.norm_ratio, one.cosine, one.id))


def _norm_ratios(gram: Gram) -> Doubles:
    moved = gram.norms[gram.norms > 0]
    ratios: Doubles = gram.norms / (np.median(moved) if moved.size else 1.0)
    return ratios


def _cosines(gram: Gram) -> Doubles:
    """Return the cosine of each update with the sum of the others, (K,)."""
    squares = np.diag(gram.total)
    along = gram.total.sum(axis=1) - squares
    others = gram.total.sum() - 2 * along - squares
    scale = gram.norms * np.sqrt(np.maximum(others, 0))
    found = np.divide(along, scale, out=np.zeros_like(along), where=scale > 0)
    clipped: Doubles = np.clip(found, -1, 1)
    return clipped


def _changes(gram: Gram, weights: Doubles) -> Doubles:
    """Return by how much the weighted sum changes without each update, (K,)."""
    left = weights.sum() - weights
    scale = np.divide(weights.sum(), left, out=np.zeros_like(left), where=left > 0)
    # Row c: the weights less those without c.
    rows = weights[None, :] * (1 - scale[:, None])
    np.fill_diagonal(rows, weights)
    squares = np.einsum("ci,ij,cj->c", rows, gram.total, rows)
    changes: Doubles = np.sqrt(np.maximum(squares, 0))
    return changes
