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
from coldfusion_shared.rounds import RoundState


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


class ModelRow(Table):
    """A line of bases."""

    __tablename__ = "models"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    public: Mapped[bool]
    policy: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    # The head. It moves in the transaction that publishes, and nowhere else.
    current: Mapped[int]


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
    # When its differences from its parent were made, if that was worth it.
    differences_at: Mapped[datetime | None]
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


class TokenRow(Table):
    """A token; the secret itself is shown once and never kept."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    contributor_id: Mapped[int] = mapped_column(ForeignKey("contributors.id"), index=True)
    role: Mapped[str] = mapped_column(String(20))
    sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    contributor: Mapped[ContributorRow] = relationship()


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
    # The fused base before publication: a manifest, once all its objects are stored.
    candidate: Mapped[str | None] = mapped_column(Text)
    opened_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    retry_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)
    fused_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    total_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    reason: Mapped[str | None] = mapped_column(Text)


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
            sqlite_where=text("state IN ('accepted', 'fused')"),
            postgresql_where=text("state IN ('accepted', 'fused')"),
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
    reason: Mapped[str | None] = mapped_column(Text)
    hint: Mapped[str | None] = mapped_column(Text)
    # Place in the order of acceptance, which is the order of the fuse.
    position: Mapped[int | None]
    weight: Mapped[float | None] = mapped_column(Float)
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
    # When garbage collection removed the bytes.
    erased_at: Mapped[datetime | None]


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
    """What an evaluator measured of a base."""

    __tablename__ = "evaluations"
    __table_args__ = (
        # Of equal reports by one evaluator the database keeps one.
        Index(
            "uq_evaluations_same_report",
            "base_id",
            "contributor_id",
            "report_sha256",
            unique=True,
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    base_id: Mapped[int] = mapped_column(ForeignKey("bases.id"), index=True)
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
    software: Mapped[str | None]
    # Null where it was kept before equal reports were told apart.
    report_sha256: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime]
    contributor: Mapped[ContributorRow] = relationship()


class EvaluationTryRow(Table):
    """How often the Repository's own evaluator began with a base, until it came to an end."""

    __tablename__ = "evaluation_tries"

    base_id: Mapped[int] = mapped_column(ForeignKey("bases.id"), primary_key=True)
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


class LeaseRow(Table):
    """Who works on what, until when. The fencing number grows each time that it changes hands."""

    __tablename__ = "leases"

    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    holder: Mapped[str] = mapped_column(String(100))
    fencing: Mapped[int]
    expires_at: Mapped[datetime]
