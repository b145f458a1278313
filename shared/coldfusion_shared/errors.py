"""
Every error that we raise on purpose, as a tree:

* ColdFusionError
  x UnknownName, DuplicateName, MissingExtra
  x InvalidTransition
  x NotFound
    · ModelNotFound, BaseNotFound, FileNotInBase, RoundNotFound, ContributionNotFound,
      TokenNotFound, SuiteNotFound
  x Unauthenticated, TokenExpired, Forbidden, QuotaExceeded
  x InvalidRequest
  x Conflict
    · ModelExists, BaseOutdated, AlreadyContributed, IdempotencyMismatch,
      StateConflict, RoundNotClosable, UploadIncomplete, LeaseLost, SuiteChanged
  x TooLarge
  x UploadRefused (an upload URL is wrong, expired, or its body is not what it signs)
  x BadWeights
    · MalformedWeights, IncompatibleWeights, NonFiniteWeights, UndecodableUpdate, EncodingRefused,
      DigestMismatch, ContributionRejected
  x BadModel (a folder that is no model)
  x BadData (a contributor's data set)
  x BadSuite (a suite file, or data that it names)
  x BadBackup (a backup of a database)
  x TrainingFailed, EvaluationFailed
  x StorageFull, StorageUnavailable, DatabaseUnavailable
  x ServerUnreachable, ServerError (seen from a client)
  x ConfigurationError
    · PortInUse, DataFolderTooNew

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
        self, message: str, *, hint: str | None = None, tensors: Sequence[str] = ()
    ) -> None:
        """
        Keep what is wrong and what to do about it.

        Args:
            message: one sentence for the person who has to act on it.
            hint: what to do next, often a command to type.
            tensors: names of the tensors that are at fault, where tensors are.
        """
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.tensors = tuple(tensors)


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


class Unauthenticated(ColdFusionError):
    """No valid token came with the request."""

    code = "unauthenticated"


class TokenExpired(ColdFusionError):
    """The token was good once."""

    code = "token_expired"


class Forbidden(ColdFusionError):
    """The token is good, but its role may not do this."""

    code = "forbidden"


class QuotaExceeded(ColdFusionError):
    """The contributor has as much stored, or on its way, as this Repository allows."""

    code = "quota_exceeded"


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


class TooLarge(ColdFusionError):
    """A body or a file is larger than allowed."""

    code = "too_large"


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


class ConfigurationError(ColdFusionError):
    """A setting cannot be used."""

    code = "configuration"


class PortInUse(ConfigurationError):
    """Another program listens there already."""

    code = "port_in_use"


class DataFolderTooNew(ConfigurationError):
    """The data folder was written by a newer version."""

    code = "data_folder_too_new"


def all_errors(root: type[ColdFusionError] = ColdFusionError) -> list[type[ColdFusionError]]:
    """Return `root` and every class below it, parents before children."""
    return [root, *(error for child in root.__subclasses__() for error in all_errors(child))]
