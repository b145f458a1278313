"""
Fusion methods, one file each, found by `discover`.

A *weight method* makes the fused update a weighted sum of the updates; its weights follow from the
Gram matrix alone. A *coordinate method* works element by element on a stack of the updates.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.fusion.gram import Gram
from coldfusion_shared.fusion.sparsify import Sparsifier
from coldfusion_shared.fusion.updates import Doubles, Floats
from coldfusion_shared.parameters import Parameters as Parameters
from coldfusion_shared.parameters import validated
from coldfusion_shared.registry import Registry


@dataclass(frozen=True)
class Facts:
    """
    What a method may know of the K updates beside their values.

    Attributes:
        ids: the contributions, in their order.
        prior: weights that maintainers gave, (K,), not normalised.
        gram: of the updates; null for methods that do not ask for it.
        score: measures the base that the given weights, (K,), make; for methods that ask for it.
    """

    ids: tuple[str, ...]
    prior: Doubles
    gram: Gram | None = None
    score: Callable[[Doubles], float] | None = None

    @property
    def count(self) -> int:
        """K."""
        return len(self.ids)

    @property
    def shares(self) -> Doubles:
        """The prior weights, summing to 1."""
        shares: Doubles = self.prior / self.prior.sum()
        return shares

    @property
    def known_gram(self) -> Gram:
        """The Gram matrix, for methods that have asked for it."""
        assert self.gram is not None, "the method says that it needs the Gram matrix"
        return self.gram


# One weight for each update, (K,), or by tensor.
Weights = Doubles | Mapping[str, Doubles]


@dataclass(frozen=True)
class Blocks:
    """
    All updates of one tensor.

    Attributes:
        elements: number of coordinates.
        read: yields the coordinates from the first to the second place block by block, (K, n),
            each valid until the next, which a method may overwrite.
    """

    elements: int
    read: Callable[[int, int], Iterator[Floats]]


@dataclass(frozen=True)
class Block:
    """
    A span of one tensor, from all updates.

    Attributes:
        stack: the updates, (K, n), float32; a method may overwrite it.
        prior: weights that maintainers gave, (K,), not normalised.
        count: number of contributions before the method selected some of them.
        prepared: what the method's `prepare` returned for this tensor.
        fisher: diagonals of the Fisher information, (K, n), for methods that ask for them.
    """

    stack: Floats
    prior: Doubles
    count: int
    prepared: Any = None
    fisher: Floats | None = None


@dataclass(frozen=True, kw_only=True)
class Method:
    """
    What all methods have.

    Attributes:
        summary: one line for lists and help.
        paper: where it is defined.
        parameters: its parameters, as a pydantic model.
        minimum: from the parameters to the smallest K that it can work on.
        maximum: the largest K that it can work on; null: any.
        symmetric: whether the order of the contributions is without meaning.
        uses_prior: whether it looks at the weights that maintainers gave.
    """

    summary: str
    paper: str
    parameters: type[Parameters]
    minimum: Callable[[Any], int] = lambda _: 1
    maximum: int | None = None
    symmetric: bool = True
    uses_prior: bool = False


@dataclass(frozen=True, kw_only=True)
class WeightMethod(Method):
    """
    A method whose fused update is a weighted sum of the updates.

    Attributes:
        weights: from the parameters and the facts to the weights.
        needs_gram: whether it asks for the Gram matrix.
        needs_score: whether it asks for a score of candidates.
        by_tensor: whether it asks for the Gram matrix of each tensor.
    """

    weights: Callable[[Any, Facts], Weights]
    needs_gram: bool = True
    needs_score: bool = False
    by_tensor: bool = False


@dataclass(frozen=True, kw_only=True)
class CoordinateMethod(Method):
    """
    A method that works element by element.

    Attributes:
        combine: from the parameters and a block to the fused update there, (n,).
        sparsify: from the parameters and a contribution's id to what drops values of its update
            beforehand.
        select: from the parameters and the facts, with the Gram matrix, to the indices of the
            updates that take part; null: all of them.
        prepare: from the parameters and the blocks of one tensor to what `combine` needs of it.
        needs_fisher: whether it asks for Fisher information.
    """

    combine: Callable[[Any, Block], npt.NDArray[Any]]
    sparsify: Callable[[Any, str], Sparsifier] | None = None
    select: Callable[[Any, Facts], Sequence[int]] | None = None
    prepare: Callable[[Any, Blocks], Any] | None = None
    needs_fisher: bool = False


methods: Registry[WeightMethod | CoordinateMethod] = Registry("fusion method", "coldfusion.methods")


def discover() -> Registry[WeightMethod | CoordinateMethod]:
    """Return the registry after importing every fusion method."""
    methods.discover(sys.modules[__name__])
    return methods


def check_parameters(name: str, parameters: Mapping[str, Any]) -> Parameters:
    """
    Return the validated parameters of the method called `name`.

    Raises:
        UnknownName: there is no such method.
        InvalidRequest: a parameter is unknown or out of range.
    """
    return validated(f"the fusion method {name!r}", discover()[name].parameters, parameters)


def check_count(name: str, method: Method, parameters: Parameters, count: int) -> None:
    """
    Check that the method can work on `count` contributions.

    Raises:
        InvalidRequest: too few or too many; the message says how many are needed.
    """
    fewest = method.minimum(parameters)
    if count < fewest:
        raise InvalidRequest(
            f"The fusion method {name!r} needs at least {fewest} contributions with these "
            f"parameters, and there are {count}."
        )
    if method.maximum is not None and count > method.maximum:
        raise InvalidRequest(
            f"The fusion method {name!r} takes {method.maximum} contributions, "
            f"and there are {count}."
        )
