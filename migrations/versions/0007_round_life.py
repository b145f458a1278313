"""the life of a round: candidates, gates, late and kept contributions, head moves, replays"""

import secrets
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

CHOOSABLE = (
    "state IN ('accepted', 'fused', 'set_aside') "
    "OR (state = 'withdrawn' AND result_number IS NOT NULL)"
)
BEFORE = "state IN ('accepted', 'fused')"


def upgrade() -> None:
    _add_head_moves()
    _add_replays()
    _add_candidates()
    _move_candidates()
    with op.batch_alter_table("rounds", schema=None) as batch_op:
        batch_op.add_column(sa.Column("gate", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("close_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("evaluating_at", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("rounds", schema=None, recreate="never") as batch_op:
        batch_op.drop_column("candidate")
    with op.batch_alter_table("bases", schema=None) as batch_op:
        batch_op.add_column(sa.Column("parent_number", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("replays_number", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("signature", sa.Text(), nullable=True))
    with op.batch_alter_table("contributions", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("chosen", sa.Boolean(), server_default=sa.false(), nullable=False)
        )
        batch_op.add_column(
            sa.Column("carried", sa.Integer(), server_default=sa.text("0"), nullable=False)
        )
        batch_op.add_column(sa.Column("staleness", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("factor", sa.Float(), nullable=True))
    _unique_weights(CHOOSABLE)
    with op.batch_alter_table("evaluations", schema=None) as batch_op:
        batch_op.alter_column("base_id", existing_type=sa.Integer(), nullable=True)
        batch_op.add_column(sa.Column("candidate_id", sa.String(length=16), nullable=True))
        batch_op.add_column(sa.Column("negative_flips", sa.JSON(), nullable=True))
        batch_op.create_foreign_key(
            batch_op.f("fk_evaluations_candidate_id_candidates"),
            "candidates",
            ["candidate_id"],
            ["id"],
        )
        batch_op.create_index(
            batch_op.f("ix_evaluations_candidate_id"), ["candidate_id"], unique=False
        )
        batch_op.create_index(
            "uq_evaluations_same_candidate_report",
            ["candidate_id", "contributor_id", "report_sha256"],
            unique=True,
        )
    _tries_of_anything()
    _fill()


def downgrade() -> None:
    _tries_of_bases()
    op.execute("DELETE FROM evaluations WHERE base_id IS NULL")
    with op.batch_alter_table("evaluations", schema=None) as batch_op:
        batch_op.drop_index("uq_evaluations_same_candidate_report")
        batch_op.drop_index(batch_op.f("ix_evaluations_candidate_id"))
        batch_op.drop_constraint(
            batch_op.f("fk_evaluations_candidate_id_candidates"), type_="foreignkey"
        )
        batch_op.drop_column("negative_flips")
        batch_op.drop_column("candidate_id")
        batch_op.alter_column("base_id", existing_type=sa.Integer(), nullable=False)
    # What the older program does not know had been accepted.
    op.execute("UPDATE contributions SET state = 'rejected' WHERE state = 'set_aside'")
    _unique_weights(BEFORE)
    with op.batch_alter_table("contributions", schema=None, recreate="never") as batch_op:
        for column in ("factor", "staleness", "carried", "chosen"):
            batch_op.drop_column(column)
    with op.batch_alter_table("bases", schema=None, recreate="never") as batch_op:
        batch_op.drop_column("signature")
        batch_op.drop_column("replays_number")
        batch_op.drop_column("parent_number")
    with op.batch_alter_table("rounds", schema=None, recreate="never") as batch_op:
        batch_op.add_column(sa.Column("candidate", sa.Text(), nullable=True))
        for column in ("evaluating_at", "close_at", "gate"):
            batch_op.drop_column(column)
    op.execute(
        "UPDATE rounds SET candidate = (SELECT manifest FROM candidates "
        "WHERE candidates.round_id = rounds.id ORDER BY chosen DESC, id LIMIT 1)"
    )
    op.drop_table("candidates")
    op.drop_table("replays")
    op.drop_table("head_moves")


def _add_head_moves() -> None:
    op.create_table(
        "head_moves",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("from_number", sa.Integer(), nullable=True),
        sa.Column("to_number", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("contributor_id", sa.Integer(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_head_moves_model_id_models")
        ),
        sa.ForeignKeyConstraint(
            ["contributor_id"],
            ["contributors.id"],
            name=op.f("fk_head_moves_contributor_id_contributors"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_head_moves")),
    )
    with op.batch_alter_table("head_moves", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_head_moves_model_id"), ["model_id"], unique=False)


def _add_replays() -> None:
    op.create_table(
        "replays",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("without", sa.JSON(), nullable=False),
        sa.Column("from_number", sa.Integer(), nullable=False),
        sa.Column("head_number", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("contributor_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_replays_model_id_models")
        ),
        sa.ForeignKeyConstraint(
            ["contributor_id"],
            ["contributors.id"],
            name=op.f("fk_replays_contributor_id_contributors"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replays")),
    )
    with op.batch_alter_table("replays", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_replays_model_id"), ["model_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_replays_state"), ["state"], unique=False)


def _add_candidates() -> None:
    op.create_table(
        "candidates",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("round_id", sa.Integer(), nullable=True),
        sa.Column("replay_id", sa.String(length=16), nullable=True),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("server_lr", sa.Float(), nullable=True),
        sa.Column("manifest", sa.Text(), nullable=False),
        sa.Column("relative_norm", sa.Float(), nullable=True),
        sa.Column("distance", sa.Float(), nullable=True),
        sa.Column("chosen", sa.Boolean(), nullable=False),
        sa.Column("given_up", sa.Boolean(), nullable=False),
        sa.Column("base_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_candidates_model_id_models")
        ),
        sa.ForeignKeyConstraint(
            ["round_id"], ["rounds.id"], name=op.f("fk_candidates_round_id_rounds")
        ),
        sa.ForeignKeyConstraint(
            ["replay_id"], ["replays.id"], name=op.f("fk_candidates_replay_id_replays")
        ),
        sa.ForeignKeyConstraint(
            ["base_id"], ["bases.id"], name=op.f("fk_candidates_base_id_bases")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_candidates")),
    )
    with op.batch_alter_table("candidates", schema=None) as batch_op:
        for column in ("model_id", "round_id", "replay_id"):
            batch_op.create_index(batch_op.f(f"ix_candidates_{column}"), [column], unique=False)


def _move_candidates() -> None:
    """What rounds had fused goes on as it is, also where they have not published it yet."""
    rounds = sa.table(
        "rounds",
        sa.column("id", sa.Integer),
        sa.column("model_id", sa.Integer),
        sa.column("candidate", sa.Text),
        sa.column("state", sa.String),
        sa.column("opened_at", sa.DateTime(timezone=True)),
    )
    candidates = sa.table(
        "candidates",
        *(sa.column(name) for name in ("id", "model_id", "round_id", "manifest")),
        sa.column("step", sa.Integer),
        sa.column("chosen", sa.Boolean),
        sa.column("given_up", sa.Boolean),
        sa.column("created_at", sa.DateTime(timezone=True)),
    )
    found = op.get_bind().execute(sa.select(rounds).where(rounds.c.candidate.is_not(None)))
    rows = [
        {
            "id": secrets.token_hex(8),
            "model_id": row.model_id,
            "round_id": row.id,
            "manifest": row.candidate,
            "step": 0,
            "chosen": True,
            "given_up": row.state in ("published", "rejected", "cancelled"),
            "created_at": row.opened_at,
        }
        for row in found
    ]
    if rows:
        op.bulk_insert(candidates, rows)


def _tries_of_anything() -> None:
    """Candidates are tried, too. What is under way is counted anew, which costs a try or two."""
    op.drop_table("evaluation_tries")
    _create_tries(sa.Column("subject", sa.String(length=20), nullable=False))


def _tries_of_bases() -> None:
    op.drop_table("evaluation_tries")
    _create_tries(
        sa.Column("base_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["base_id"], ["bases.id"], name=op.f("fk_evaluation_tries_base_id_bases")
        ),
    )


def _create_tries(subject: sa.Column[Any], *constraints: sa.Constraint) -> None:
    op.create_table(
        "evaluation_tries",
        subject,
        sa.Column("suite_digest", sa.String(length=64), nullable=False),
        sa.Column("protocol", sa.String(length=20), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        *constraints,
        sa.PrimaryKeyConstraint(
            subject.name, "suite_digest", "protocol", name=op.f("pk_evaluation_tries")
        ),
    )


def _unique_weights(where: str) -> None:
    with op.batch_alter_table("contributions", schema=None) as batch_op:
        batch_op.drop_index("uq_contributions_same_weights")
        batch_op.create_index(
            "uq_contributions_same_weights",
            ["model_id", "tensors_digest"],
            unique=True,
            sqlite_where=sa.text(where),
            postgresql_where=sa.text(where),
        )


def _fill() -> None:
    """Say of what there is what the new columns say of what comes."""
    op.execute("UPDATE bases SET parent_number = number - 1 WHERE number > 0")
    op.execute(
        "INSERT INTO head_moves (model_id, kind, from_number, to_number, at) "
        "SELECT model_id, 'published', number - 1, number, created_at FROM bases WHERE number > 0"
    )
    true = "true" if op.get_bind().dialect.name == "postgresql" else "1"
    op.execute(
        f"UPDATE contributions SET chosen = {true} WHERE state = 'fused' OR (state = 'accepted' "
        "AND round_id IN (SELECT id FROM rounds WHERE state <> 'open'))"
    )
