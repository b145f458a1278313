"""what screening measured, and what maintainers decided on what it had put into quarantine"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

HELD = (
    "state IN ('quarantined', 'accepted', 'fused', 'set_aside') "
    "OR (state = 'withdrawn' AND result_number IS NOT NULL)"
)
BEFORE = (
    "state IN ('accepted', 'fused', 'set_aside') "
    "OR (state = 'withdrawn' AND result_number IS NOT NULL)"
)


def upgrade() -> None:
    with op.batch_alter_table("repository", schema=None) as batch_op:
        batch_op.add_column(sa.Column("screening_key", sa.String(length=64), nullable=True))
    with op.batch_alter_table("contributions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("measures", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("sketch", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("decided_by", sa.String(length=100), nullable=True))
        batch_op.add_column(sa.Column("decision", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("cosine", sa.Float(), nullable=True))
        batch_op.add_column(sa.Column("norm_ratio", sa.Float(), nullable=True))
        batch_op.add_column(sa.Column("effect", sa.JSON(), nullable=True))
    _unique_weights(HELD)


def downgrade() -> None:
    _unique_weights(BEFORE)
    with op.batch_alter_table("contributions", schema=None, recreate="never") as batch_op:
        for column in (
            "effect",
            "norm_ratio",
            "cosine",
            "decision",
            "decided_by",
            "sketch",
            "measures",
        ):
            batch_op.drop_column(column)
    with op.batch_alter_table("repository", schema=None, recreate="never") as batch_op:
        batch_op.drop_column("screening_key")


def _unique_weights(where: str) -> None:
    with op.batch_alter_table("contributions", schema=None, recreate="never") as batch_op:
        batch_op.drop_index("uq_contributions_same_weights")
        batch_op.create_index(
            "uq_contributions_same_weights",
            ["model_id", "tensors_digest"],
            unique=True,
            sqlite_where=sa.text(where),
            postgresql_where=sa.text(where),
        )
