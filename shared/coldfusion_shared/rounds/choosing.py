"""
Which of the waiting contributions a round takes: the most that its limits allow, in turns.

Contributors take turns in the order of acceptance, each with its oldest contribution first; those
whose weight is 0 come last in each turn, so that a full round is never one that weighs nothing
while there is something that does. Where a
data set or a task is full, contributions that were taken are swapped for others of their own
contributors, if that makes room: this is the augmenting path of matroid intersection (Edmonds
1970). So each contributor gets as many as it can beside those that have fewer, and the number is
the largest that there is, as long as each data set belongs to one task, or each task to one data
set, or only one of the two is limited. Where both are and they cross, this is 3-dimensional
matching, for which nobody knows a quick way: then the largest number may be missed, but no limit
ever is.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coldfusion_shared.rounds.limits import Kind, Limit, Waiting, limits

if TYPE_CHECKING:
    from coldfusion_shared.schemas.models import Policy

_Group = tuple[Kind, str | None]


def pool_of(policy: Policy, waiting: Iterable[Waiting]) -> Pool:
    """Return what waits for a round, with the limits and the weights that the policy sets."""
    weightless = {name for name, weight in policy.contributor_weights.items() if not weight}
    return Pool(waiting, limits(policy), weightless)


class Pool:
    """
    What waits for a round, and the limits that the round keeps.

    Attributes:
        waiting: in the order of acceptance.
        limits: those that the policy sets.
        last: contributors who come last in each turn.
    """

    def __init__(
        self, waiting: Iterable[Waiting], limits: Sequence[Limit], last: Collection[str] = ()
    ) -> None:
        """Take contributions in any order, at most one limit of a kind."""
        self.waiting = sorted(waiting, key=lambda one: (one.position, one.id))
        self.limits = limits
        self.last = last
        # Of each limit: how many groups there are of each size.
        self._groups = [
            (limit, Counter(Counter(one.group(limit.kind) for one in self.waiting).values()))
            for limit in limits
        ]

    def largest(self, most: int | None) -> list[Waiting]:
        """Return the largest choice that keeps all limits, of at most `most` if that is given."""
        size = len(self.waiting) if most is None else min(most, len(self.waiting))
        while size:
            # A smaller round takes less of each group. So what cannot be reached here cannot be
            # reached in any smaller round either, and no size in between has to be tried.
            found = self.bound(size)
            if found == size:
                chosen = self.picked(size)
                if len(chosen) == size:
                    return chosen
                found = len(chosen)
            size = found
        return []

    def bound(self, size: int) -> int:
        """Return how many a round of `size` can take at most, each limit seen by itself."""
        found = min(size, len(self.waiting))
        for limit, groups in self._groups:
            most = limit.most(size)
            found = min(found, sum(min(count, most) * many for count, many in groups.items()))
        return found

    def picked(self, size: int) -> list[Waiting]:
        """Return at most `size` that keep the limits of a round of `size`."""
        selection = _Selection(
            self.waiting, {limit.kind: limit.most(size) for limit in self.limits}
        )
        turns = sorted(selection.queues, key=lambda name: name in self.last)
        while turns and len(selection.chosen) < size:
            turns = [name for name in turns if len(selection.chosen) < size and selection.add(name)]
        return self._oldest(selection.chosen.values())

    def _oldest(self, chosen: Iterable[Waiting]) -> list[Waiting]:
        """Return `chosen` in order; of those that are alike, swaps may have taken a newer one."""
        counts = Counter((one.contributor, one.dataset, one.task) for one in chosen)
        found = []
        for one in self.waiting:
            alike = (one.contributor, one.dataset, one.task)
            if counts[alike]:
                counts[alike] -= 1
                found.append(one)
        return found


@dataclass(frozen=True)
class _Step:
    """One contributor gets `taken` for `given`, of another one, who is to get something else."""

    taken: Waiting
    given: Waiting


class _Selection:
    """
    What is chosen so far, within the limits at every moment.

    Attributes:
        chosen: by id.
        queues: what waits of each contributor, in the order of acceptance.
    """

    def __init__(self, waiting: Iterable[Waiting], most: dict[Kind, int]) -> None:
        """`most`: how many of a group may be chosen, for each kind that has a limit."""
        self.chosen: dict[str, Waiting] = {}
        self.queues: dict[str, list[Waiting]] = defaultdict(list)
        for one in waiting:
            self.queues[one.contributor].append(one)
        self._most_own = most.get("contributor")
        self._most: dict[Kind, int] = {
            kind: number for kind, number in most.items() if kind != "contributor"
        }
        self._members: dict[_Group, dict[str, Waiting]] = defaultdict(dict)
        self._exhausted: set[str] = set()

    def add(self, contributor: str) -> bool:
        """Choose one more of `contributor`, and return whether that could be."""
        if contributor in self._exhausted:
            return False
        if len(self._members["contributor", contributor]) == self._most_own:
            return False
        steps: dict[str, _Step | None] = {contributor: None}
        if self._search(contributor, steps):
            return True
        # Whoever was reached finds no room, and later there is no more of it.
        self._exhausted |= steps.keys()
        return False

    def _search(self, contributor: str, steps: dict[str, _Step | None]) -> bool:
        """
        Look for room, breadth first: only the shortest way is sure to keep all limits.

        Args:
            contributor: who is to get one more.
            steps: how each contributor was reached, filled here; null: the search began there.
        """
        reached = deque([contributor])
        seen: set[tuple[_Group, ...]] = set()
        while reached:
            for one in self.queues[reached.popleft()]:
                if one.id in self.chosen:
                    continue
                full = self._full(one)
                if not full and self._take(one, steps):
                    return True
                if full and full not in seen:
                    seen.add(full)
                    reached.extend(self._reach(one, full, steps))
        return False

    def _full(self, one: Waiting) -> tuple[_Group, ...]:
        """Return the data set and the task of `one`, as far as they have all that they may have."""
        groups: list[_Group] = [(kind, one.group(kind)) for kind in self._most]
        return tuple(group for group in groups if len(self._members[group]) >= self._most[group[0]])

    def _reach(
        self, one: Waiting, full: Sequence[_Group], steps: dict[str, _Step | None]
    ) -> list[str]:
        """Return those, not reached before, who have something chosen that `one` can replace."""
        first, *others = (self._members[group] for group in full)
        found = []
        for given in first.values():
            name = given.contributor
            new = name not in steps and name not in self._exhausted
            if new and all(given.id in members for members in others):
                steps[name] = _Step(one, given)
                found.append(name)
        return found

    def _take(self, one: Waiting, steps: dict[str, _Step | None]) -> bool:
        """Choose `one`, with all swaps that led to it, unless a limit is in the way."""
        taken, given = [one], []
        while (step := steps[taken[-1].contributor]) is not None:
            given.append(step.given)
            taken.append(step.taken)
        self._change(taken, given)
        if all(self._within(one) for one in taken):
            return True
        self._change(given, taken)
        return False

    def _change(self, taken: Iterable[Waiting], given: Iterable[Waiting]) -> None:
        for one in given:
            del self.chosen[one.id]
            for group in self._groups(one):
                del self._members[group][one.id]
        for one in taken:
            self.chosen[one.id] = one
            for group in self._groups(one):
                self._members[group][one.id] = one

    def _within(self, one: Waiting) -> bool:
        return all(
            len(self._members[kind, one.group(kind)]) <= most for kind, most in self._most.items()
        )

    def _groups(self, one: Waiting) -> list[_Group]:
        return [("contributor", one.contributor), *((kind, one.group(kind)) for kind in self._most)]
