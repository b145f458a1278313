"""
Standard errors and intervals of scores: how far chance may have moved them.

Chance chooses the examples that a seed trains on, and the examples that are tested. Each seed is
tested on the same examples, so a score is the mean of a table, seeds x test examples, and it varies
as the mean of a two-way layout with random rows and columns does:

    variance = (MS_seeds + MS_examples - MS_rest) / (seeds * examples)

with the mean squares of the analysis of variance. The last one is what both of the others contain,
the interaction of a training with a test example; so it is counted once. Metrics that are no means
enter by their pseudo-values (`jackknife`). This is how studies with several readers and many cases
are analysed (Dorfman, Berbaum and Metz 1992; Hillis 2007), readers being seeds here. The part of
the examples is what a bootstrap of the test examples, all seeds together, comes to, without the
bootstrap's own noise.

All seeds draw their training examples from one pool, which is chance as well, and moves all of
their scores together: the more so the less of the pool is left out. What seeds differ by does not
show it, so it is added (`drawing.pool_share` says how much it is, and by whom):

    variance += share * (MS_seeds - MS_rest) / examples

It is the same for any number of seeds: more of them do not replace a larger pool. What else differs
between seeds, as a new head's first weights, is taken for a part of it, so that the error of a
finetuning comes out too large rather than too small, by no more than one seed's own.

A difference of two bases is taken example by example and seed by seed before anything else, so
that what is hard for both does not count. Data sets are independent of each other.

Three seeds tell little of the seeds' variance. An interval's half width is therefore

    sqrt((t(f_seeds)^2 * MS_seeds + t(f_examples)^2 * (MS_examples - MS_rest)) / (seeds * examples))

(and for the pool, below the root, share * (t(f_seeds)^2 * MS_seeds - t(f_examples)^2 * MS_rest) /
examples), each mean square with the quantile of Student's t for its own
degrees of freedom: for normal values this covers at least what it should, whatever the shares of
the two are (Banerjee 1960). A common number of degrees of freedom (Satterthwaite's) covers less,
just where few seeds happen to agree: 90 to 94 percent in simulations. Over several data sets the
variances of a kind add up, and Welch's formula (1947) says how many degrees of freedom the sum has.
With three seeds, the interval of one data set is wide; that of the average of ten is hardly wider
than need be.

What is assumed: seeds are exchangeable and so are test examples, and means are about normal. Two
things guard the latter where few examples decide. One more example is reckoned with that nobody
has seen, at the worst end of what is possible, as Agresti and Coull (1998) and Bonett and Price
(2012) add two: so neither a score of 100 percent nor the difference of two bases that nearly agree
seems to be without error. And seeds are taken to vary no less than single examples imply.

What is not in it: the choice of the validation examples, which is the same for all seeds, and that
of the data sets: all is said about those of the suite, not about tasks in general.

What resampling does to the scores themselves: a score is always the metric of all test examples,
never a mean over resamples or over pseudo-values, so that the test side lowers none. The training
side does. Of fewer than twice as many training examples as a seed takes, it draws with replacement;
of 1,000 out of 1,000 about 632 differ, and what is learnt from them is a little worse than what is
learnt from all. That holds for every base alike, and is said where scores are shown. Macro F1 and
correlations of few test examples are on average a little off those of many; this is left as it is,
since taking it off would make scores that no other program shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coldfusion_shared.evaluate.jackknife import Scorer, pseudo_values

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
# What a score of one example, and the difference of two, can be at most and at least, in percent.
SCORES = (0.0, 100.0)
DIFFERENCES = (-100.0, 100.0)


@dataclass(frozen=True)
class Variances:
    """
    Of the mean of a table, in points squared; arrays of one shape, mostly (data sets,).

    Attributes:
        seeds: what the choice of seeds makes, the rest included.
        examples: what the choice of test examples makes, the rest included.
        rest: what is left when both are taken off: it is in both of the others.
        unseen: what one more example might make, which nobody has seen.
        pool: what the pool of training examples makes, which all seeds share, with the rest in it.
        pool_rest: how much of that is the rest.
        free_seeds: degrees of freedom of `seeds`.
        free_examples: degrees of freedom of `examples`.
    """

    seeds: Floats
    examples: Floats
    rest: Floats
    unseen: Floats
    pool: Floats
    pool_rest: Floats
    free_seeds: Floats
    free_examples: Floats

    def total(self) -> Floats:
        """Return the variance of each mean; it is never less than that of the examples alone."""
        import numpy as np

        of_pool = np.maximum(self.pool - self.pool_rest, 0)
        return np.maximum(self.seeds, self.rest) + of_pool + self._of_examples()

    def of_average(self) -> Variances:
        """Return those of the average over the last axis, whose means are independent."""
        count = self.seeds.shape[-1]
        parts = (self.seeds, self.examples, self.rest, self.pool, self.pool_rest)
        seeds, examples, rest, pool, pool_rest = (part.sum(-1) / count**2 for part in parts)
        return Variances(
            seeds,
            examples,
            rest,
            # One in all: there is as much to be seen in ten small data sets as in a large one.
            self.unseen.sum(-1) / count**3,
            pool,
            pool_rest,
            _freedom(self.seeds + self.pool, self.free_seeds),
            _freedom(self.examples, self.free_examples),
        )

    def half_width(self) -> Floats:
        """Return how far an interval of `CONFIDENCE` reaches to either side, in points."""
        import numpy as np
        from scipy.stats import t

        tail = (1 + CONFIDENCE) / 2
        few, many = (t.ppf(tail, free) ** 2 for free in (self.free_seeds, self.free_examples))
        both = np.maximum(few * self.seeds, many * self.rest)
        of_pool = np.maximum(few * self.pool - many * self.pool_rest, 0)
        width: Floats = np.sqrt(both + of_pool + many * self._of_examples())
        return width

    def _of_examples(self) -> Floats:
        """Return what the choice of test examples makes, without the rest."""
        import numpy as np

        return np.maximum(self.examples - self.rest, 0) + self.unseen


def variances(
    values: Floats, examples: int, ends: tuple[float, float], share: float = 0.0
) -> Variances:
    """
    Return the variances of tables' means.

    Args:
        values: (..., seeds, groups), two of each at least: `pseudo_values`, or differences.
        examples: how many there are in the groups together.
        ends: what an example's value can be at least and at most.
        share: `drawing.pool_share`; 0: of a pool without end, in which seeds share nothing.
    """
    import numpy as np

    seeds, groups = values.shape[-2:]
    by_seed, by_group = values.mean(-1), values.mean(-2)
    mean = by_seed.mean(-1)
    rest = values - by_seed[..., None] - by_group[..., None, :] + mean[..., None, None]
    free = (seeds - 1) * (groups - 1)
    farthest = np.maximum(ends[1] - mean, mean - ends[0])
    of_seeds = by_seed.var(-1, ddof=1) / seeds
    of_rest = np.square(rest).sum((-2, -1)) / (free * seeds * groups)
    return Variances(
        seeds=of_seeds,
        examples=by_group.var(-1, ddof=1) / groups,
        rest=of_rest,
        unseen=(farthest / (examples + 1)) ** 2,
        # Of one seed, not of their mean: it is the same pool for all of them.
        pool=share * seeds * of_seeds,
        pool_rest=share * seeds * of_rest,
        free_seeds=np.full_like(mean, seeds - 1),
        free_examples=np.full_like(mean, groups - 1),
    )


def joined(parts: Sequence[Variances]) -> Variances:
    """Return the variances of several means, each without an axis, as arrays (means,)."""
    import numpy as np

    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return Variances(*(np.array(column) for column in columns))


def dataset_error(
    labels: Sequence[int | float],
    guesses: Sequence[Sequence[int | float]],
    scorer: Scorer,
    share: float = 0.0,
) -> tuple[float, float | None]:
    """
    Return the mean of the seeds' scores, in percent, and its standard error, in points.

    The error is null for one seed and for one test example: nobody can tell it from those.

    Args:
        labels: of the test examples, (n,).
        guesses: of each seed, (seeds, n).
        scorer: labels and guesses, arrays, to a score in percent.
        share: of the variance between seeds, what their pool of training examples adds to it.
    """
    import numpy as np

    truth = np.asarray(labels)
    score = float(np.mean([scorer(truth, np.asarray(seed)) for seed in guesses]))
    if min(len(guesses), len(labels)) < 2:
        return score, None
    found = variances(pseudo_values(labels, guesses, scorer), len(labels), SCORES, share)
    return score, float(np.sqrt(found.total()))


def average_error(errors: Sequence[float | None]) -> float | None:
    """Return the standard error of the plain average of independent scores; null if one's is."""
    known = [error for error in errors if error is not None]
    if len(known) < len(errors) or not known:
        return None
    return float(sum(error**2 for error in known) ** 0.5 / len(known))


def _freedom(variances: Floats, free: Floats) -> Floats:
    """Return Welch's degrees of freedom of the sum over the last axis."""
    import numpy as np

    squares = (variances**2 / (free + 2)).sum(-1)
    total = variances.sum(-1) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        found = total / squares - 2
    # Of parts that do not vary at all: as many as one has.
    degrees: Floats = np.where(squares > 0, found, free.min(-1))
    return degrees
