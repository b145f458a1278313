"""The tables."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.replays import ReplayState
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.webhooks import DeliveryState

# Contributions whose weights may not be contributed again: what was fused is never forgotten, and
# what is in quarantine keeps its place, so that nothing stands in the way of its release.
_CONTRIBUTED = (
    "state IN ('quarantined', 'accepted', 'fused', 'set_aside') "
    "OR (state = 'withdrawn' AND result_number IS NOT NULL)"
)


class UtcDateTime(TypeDecorator[datetime]):
    """A time in UTC. SQLite keeps no time zone, so it is put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store in UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return with time zone."""
        if value is not None and value.tzinfo is None:
            return value.replace(tzinfo=UTC)
        return value


class Table(DeclarativeBase):
    """Base class of all tables; not called Base, which here means a base model."""

    # Predictable names, so that migrations can name constraints on every database.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[Any]: JSON,
        str: String(500),
    }


class RepositoryRow(Table):
    """The Repository's own name, one row; it is written into the store that belongs to it."""

    __tablename__ = "repository"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    created_at: Mapped[datetime]
    # In hexadecimal; made when it is first asked for. Never another one: what was measured with
    # one key cannot be compared with what was measured with another.
    screening_key: Mapped[str | None] = mapped_column(String(64))


class ModelRow(Table):
    """A line of bases."""

    __tablename__ = "models"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    public: Mapped[bool]
    policy: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    # The head's number. Every move of it has its row among the head moves.
    current: Mapped[int]


class HeadMoveRow(Table):
    """The head of a model went from one base to another."""

    __tablename__ = "head_moves"

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"), index=True)
    # Published, rollback or replay.
    kind: Mapped[str] = mapped_column(String(20))
    from_number: Mapped[int | None]
    to_number: Mapped[int]
    reason: Mapped[str | None] = mapped_column(Text)
    # Who decided it; null: the round's policy.
    contributor_id: Mapped[int | None] = mapped_column(ForeignKey("contributors.id"))
    at: Mapped[datetime]
    contributor: Mapped[ContributorRow | None] = relationship()


class BaseRow(Table):
    """A published, immutable version of a model."""

    __tablename__ = "bases"
    __table_args__ = (UniqueConstraint("model_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    number: Mapped[int]
    digest: Mapped[str] = mapped_column(String(64), index=True)
    # The canonical manifest as text: what the digest is taken of, to the byte.
    manifest: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    # The number of the base that it was fused onto; null for v0.
    parent_number: Mapped[int | None]
    # The number of the base that it stands in for, where a replay made it.
    replays_number: Mapped[int | None]
    # Signature of its files and its manifest, as JSON; null until it is made.
    signature: Mapped[str | None] = mapped_column(Text)
    # When its differences from its parent were made, if that was worth it.
    differences_at: Mapped[datetime | None]
    # Of its weights from v0's, over the norm of those; null until it is measured.
    distance: Mapped[float | None] = mapped_column(Float)
    # When the last try to measure it began.
    distance_tried_at: Mapped[datetime | None]
    files: Mapped[list[BaseFileRow]] = relationship(order_by="BaseFileRow.id")


class DifferenceRow(Table):
    """A stored difference, by which a file of a base is had from its parent's."""

    __tablename__ = "differences"
    __table_args__ = (UniqueConstraint("base_id", "path"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    base_id: Mapped[int] = mapped_column(ForeignKey("bases.id"))
    path: Mapped[str]
    old_sha256: Mapped[str] = mapped_column(String(64))
    new_sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64), index=True)


class BaseFileRow(Table):
    """One file of a base; the bytes are the object of that digest."""

    __tablename__ = "base_files"
    __table_args__ = (UniqueConstraint("base_id", "path"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    base_id: Mapped[int] = mapped_column(ForeignKey("bases.id"))
    path: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64), index=True)


class ContributorRow(Table):
    """A person, or a machine that works for one."""

    __tablename__ = "contributors"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    created_at: Mapped[datetime]
    # Since when nothing lets them in, neither tokens nor sign-ins nor invitations, and why.
    blocked_at: Mapped[datetime | None]
    blocked_reason: Mapped[str | None] = mapped_column(Text)


class TokenRow(Table):
    """A token; the secret itself is shown once and never kept."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    contributor_id: Mapped[int] = mapped_column(ForeignKey("contributors.id"), index=True)
    role: Mapped[str] = mapped_column(String(20))
    # Names of the models that the role is for; null: all, and what is no model's.
    models: Mapped[list[Any] | None]
    sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    contributor: Mapped[ContributorRow] = relationship()


class InvitationRow(Table):
    """A code that makes somebody a contributor, once; the code itself is shown once, too."""

    __tablename__ = "invitations"

    # Grows with time, for paging; the id is what the world sees.
    number: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(String(16), unique=True)
    sha256: Mapped[str] = mapped_column(String(64))
    # What the token will be: its holder's name (null: as he likes), role, models and lifetime.
    name: Mapped[str | None] = mapped_column(String(100))
    role: Mapped[str] = mapped_column(String(20))
    models: Mapped[list[Any] | None]
    lifetime_seconds: Mapped[int | None] = mapped_column(BigInteger)
    # The token by which it was made; null: at the data folder.
    made_by: Mapped[str | None] = mapped_column(ForeignKey("tokens.id"), index=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    # The token that came of it.
    token_id: Mapped[str | None] = mapped_column(ForeignKey("tokens.id"), index=True)
    maker: Mapped[TokenRow | None] = relationship(foreign_keys=made_by)
    token: Mapped[TokenRow | None] = relationship(foreign_keys=token_id)


class IdentityRow(Table):
    """Somebody whom a provider of identities knows, and who that is here; for ever the same."""

    __tablename__ = "identities"
    __table_args__ = (UniqueConstraint("issuer", "subject"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    issuer: Mapped[str]
    # The provider's id of the person; names and addresses change hands.
    subject: Mapped[str] = mapped_column(String(255))
    contributor_id: Mapped[int] = mapped_column(ForeignKey("contributors.id"), index=True)
    created_at: Mapped[datetime]
    contributor: Mapped[ContributorRow] = relationship()


class SignInRow(Table):
    """A token that somebody got for an id token, which is good once."""

    __tablename__ = "sign_ins"

    id_token_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    identity_id: Mapped[int] = mapped_column(ForeignKey("identities.id"), index=True)
    token_id: Mapped[str] = mapped_column(ForeignKey("tokens.id"), unique=True)
    # The token is a browser's session, and ends with it; nobody knows its secret.
    browser: Mapped[bool]
    token: Mapped[TokenRow] = relationship()


class RoundRow(Table):
    """One iteration of a model."""

    __tablename__ = "rounds"
    __table_args__ = (
        UniqueConstraint("model_id", "number"),
        # The database itself refuses a second open round of one model.
        Index(
            "uq_rounds_one_open",
            "model_id",
            unique=True,
            sqlite_where=text("state = 'open'"),
            postgresql_where=text("state = 'open'"),
        ),
        Index("ix_rounds_state", "state"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    number: Mapped[int]
    state: Mapped[RoundState] = mapped_column(String(20))
    base_number: Mapped[int]
    result_number: Mapped[int | None]
    # The model's policy as it was when the round closed.
    policy: Mapped[dict[str, Any] | None]
    # What the gate decided, or what it waits for.
    gate: Mapped[dict[str, Any] | None]
    opened_at: Mapped[datetime]
    # When it closes by hand.
    close_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]
    # When its candidates were stored; the gate's time runs from here.
    evaluating_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    retry_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)
    fused_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    total_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    reason: Mapped[str | None] = mapped_column(Text)


class CandidateRow(Table):
    """
    A fused base before publication; all its objects are stored.

    A round has one, or one for each server learning rate that it tries; a replay has one for each
    round that it fuses again.
    """

    __tablename__ = "candidates"

    # What the world sees.
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"), index=True)
    round_id: Mapped[int | None] = mapped_column(ForeignKey("rounds.id"), index=True)
    replay_id: Mapped[str | None] = mapped_column(ForeignKey("replays.id"), index=True)
    # Place in its replay; 0 for a round's.
    step: Mapped[int] = mapped_column(default=0)
    # Of a line search.
    server_lr: Mapped[float | None] = mapped_column(Float)
    # The canonical manifest as text.
    manifest: Mapped[str] = mapped_column(Text)
    # Norm of the step over the norm of what it was added to.
    relative_norm: Mapped[float | None] = mapped_column(Float)
    # Of a replay's: distance from the base that it stands in for, over that one's norm.
    distance: Mapped[float | None] = mapped_column(Float)
    # Whether it is the one that goes on.
    chosen: Mapped[bool] = mapped_column(default=False)
    # Its round or its replay ended without it, or was fused again: its objects may go.
    given_up: Mapped[bool] = mapped_column(default=False)
    # The base that it was published as.
    base_id: Mapped[int | None] = mapped_column(ForeignKey("bases.id"))
    created_at: Mapped[datetime]


class ReplayRow(Table):
    """History fused again without some contributions, into a new line of bases for review."""

    __tablename__ = "replays"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"), index=True)
    state: Mapped[ReplayState] = mapped_column(String(20), index=True)
    # Ids of contributions.
    without: Mapped[list[Any]]
    # The base that it starts from, and the head that it stands in for.
    from_number: Mapped[int]
    head_number: Mapped[int]
    # Why it was asked for, and why its last try failed or it was given up.
    reason: Mapped[str | None] = mapped_column(Text)
    failure: Mapped[str | None] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(default=0)
    retry_at: Mapped[datetime | None]
    contributor_id: Mapped[int | None] = mapped_column(ForeignKey("contributors.id"))
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    contributor: Mapped[ContributorRow | None] = relationship()


class ContributionRow(Table):
    """One upload and what became of it."""

    __tablename__ = "contributions"
    __table_args__ = (
        UniqueConstraint("contributor_id", "idempotency_key"),
        # Of twenty equal uploads that arrive at once, the database lets one be accepted.
        Index(
            "uq_contributions_same_weights",
            "model_id",
            "tensors_digest",
            unique=True,
            sqlite_where=text(_CONTRIBUTED),
            postgresql_where=text(_CONTRIBUTED),
        ),
        Index("ix_contributions_round_state", "round_id", "state"),
        Index("ix_contributions_state", "state"),
    )

    # Grows with time, for paging; the id is what the world sees.
    number: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"))
    base_number: Mapped[int]
    contributor_id: Mapped[int] = mapped_column(ForeignKey("contributors.id"))
    state: Mapped[ContributionState] = mapped_column(String(20))
    encoding: Mapped[str] = mapped_column(String(40))
    # Patterns of names of what was not trained.
    frozen: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"), default=list)
    idempotency_key: Mapped[str] = mapped_column(String(200))
    request_sha256: Mapped[str] = mapped_column(String(64))
    # Of the weights before they were encoded, as their contributor says.
    weights_sha256: Mapped[str | None] = mapped_column(String(64), index=True)
    work: Mapped[dict[str, Any]]
    findings: Mapped[list[Any]]
    tensors_digest: Mapped[str | None] = mapped_column(String(64))
    # What screening measured, for those that come later. It is large, and few ask for it.
    measures: Mapped[dict[str, Any] | None] = mapped_column(deferred=True)
    # A random projection of the update, by the Repository's screening key.
    sketch: Mapped[str | None] = mapped_column(Text, deferred=True)
    # Who released or rejected what was in quarantine, and why; null: screening alone decided.
    decided_by: Mapped[str | None] = mapped_column(String(100))
    decision: Mapped[str | None] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    hint: Mapped[str | None] = mapped_column(Text)
    # Place in the order of acceptance, which is the order of the fuse.
    position: Mapped[int | None]
    # Whether its round's closing took it; what it left goes on to the next round.
    chosen: Mapped[bool] = mapped_column(server_default=false(), default=False)
    # Times that it was moved on to a later round.
    carried: Mapped[int] = mapped_column(server_default=text("0"), default=0)
    # How many bases it was behind when its round closed, and the factor for it.
    staleness: Mapped[int | None]
    factor: Mapped[float | None] = mapped_column(Float)
    weight: Mapped[float | None] = mapped_column(Float)
    # Of its update in the fuse: with the mean of the round, and its norm over the median norm.
    cosine: Mapped[float | None] = mapped_column(Float)
    norm_ratio: Mapped[float | None] = mapped_column(Float)
    # What the Repository's own evaluator measured of it alone.
    effect: Mapped[dict[str, Any] | None]
    result_number: Mapped[int | None]
    declared_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    decided_at: Mapped[datetime | None]
    expires_at: Mapped[datetime]
    # How often its screening was begun and did not come to an end, and when the next try may be.
    attempts: Mapped[int] = mapped_column(server_default=text("0"), default=0)
    retry_at: Mapped[datetime | None]
    contributor: Mapped[ContributorRow] = relationship()
    model: Mapped[ModelRow] = relationship()
    round: Mapped[RoundRow] = relationship()
    files: Mapped[list[ContributionFileRow]] = relationship(order_by="ContributionFileRow.id")


class ContributionFileRow(Table):
    """One file of a contribution, as declared."""

    __tablename__ = "contribution_files"
    __table_args__ = (UniqueConstraint("contribution_id", "path"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    contribution_id: Mapped[str] = mapped_column(ForeignKey("contributions.id"))
    path: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    part_bytes: Mapped[int] = mapped_column(BigInteger)
    # The base has this very file: it is not uploaded.
    here: Mapped[bool] = mapped_column(server_default=false(), default=False)
    # The store's key of its upload; null: by contribution and place.
    upload: Mapped[str | None] = mapped_column(String(40))
    # It was an object already when it was declared: there is no upload.
    stored: Mapped[bool] = mapped_column(server_default=false(), default=False)
    # When garbage collection removed the bytes.
    erased_at: Mapped[datetime | None]


class HubPullRow(Table):
    """A pull request of the hub door: files on their way to be one contribution."""

    __tablename__ = "hub_pulls"
    __table_args__ = (UniqueConstraint("model_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    # Within its model, from 1.
    number: Mapped[int]
    contributor_id: Mapped[int] = mapped_column(ForeignKey("contributors.id"))
    # What it was made from; null: no commit has come yet.
    base_number: Mapped[int | None]
    title: Mapped[str] = mapped_column(String(500))
    description: Mapped[str] = mapped_column(Text)
    # Sizes in bytes and digests of its files, by path.
    files: Mapped[dict[str, Any]]
    # 40 hexadecimal digits that name them as they are now; null: there are none yet.
    commit_id: Mapped[str | None] = mapped_column(String(40), index=True)
    # Null: there is no whole contribution among its files yet.
    contribution_id: Mapped[str | None] = mapped_column(ForeignKey("contributions.id"), index=True)
    created_at: Mapped[datetime]
    model: Mapped[ModelRow] = relationship()
    contributor: Mapped[ContributorRow] = relationship()


class HubUploadRow(Table):
    """Bytes that came through the hub door before anything was declared of them."""

    __tablename__ = "hub_uploads"
    __table_args__ = (UniqueConstraint("model_id", "contributor_id", "sha256"),)

    # The store's key is this and ".0".
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    contributor_id: Mapped[int] = mapped_column(ForeignKey("contributors.id"), index=True)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    size: Mapped[int] = mapped_column(BigInteger)
    part_bytes: Mapped[int] = mapped_column(BigInteger)
    # They are an object already: there is no upload.
    stored: Mapped[bool] = mapped_column(server_default=false(), default=False)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class HubXorbRow(Table):
    """
    A xorb: pieces of files, as hf_xet sends them, until there is a contribution of the files.

    One contributor's and one model's: nobody else can name it, nor find out that it is here.
    """

    __tablename__ = "hub_xorbs"
    __table_args__ = (UniqueConstraint("model_id", "contributor_id", "hash"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    contributor_id: Mapped[int] = mapped_column(ForeignKey("contributors.id"), index=True)
    # As its sender calls it; nobody looks whether it is the hash of anything.
    hash: Mapped[str] = mapped_column(String(64))
    # Of the object: the pieces, and where each ends. Null: it is on its way.
    sha256: Mapped[str | None] = mapped_column(String(64), index=True)
    # Of the object, in bytes; on its way, what its sender has announced.
    size: Mapped[int] = mapped_column(BigInteger)
    pieces: Mapped[int] = mapped_column(default=0)
    # The newest file that was made of it.
    file_sha256: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class HubAreaRow(Table):
    """
    The area that a contributor sends xorbs of a model to.

    Clients remember for weeks what they have sent to one address, and never send it again there.
    So the area is another one, with another address, as soon as something sent there is gone.
    """

    __tablename__ = "hub_areas"

    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"), primary_key=True)
    contributor_id: Mapped[int] = mapped_column(ForeignKey("contributors.id"), primary_key=True)
    number: Mapped[int]
    since: Mapped[datetime]


class SuiteRow(Table):
    """What a suite's name stands for; it never changes."""

    __tablename__ = "suites"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    # Of all but the name: two names may stand for the same.
    digest: Mapped[str] = mapped_column(String(64), index=True)
    # As it was sent; read by its schema.
    definition: Mapped[str] = mapped_column(Text)
    contributor_id: Mapped[int] = mapped_column(ForeignKey("contributors.id"))
    created_at: Mapped[datetime]
    contributor: Mapped[ContributorRow] = relationship()


class EvaluationRow(Table):
    """What an evaluator measured of a base, or of a candidate."""

    __tablename__ = "evaluations"
    __table_args__ = (
        # Of equal reports by one evaluator, one after the other, the database keeps one.
        Index(
            "uq_evaluations_same_report",
            "base_id",
            "contributor_id",
            "report_sha256",
            unique=True,
        ),
        Index(
            "uq_evaluations_same_candidate_report",
            "candidate_id",
            "contributor_id",
            "report_sha256",
            unique=True,
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    # A candidate's evaluations are the base's too, once it is published.
    base_id: Mapped[int | None] = mapped_column(ForeignKey("bases.id"), index=True)
    candidate_id: Mapped[str | None] = mapped_column(ForeignKey("candidates.id"), index=True)
    contributor_id: Mapped[int] = mapped_column(ForeignKey("contributors.id"))
    suite: Mapped[str]
    # Of the registered suite: data sets, their digests, and how many examples; null: not pinned.
    suite_digest: Mapped[str | None] = mapped_column(String(64), index=True)
    protocol: Mapped[str] = mapped_column(String(20))
    metric: Mapped[str]
    scores: Mapped[dict[str, Any]]
    standard_errors: Mapped[dict[str, Any] | None]
    by_seed: Mapped[dict[str, Any] | None]
    seeds: Mapped[list[Any] | None]
    # Percent of test examples that the base had right and the candidate has wrong, by data set.
    negative_flips: Mapped[dict[str, Any] | None]
    software: Mapped[str | None]
    # With what it follows; null where it was kept before equal reports were told apart.
    report_sha256: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime]
    contributor: Mapped[ContributorRow] = relationship()


class EvaluationTryRow(Table):
    """How often the Repository's own evaluator began with something, until it came to an end."""

    __tablename__ = "evaluation_tries"

    # A base's number among all, or a candidate's id; "again:" and the number of a measured base
    # that is wanted once more.
    subject: Mapped[str] = mapped_column(String(20), primary_key=True)
    suite_digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    protocol: Mapped[str] = mapped_column(String(20), primary_key=True)
    attempts: Mapped[int]
    retry_at: Mapped[datetime | None]
    # Why the last one failed; null where its process died.
    reason: Mapped[str | None] = mapped_column(Text)


class EventRow(Table):
    """What happened. Written in the transaction of what it tells, so it is never lost or untrue."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(primary_key=True)
    type: Mapped[str] = mapped_column(String(60))
    model: Mapped[str | None] = mapped_column(String(100), index=True)
    at: Mapped[datetime]
    data: Mapped[dict[str, Any]]


class WebhookRow(Table):
    """Where events are sent to, and which."""

    __tablename__ = "webhooks"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    # Null: events of all public models, and those of none.
    model_id: Mapped[int | None] = mapped_column(ForeignKey("models.id"), index=True)
    # Scheme, host and port: all that is told to more than its maintainers.
    origin: Mapped[str] = mapped_column(String(300))
    # URL, secret and Authorization header, encrypted: see `services.sealing`.
    sealed: Mapped[str] = mapped_column(Text)
    # Patterns of types of events.
    events: Mapped[list[Any]]
    format: Mapped[str] = mapped_column(String(20))
    active: Mapped[bool]
    # Up to this event all have their deliveries.
    cursor: Mapped[int] = mapped_column(BigInteger)
    # Tries that failed, one after the other, and when they began to.
    failures: Mapped[int] = mapped_column(default=0)
    failing_since: Mapped[datetime | None]
    # When the Repository gave it up; null: a maintainer did, or it is active.
    paused_at: Mapped[datetime | None]
    contributor_id: Mapped[int | None] = mapped_column(ForeignKey("contributors.id"))
    created_at: Mapped[datetime]
    model: Mapped[ModelRow | None] = relationship()
    contributor: Mapped[ContributorRow | None] = relationship()


class DeliveryRow(Table):
    """One event for one webhook, and what became of it."""

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("webhook_id", "event_id", name="uq_deliveries_webhook_id_event_id"),
        Index("ix_deliveries_webhook_number", "webhook_id", "number"),
        Index("ix_deliveries_state_next_try_at", "state", "next_try_at"),
    )

    # Grows with time, for paging; the id is what receivers see, the same at every try.
    number: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id"))
    # Null: a ping.
    event_id: Mapped[int | None] = mapped_column(BigInteger)
    # As it is sent, whatever becomes of the event.
    event: Mapped[dict[str, Any]]
    state: Mapped[DeliveryState] = mapped_column(String(20))
    attempts: Mapped[int] = mapped_column(default=0)
    next_try_at: Mapped[datetime | None]
    # Who tries at the moment, and when another one may.
    held_by: Mapped[str | None] = mapped_column(String(16))
    held_until: Mapped[datetime | None]
    tried_at: Mapped[datetime | None]
    # Of the last try: the answer's status, or why there was none; and how long it took.
    status: Mapped[int | None]
    error: Mapped[str | None]
    seconds: Mapped[float | None] = mapped_column(Float)
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    webhook: Mapped[WebhookRow] = relationship()


class AuditRow(Table):
    """
    One entry of the audit log, chained to the one before; see `events.chain`.

    Rows are only ever added: triggers refuse everything else. It refers to no other table, so that
    an entry stands for itself whatever becomes of what it tells.
    """

    __tablename__ = "audit"

    # Given out by us, without a gap.
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    # Texts as they are hashed: both databases give them back to the letter.
    at: Mapped[str] = mapped_column(String(27))
    by: Mapped[str] = mapped_column(String(100))
    token: Mapped[str | None] = mapped_column(String(16))
    action: Mapped[str] = mapped_column(String(60))
    model: Mapped[str | None] = mapped_column(String(100))
    subject: Mapped[str | None] = mapped_column(String(200))
    reason: Mapped[str | None] = mapped_column(Text)
    data: Mapped[str] = mapped_column(Text)
    previous: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(String(64))


class LeaseRow(Table):
    """Who works on what, until when. The fencing number grows each time that it changes hands."""

    __tablename__ = "leases"

    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    holder: Mapped[str] = mapped_column(String(100))
    fencing: Mapped[int]
    expires_at: Mapped[datetime]


class WorkTimeRow(Table):
    """How long a piece of work took, and how it ended: what the metrics' histograms are made of."""

    __tablename__ = "work_times"
    # All that is asked of it, in the order in which it is grouped.
    __table_args__ = (Index("ix_work_times_kind", "kind", "model_id", "outcome", "seconds"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    # Screening, fusing or evaluation.
    kind: Mapped[str] = mapped_column(String(20))
    # No foreign key: whoever writes this would wait for who holds the model's row.
    model_id: Mapped[int]
    outcome: Mapped[str] = mapped_column(String(20))
    seconds: Mapped[float] = mapped_column(Float)
