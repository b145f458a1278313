"""Screen one contribution: header first, then one pass over the update for all checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING, Any

from coldfusion_shared.errors import (
    BadModel,
    BadWeights,
    ColdFusionError,
    IncompatibleWeights,
    InvalidRequest,
    NonFiniteWeights,
    UndecodableUpdate,
)
from coldfusion_shared.fusion.executor import Executor, Serial
from coldfusion_shared.fusion.gram import one_thread_products
from coldfusion_shared.schemas.contributions import Finding, Verdict, worst
from coldfusion_shared.screening import check_parameters, discover
from coldfusion_shared.screening.check import Check, Subject
from coldfusion_shared.screening.history import NOTHING, Past
from coldfusion_shared.screening.measures import Measures
from coldfusion_shared.screening.measuring import Totals, measured, unread_squares
from coldfusion_shared.screening.sketch import KEY_BYTES
from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.checkpoint import ByteSource, Checkpoint, StoredTensor
from coldfusion_shared.weights.codecs import open_update
from coldfusion_shared.weights.codecs.full import own_tensors
from coldfusion_shared.weights.layout import SINGLE_FILE
from coldfusion_shared.weights.lora import ADAPTER_WEIGHTS
from coldfusion_shared.weights.lora.match import without_heads

if TYPE_CHECKING:
    from coldfusion_shared.fusion.updates import SentUpdate

Progress = Callable[[int], None]

# Where what is wrong with the file itself does not say more.
SAVE_AGAIN = "Save it again with save_pretrained(), and send that."
# Of who screens his own, and compares with nobody.
NO_KEY = bytes(KEY_BYTES)


@dataclass(frozen=True)
class Encoded:
    """
    An update as it was sent.

    Attributes:
        encoding: its encoding's name.
        sources: its files by name.
        frozen: patterns of names of tensors and modules that it says it has not changed.
    """

    encoding: str
    sources: Mapping[str, ByteSource]
    frozen: Sequence[str] = ()


@dataclass(frozen=True)
class Screening:
    """
    The outcome.

    Attributes:
        findings: one for each check that was run.
        measures: what the values are like; null if they were not read, or are not finite.
        hint: what its contributor can do where it is rejected; null: nothing to say.
        checks: those that have concluded, in the order of the last findings.
    """

    findings: list[Finding]
    measures: Measures | None = None
    hint: str | None = None
    checks: Sequence[Check] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst of the findings'."""
        return worst(self.findings)

    @property
    def digest(self) -> str | None:
        """Keyed digest of the canonical update; null where there are no measures."""
        return None if self.measures is None else self.measures.digest

    def beside(self, past: Past) -> Screening:
        """Return the outcome beside all others that are known by now; nothing is read again."""
        if self.measures is None or not self.checks:
            return self
        first = len(self.findings) - len(self.checks)
        found = [
            check.conclude(self.measures, past) if check.compares else finding
            for check, finding in zip(self.checks, self.findings[first:], strict=True)
        ]
        return replace(self, findings=[*self.findings[:first], *found], hint=_hint(found))

    @property
    def rejections(self) -> list[Finding]:
        """The findings that reject."""
        return [finding for finding in self.findings if finding.verdict == "reject"]


def screen(
    given: Encoded,
    base: Checkpoint,
    progress: Progress = lambda _: None,
    *,
    past: Past = NOTHING,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    key: bytes = NO_KEY,
    executor: Executor | None = None,
) -> Screening:
    """
    Screen an update, made from `base`, in whatever encoding.

    Args:
        given: the contribution's files.
        base: the base that it says it was made from.
        progress: called with the number of bytes of each chunk of weights that was read.
        past: the others that it is compared with.
        parameters: of checks, by name, as in a model's policy; null: the defaults.
        key: `KEY_BYTES` secret bytes; digests and sketches of the same key can be compared.
        executor: works on the chunks; null: this thread. It changes nothing of the outcome.

    Raises:
        UnknownName, InvalidRequest: the parameters are wrong.
    """
    chosen = check_parameters(parameters or {})
    try:
        update = open_update(given.encoding, given.sources, base.tensors)
        subject = _subject(given, update, base)
    except IncompatibleWeights as error:
        return Screening([_rejection("schema", error)], hint=error.hint)
    except (BadWeights, BadModel, InvalidRequest) as error:
        return Screening([_rejection("format", error)], hint=error.hint or SAVE_AGAIN)
    readable = Finding(check="format", verdict="pass", message=f"valid as {given.encoding}")
    registry = discover()
    checks = [
        registry[name](subject, chosen[name])
        for name in registry
        if getattr(chosen[name], "enabled", True)
    ]
    if findings := _findings(check.header() for check in checks):
        return Screening([readable, *findings], hint=_hint(findings))
    reading = _Reading(update, base, progress, executor or Serial())
    try:
        # How many threads share a sum decides its last bits.
        with one_thread_products:
            totals = reading.totals(checks, key)
    except (UndecodableUpdate, NonFiniteWeights) as error:
        return Screening([readable, _rejection("decoding", error)], hint=error.hint)
    if findings := _findings(check.values() for check in checks):
        return Screening([readable, *findings], hint=_hint(findings))
    measures = totals.measures(past.base_norm or reading.base_norm(totals))
    findings = [check.conclude(measures, past) for check in checks]
    return Screening([readable, *findings], measures, _hint(findings), checks)


@dataclass(frozen=True)
class _Reading:
    """The one pass over an update and its base."""

    update: SentUpdate
    base: Checkpoint
    progress: Progress
    executor: Executor

    def totals(self, checks: Sequence[Check], key: bytes) -> Totals:
        """Read all values and show what was measured of each chunk to all checks."""
        totals = Totals(key, body(self.base.spans()))
        watching = [check for check in checks if type(check).observe is not Check.observe]
        for chunk in measured(self.update, self.base, key, self.executor):
            totals.add(chunk)
            for check in watching:
                check.observe(chunk)
            self.progress(4 * chunk.elements)
        return totals

    def base_norm(self, totals: Totals) -> float:
        """Read of the base what the update leaves as it is, and return the norm of its body."""
        with one_thread_products:
            unread = unread_squares(self.update, self.base, self.executor, self.progress)
        return sqrt(totals.base_squares + unread)


def _findings(found: Iterable[Finding | None]) -> list[Finding]:
    return [finding for finding in found if finding is not None]


def _hint(findings: Iterable[Finding]) -> str | None:
    """Return what the first check that rejects has to say to that."""
    guilty = (finding.check for finding in findings if finding.verdict == "reject")
    return next((discover()[name].hint for name in guilty), None)


def _subject(given: Encoded, update: SentUpdate, base: Checkpoint) -> Subject:
    return Subject(
        given.encoding,
        frozenset(update.names),
        given.frozen,
        base.spans(),
        outside=_outside(given, base),
        stored=base.tensors,
    )


def _outside(given: Encoded, base: Checkpoint) -> dict[str, StoredTensor]:
    """Return what weights and adapters have beside the body; differences cannot have any."""
    if given.encoding == "full":
        shared = body(base.spans())
        tensors = own_tensors(given.sources[SINGLE_FILE], base.tensors)
        return {name: tensor for name, tensor in tensors.items() if name not in shared}
    if given.encoding == "lora":
        tensors = Checkpoint({ADAPTER_WEIGHTS: given.sources[ADAPTER_WEIGHTS]}).tensors
        ours = without_heads(tensors, base.tensors)
        return {name: tensor for name, tensor in tensors.items() if name not in ours}
    return {}


def _rejection(check: str, error: ColdFusionError) -> Finding:
    return Finding(
        check=check, verdict="reject", message=error.message, tensors=list(error.tensors)[:10]
    )
