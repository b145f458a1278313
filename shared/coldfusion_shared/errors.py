"""
Every error that we raise on purpose, as a tree:

* ColdFusionError
  x UnknownName, DuplicateName, MissingExtra
  x InvalidTransition
  x NotFound
    · ModelNotFound, BaseNotFound, FileNotInBase, RoundNotFound, ContributionNotFound,
      TokenNotFound, SuiteNotFound, CandidateNotFound, ReplayNotFound, InvitationNotFound,
      WebhookNotFound
  x EventsGone (what somebody wants to go on from)
  x Unauthenticated, TokenExpired, TokenRevoked, Forbidden, QuotaExceeded
  x InvitationRefused (a code that does not let its bearer in)
  x SignInRefused, ProviderUnavailable (signing in by a provider of identities)
  x RateLimited (too many requests, or wrong tokens)
  x InvalidRequest
  x Conflict
    · ModelExists, BaseOutdated, AlreadyContributed, IdempotencyMismatch,
      StateConflict, RoundNotClosable, UploadIncomplete, LeaseLost, SuiteChanged, NameTaken
  x TooLarge, TooSlow
  x UploadRefused (an upload URL is wrong, expired, or its body is not what it signs)
  x BadWeights
    · MalformedWeights, IncompatibleWeights, NonFiniteWeights, UndecodableUpdate, EncodingRefused,
      DigestMismatch, ContributionRejected
  x BadModel (a folder that is no model)
  x BadData (a contributor's data set)
  x BadSuite (a suite file, or data that it names)
  x BadBackup (a backup of a database)
  x AuditBroken (the audit log is not what was written)
  x TrainingFailed, EvaluationFailed
  x StorageFull, StorageUnavailable, DatabaseUnavailable
  x ServerUnreachable, ServerError (seen from a client)
  x Untrusted (what a Repository says is not proven to be its own)
    · BadSignature, KeyChanged, HistoryChanged
  x ConfigurationError
    · PortInUse, DataFolderTooNew, BadKey

`code` is stable and travels over the wire; the server's `api/errors.py` gives each its HTTP status,
the client's `cli/errors.py` its exit code. `message` says what is wrong, `hint` what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class ColdFusionError(Exception):
    """Base of every error that we raise on purpose."""

    code: ClassVar[str] = "internal"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        tensors: Sequence[str] = (),
        retry_after: int | None = None,
    ) -> None:
        """
        Keep what is wrong and what to do about it.

        Args:
            message: one sentence for the person who has to act on it.
            hint: what to do next, often a command to type.
            tensors: names of the tensors that are at fault, where tensors are.
            retry_after: seconds after which the same may go well, where that is known.
        """
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.tensors = tuple(tensors)
        self.retry_after = retry_after


class UnknownName(ColdFusionError):
    """No plug-in of that kind has that name."""

    code = "unknown_name"


class DuplicateName(ColdFusionError):
    """Two plug-ins of one kind want the same name."""

    code = "duplicate_name"


class MissingExtra(ColdFusionError):
    """An optional dependency is needed and not installed."""

    code = "missing_extra"

    @classmethod
    def of(cls, extra: str, module: str) -> MissingExtra:
        """Say which module is missing and the line that installs it."""
        return cls(
            f"This needs the Python package {module!r}, which is not installed.",
            hint=f"Run: pip install 'coldfusion[{extra}]'",
        )


class InvalidTransition(ColdFusionError):
    """A round or a contribution may not go from its state to the one asked for."""

    code = "invalid_transition"


class NotFound(ColdFusionError):
    """What was named does not exist, or its existence is none of the caller's business."""

    code = "not_found"


class ModelNotFound(NotFound):
    """There is no such model, or it is private and the caller may not read it."""

    code = "model_not_found"


class BaseNotFound(NotFound):
    """The model has no base of that version."""

    code = "base_not_found"


class FileNotInBase(NotFound):
    """The base has no file of that path."""

    code = "file_not_found"


class RoundNotFound(NotFound):
    """The model has no round of that number."""

    code = "round_not_found"


class ContributionNotFound(NotFound):
    """There is no such contribution."""

    code = "contribution_not_found"


class TokenNotFound(NotFound):
    """There is no such token."""

    code = "token_not_found"


class SuiteNotFound(NotFound):
    """The Repository knows no suite of that name, or the caller may not see it."""

    code = "suite_not_found"


class CandidateNotFound(NotFound):
    """The model has no such candidate, or it has been given up."""

    code = "candidate_not_found"


class ReplayNotFound(NotFound):
    """The model has no such replay."""

    code = "replay_not_found"


class InvitationNotFound(NotFound):
    """There is no such invitation, or it is none of the caller's business."""

    code = "invitation_not_found"


class WebhookNotFound(NotFound):
    """There is no such webhook or delivery, or it is none of the caller's business."""

    code = "webhook_not_found"


class EventsGone(ColdFusionError):
    """Events that were to be gone on from are not kept any more, or have never been."""

    code = "events_gone"


class Unauthenticated(ColdFusionError):
    """No valid token came with the request."""

    code = "unauthenticated"


class TokenExpired(ColdFusionError):
    """The token was good once."""

    code = "token_expired"


class TokenRevoked(ColdFusionError):
    """The token was good until somebody revoked it, or blocked its holder."""

    code = "token_revoked"


class Forbidden(ColdFusionError):
    """The token is good, but its role, or the models that it is for, do not allow this."""

    code = "forbidden"


class QuotaExceeded(ColdFusionError):
    """The contributor has sent, or has stored, as much as this Repository allows."""

    code = "quota_exceeded"


class InvitationRefused(ColdFusionError):
    """The code of an invitation is wrong, was used before, has expired or was revoked."""

    code = "invitation_refused"


class SignInRefused(ColdFusionError):
    """What a provider says of somebody is not proven, not meant for here, or not enough."""

    code = "sign_in_refused"


class ProviderUnavailable(ColdFusionError):
    """The provider by which people sign in does not answer, or with something that is no answer."""

    code = "provider_unavailable"


class RateLimited(ColdFusionError):
    """Too many requests, or too many wrong tokens, came in a short time; it passes."""

    code = "rate_limited"


class InvalidRequest(ColdFusionError):
    """A parameter or a body does not have the form that is asked for."""

    code = "invalid_request"


class Conflict(ColdFusionError):
    """What is asked for contradicts the present state."""

    code = "conflict"


class ModelExists(Conflict):
    """The name is taken."""

    code = "model_exists"


class BaseOutdated(Conflict):
    """The contribution was made from a base that is no longer the newest."""

    code = "base_outdated"


class AlreadyContributed(Conflict):
    """The same weights were contributed before."""

    code = "already_contributed"


class IdempotencyMismatch(Conflict):
    """An idempotency key came again with another request."""

    code = "idempotency_mismatch"


class StateConflict(Conflict):
    """A contribution's or round's state does not allow this any more."""

    code = "state_conflict"


class RoundNotClosable(Conflict):
    """The round has nothing to fuse."""

    code = "round_not_closable"


class UploadIncomplete(Conflict):
    """Parts of an upload have not arrived."""

    code = "upload_incomplete"


class LeaseLost(Conflict):
    """Another worker holds the lease by now; what this one was doing must not be written."""

    code = "lease_lost"


class SuiteChanged(Conflict):
    """The data, or the definition, are no longer those that a suite's name stands for."""

    code = "suite_changed"


class NameTaken(Conflict):
    """Another contributor has that name, or the Repository itself."""

    code = "name_taken"


class TooLarge(ColdFusionError):
    """A body or a file is larger than allowed."""

    code = "too_large"


class TooSlow(ColdFusionError):
    """A body does not arrive, or only in drops."""

    code = "too_slow"


class UploadRefused(ColdFusionError):
    """An upload URL is wrong or expired, or the body is not what the URL was signed for."""

    code = "upload_refused"


class BadWeights(ColdFusionError):
    """A weights file cannot be taken."""

    code = "bad_weights"


class MalformedWeights(BadWeights):
    """The file is not safetensors, by the strict reading of its specification."""

    code = "malformed_weights"


class IncompatibleWeights(BadWeights):
    """Names, shapes or dtypes differ from the base's."""

    code = "incompatible_weights"


class UndecodableUpdate(BadWeights):
    """An encoded update holds something that its encoding cannot mean."""

    code = "undecodable_update"


class EncodingRefused(BadWeights):
    """The model's policy does not take contributions in that encoding."""

    code = "encoding_refused"


class NonFiniteWeights(BadWeights):
    """A tensor holds NaN or infinity."""

    code = "non_finite_weights"


class DigestMismatch(BadWeights):
    """The bytes are not the ones that were declared."""

    code = "digest_mismatch"


class ContributionRejected(BadWeights):
    """Screening rejected the contribution."""

    code = "contribution_rejected"


class BadModel(ColdFusionError):
    """A folder or hub repository is not a model that can serve as a base."""

    code = "bad_model"


class BadData(ColdFusionError):
    """A contributor's data set cannot be read or learnt from."""

    code = "bad_data"


class BadSuite(ColdFusionError):
    """A suite file, or a data set that it names, cannot be used."""

    code = "bad_suite"


class BadBackup(ColdFusionError):
    """A backup cannot be read, or the database cannot keep what it holds."""

    code = "bad_backup"


class AuditBroken(ColdFusionError):
    """An entry of the audit log was changed, removed or put in."""

    code = "audit_broken"


class TrainingFailed(ColdFusionError):
    """Finetuning could not be finished."""

    code = "training_failed"


class EvaluationFailed(ColdFusionError):
    """A base could not be measured, or its scores are no numbers."""

    code = "evaluation_failed"


class StorageFull(ColdFusionError):
    """The disk or the bucket has no room left."""

    code = "storage_full"


class StorageUnavailable(ColdFusionError):
    """The object store does not answer or refuses."""

    code = "storage_unavailable"


class DatabaseUnavailable(ColdFusionError):
    """The database does not answer."""

    code = "database_unavailable"


class ServerUnreachable(ColdFusionError):
    """The Repository did not answer, also not after several tries."""

    code = "server_unreachable"


class ServerError(ColdFusionError):
    """The Repository answered with something that only its operator can mend."""

    code = "server_error"


class Untrusted(ColdFusionError):
    """What is said to come from a Repository is not proven to."""

    code = "untrusted"


class BadSignature(Untrusted):
    """A signature is missing, wrong, or made for something else."""

    code = "bad_signature"


class KeyChanged(Untrusted):
    """It was signed, but with another key than the one that is trusted."""

    code = "key_changed"


class HistoryChanged(Untrusted):
    """A base that was published before is another one now, or was taken back without a word."""

    code = "history_changed"


class ConfigurationError(ColdFusionError):
    """A setting cannot be used."""

    code = "configuration"


class PortInUse(ConfigurationError):
    """Another program listens there already."""

    code = "port_in_use"


class DataFolderTooNew(ConfigurationError):
    """The data folder was written by a newer version."""

    code = "data_folder_too_new"


class BadKey(ConfigurationError):
    """A file, or a setting, does not hold a key that can be used."""

    code = "bad_key"


def all_errors(root: type[ColdFusionError] = ColdFusionError) -> list[type[ColdFusionError]]:
    """Return `root` and every class below it, parents before children."""
    return [root, *(error for child in root.__subclasses__() for error in all_errors(child))]
