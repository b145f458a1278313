"""
What a fuse will do, decided before the first byte is written: weights, thresholds, step.

A plan is made from the recipe and from passes over the updates that only read. The engine then
carries it out, and a plan's numbers go into the manifest and the report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.fusion import optimizers
from coldfusion_shared.fusion.executor import Executor, Serial
from coldfusion_shared.fusion.gram import MAX_BY_TENSOR, Gram, gram_pass
from coldfusion_shared.fusion.methods import (
    Blocks,
    CoordinateMethod,
    Facts,
    Parameters,
    WeightMethod,
    Weights,
    check_count,
    check_parameters,
    discover,
)
from coldfusion_shared.fusion.optimizers import Optimizer
from coldfusion_shared.fusion.sparsify import Sparse, Sparsifier
from coldfusion_shared.fusion.sparsify.random import DropAndRescale
from coldfusion_shared.fusion.step import Cap
from coldfusion_shared.fusion.updates import (
    Doubles,
    Floats,
    Scratch,
    Update,
    block_elements,
    discounted,
    load_stack,
)
from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.weights.header import ITEM_BYTES, TensorSpan

COMPARING, PREPARING, CAPPING, FUSING = "comparing", "preparing", "capping", "fusing"

# Called with the phase and the number of bytes of updates that were read in it.
Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class Kinds:
    """
    A recipe's plug-ins.

    Attributes:
        method: the fusion method.
        parameters: its parameters.
        optimizer: the server optimizer.
        optimizer_parameters: its parameters.
    """

    method: WeightMethod | CoordinateMethod
    parameters: Parameters
    optimizer: Optimizer
    optimizer_parameters: Parameters


@dataclass(frozen=True)
class Plan:
    """
    A fuse that is decided.

    Attributes:
        recipe: what was asked for.
        kinds: its method and optimizer.
        updates: all contributions, discounted and thinned out as the recipe says.
        taken: those whose values a coordinate method combines.
        spans: the base's body.
        gram: the Gram matrix of `updates`, where somebody needed it.
        weights: of `updates`, (K,) or by tensor; null for coordinate methods.
        prepared: what a coordinate method found out beforehand, by tensor.
        server_lr: factor of the step.
        scale: root mean square of the fused update, for optimizers that ask for it.
        compares_late: whether the Gram matrix is made while fusing, because nothing depends on it.
        cap: what the recipe's cap leaves of the step; null: nobody has looked, or there is none.
    """

    recipe: Recipe
    kinds: Kinds
    updates: tuple[Update, ...]
    taken: tuple[Update, ...]
    spans: Mapping[str, TensorSpan]
    gram: Gram | None
    weights: Weights | None
    prepared: Mapping[str, Any]
    server_lr: float
    scale: float
    compares_late: bool = False
    cap: Cap | None = None

    def square_norm(self, gram: Gram) -> float:
        """Return the squared norm of the fused update, or, failing weights, of the mean update."""
        if isinstance(self.weights, Mapping):
            return sum(
                float(self.weights[name] @ tensor.products @ self.weights[name])
                for name, tensor in gram.tensors.items()
            )
        count = len(self.updates)
        weights = np.full(count, 1 / count) if self.weights is None else self.weights
        return max(0.0, float(weights @ gram.total @ weights))

    def tensor_weights(self, name: str) -> Doubles:
        """Return the weights of the updates, (K,), in the tensor called `name`."""
        assert self.weights is not None, "a weight method has weights"
        return self.weights[name] if isinstance(self.weights, Mapping) else self.weights

    @property
    def mean_weights(self) -> list[float] | None:
        """Return each update's weight, the mean over tensors by size; null without weights."""
        if self.weights is None:
            return None
        sizes = np.array([span.elements for span in self.spans.values()], float)
        rows = np.array([self.tensor_weights(name) for name in self.spans])
        return [float(weight) for weight in sizes @ rows / sizes.sum()]


def make_plan(
    spans: Mapping[str, TensorSpan],
    updates: Sequence[Update],
    recipe: Recipe,
    executor: Executor | None = None,
    *,
    progress: Progress = lambda phase, size: None,
    score: Callable[[Plan], float] | None = None,
    with_gram: bool = False,
    gram: Gram | None = None,
) -> Plan:
    """
    Decide how `updates` are fused.

    Args:
        spans: the base's body.
        updates: the contributions, in the order of the manifest.
        recipe: what is asked for.
        executor: works on the passes; null: this thread. It changes no bit of the result.
        progress: told how far the passes are.
        score: measures the base that a plan makes, for methods that choose by score.
        with_gram: whether the Gram matrix is wanted also where the method does without.
        gram: that of these updates, or of more of them, from another plan by this recipe, which
            decides how they are discounted and thinned out; null: it is made where it is needed.
            Made anew of fewer updates it can differ in its last digits.

    Raises:
        UnknownName: there is no such method or optimizer.
        InvalidRequest: a parameter is out of range, or K too small, or something is missing.
        NonFiniteWeights: an update holds NaN or infinity; the contribution is named.
    """
    work, kind = executor or Serial(), kinds(recipe)
    check_count(recipe.method, kind.method, kind.parameters, len(updates))
    _check_updates(recipe.method, kind.method, updates, can_score=score is not None)
    ready = _thinned(discounted(updates, recipe.staleness_exponent), recipe)
    compares_late = with_gram and gram is None and _compares_late(recipe, kind)
    if gram is not None:
        gram = gram.of([update.id for update in updates])
    elif COMPARING in phases(recipe, with_gram=with_gram):
        gram = gram_pass(
            spans,
            ready,
            work,
            lambda size: progress(COMPARING, size),
            by_tensor=len(ready) <= MAX_BY_TENSOR
            or (isinstance(kind.method, WeightMethod) and kind.method.by_tensor),
        )
    plan = Plan(
        recipe=recipe,
        kinds=kind,
        updates=tuple(ready),
        taken=tuple(ready),
        spans=spans,
        gram=gram,
        weights=None,
        prepared={},
        server_lr=_server_lr(recipe, kind.optimizer, gram),
        scale=1.0,
        compares_late=compares_late,
    )
    if isinstance(kind.method, WeightMethod):
        plan = _with_weights(plan, kind.method, score)
    else:
        plan = _with_preparations(plan, kind.method, work, progress)
    return plan if gram is None else replace(plan, scale=_scale(plan, gram))


def kinds(recipe: Recipe) -> Kinds:
    """
    Return method and optimizer of `recipe`, with their parameters, validated.

    Raises:
        UnknownName: there is no such method or optimizer.
        InvalidRequest: a parameter is unknown or out of range.
    """
    return Kinds(
        method=discover()[recipe.method],
        parameters=check_parameters(recipe.method, recipe.parameters),
        optimizer=optimizers.discover()[recipe.optimizer],
        optimizer_parameters=optimizers.check_parameters(
            recipe.optimizer, recipe.optimizer_parameters
        ),
    )


def needs_score(recipe: Recipe) -> bool:
    """Return whether the method chooses by a score of candidates."""
    method = kinds(recipe).method
    return isinstance(method, WeightMethod) and method.needs_score


def phases(recipe: Recipe, *, with_gram: bool = False, has_gram: bool = False) -> list[str]:
    """
    Return the phases of a fuse in their order; each reads the updates once or a few times.

    Args:
        recipe: what is asked for.
        with_gram: as for `make_plan`.
        has_gram: whether `make_plan` is given a Gram matrix.
    """
    kind, prepares = kinds(recipe), False
    if isinstance(kind.method, CoordinateMethod):
        prepares = kind.method.sparsify is not None or kind.method.prepare is not None
    compares = _needs_gram(recipe, kind) or (with_gram and not _compares_late(recipe, kind))
    return [
        *[COMPARING] * (compares and not has_gram),
        *[PREPARING] * prepares,
        *[CAPPING] * (recipe.step_cap is not None),
        FUSING,
    ]


def _needs_gram(recipe: Recipe, kind: Kinds) -> bool:
    if isinstance(kind.method, WeightMethod):
        needs = kind.method.needs_gram
    else:
        needs = kind.method.select is not None
    steps = kind.optimizer.needs_scale(kind.optimizer_parameters)
    return needs or steps or recipe.server_lr == "auto"


def _compares_late(recipe: Recipe, kind: Kinds) -> bool:
    """Return whether the Gram matrix, if it is wanted at all, can be made while fusing."""
    return isinstance(kind.method, WeightMethod) and not _needs_gram(recipe, kind)


def facts_of(
    updates: Sequence[Update],
    gram: Gram | None = None,
    score: Callable[[Doubles], float] | None = None,
) -> Facts:
    """Return what a method may know of `updates`."""
    return Facts(
        ids=tuple(update.id for update in updates),
        prior=np.array([update.prior for update in updates], float),
        gram=gram,
        score=score,
    )


def automatic_lr(gram: Gram, cap: float) -> float:
    """
    Return the mean of the updates' norms over the norm of their mean, at most `cap`.

    It makes the fused update as long as one contribution's: 1 for equal updates, and sqrt(K) for
    orthogonal ones.
    """
    count = len(gram.ids)
    mean = float(np.sqrt(max(0.0, float(gram.total.sum())))) / count
    lengths = float(gram.norms.mean())
    if not mean:
        return cap if lengths else 1.0
    return min(cap, lengths / mean)


def _server_lr(recipe: Recipe, optimizer: Optimizer, gram: Gram | None) -> float:
    if recipe.server_lr is None:
        return optimizer.server_lr
    if recipe.server_lr == "auto":
        assert gram is not None, "an automatic server learning rate needs the Gram matrix"
        return automatic_lr(gram, recipe.server_lr_cap)
    return recipe.server_lr


def _scale(plan: Plan, gram: Gram) -> float:
    """Return the root mean square of the fused update, or, failing weights, of the mean update."""
    return float(np.sqrt(plan.square_norm(gram) / max(1, gram.whole.elements)))


def _check_updates(
    name: str,
    method: WeightMethod | CoordinateMethod,
    updates: Sequence[Update],
    *,
    can_score: bool,
) -> None:
    priors = [update.prior for update in updates]
    if min(priors) < 0 or not 0 < sum(priors) < np.inf:
        raise InvalidRequest("The weights must be at least 0, and one of them above it.")
    if not method.uses_prior and any(prior != 1 for prior in priors):
        raise InvalidRequest(
            f"The fusion method {name!r} takes no weights.",
            hint="weighted_mean does, and norm_clipped_mean, ties and others.",
        )
    if isinstance(method, WeightMethod) and method.needs_score and not can_score:
        raise InvalidRequest(
            f"The fusion method {name!r} chooses by score, and nothing measures one here.",
            hint="coldfusion-server fuse takes --score COMMAND, which prints the score of a model.",
        )
    if isinstance(method, CoordinateMethod) and method.needs_fisher:
        without = [update.id for update in updates if update.fisher is None]
        if without:
            raise InvalidRequest(
                f"The fusion method {name!r} needs Fisher information, "
                f"and contribution {without[0]} has none.",
                hint="Put its diagonal into fisher.safetensors beside the weights, "
                "under the same tensor names.",
            )


def _thinned(updates: list[Update], recipe: Recipe) -> list[Update]:
    """Put DARE in front, whose draws need nothing of the values."""
    if recipe.dare is None:
        return updates
    dare = recipe.dare
    return [
        replace(
            update,
            reader=Sparse(update.reader, DropAndRescale(dare.density, dare.seed, update.id), {}),
        )
        for update in updates
    ]


def _with_weights(plan: Plan, method: WeightMethod, score: Callable[[Plan], float] | None) -> Plan:
    def measure(weights: Doubles) -> float:
        assert score is not None, "checked before"
        return score(replace(plan, weights=weights))

    weights = method.weights(plan.kinds.parameters, facts_of(plan.updates, plan.gram, measure))
    return replace(plan, weights=weights)


def _with_preparations(
    plan: Plan, method: CoordinateMethod, executor: Executor, progress: Progress
) -> Plan:
    taken = plan.updates
    if method.select is not None:
        places = method.select(plan.kinds.parameters, facts_of(taken, plan.gram))
        taken = tuple(taken[place] for place in places)
    if method.sparsify is not None:
        sparsifiers = [method.sparsify(plan.kinds.parameters, update.id) for update in taken]
        taken = tuple(_sparse(taken, sparsifiers, plan.spans, executor, progress))
    prepared = {}
    if method.prepare is not None:
        prepared = _prepared(taken, method, plan, executor, progress)
    return replace(plan, taken=taken, prepared=prepared)


def _sparse(
    updates: Sequence[Update],
    sparsifiers: Sequence[Sparsifier],
    spans: Mapping[str, TensorSpan],
    executor: Executor,
    progress: Progress,
) -> Iterator[Update]:
    """Let each sparsifier look at each tensor of its update once."""
    scratch = Scratch()
    tasks = [(place, span) for span in _largest_first(spans) for place in range(len(updates))]

    def look(task: tuple[int, TensorSpan]) -> Any:
        place, span = task
        # What is not finite is found later, and not by a warning.
        with np.errstate(over="ignore", invalid="ignore"):
            return sparsifiers[place].prepare(updates[place].reader, span, scratch)

    found: list[dict[str, Any]] = [{} for _ in updates]
    for (place, span), result in zip(tasks, executor.map(look, tasks), strict=True):
        found[place][span.name] = result
        progress(PREPARING, span.elements * ITEM_BYTES[span.dtype])
    for update, sparsifier, prepared in zip(updates, sparsifiers, found, strict=True):
        yield replace(update, reader=Sparse(update.reader, sparsifier, prepared))


def _prepared(
    updates: Sequence[Update],
    method: CoordinateMethod,
    plan: Plan,
    executor: Executor,
    progress: Progress,
) -> dict[str, Any]:
    """Let the method look at each tensor of all updates."""
    scratch, size = Scratch(), block_elements(len(updates))
    prepare = method.prepare
    assert prepare is not None, "asked for before"

    def look(span: TensorSpan) -> Any:
        def read(first: int, last: int) -> Iterator[Floats]:
            for start in range(first, last, size):
                stop = min(start + size, last)
                yield load_stack(updates, span, start, stop, scratch)

        with np.errstate(over="ignore", invalid="ignore"):
            return prepare(plan.kinds.parameters, Blocks(span.elements, read))

    tasks = _largest_first(plan.spans)
    found = {}
    for span, result in zip(tasks, executor.map(look, tasks), strict=True):
        found[span.name] = result
        progress(PREPARING, len(updates) * span.elements * ITEM_BYTES[span.dtype])
    return found


def _largest_first(spans: Mapping[str, TensorSpan]) -> list[TensorSpan]:
    """Order the tensors so that no thread is left with a large one in the end."""
    return sorted(spans.values(), key=lambda span: -span.elements)
