"""how long screenings, fuses and evaluations took"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.create_table(
        "work_times",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(length=20), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_work_times")),
    )
    op.create_index("ix_work_times_kind", "work_times", ["kind", "model_id", "outcome", "seconds"])


def downgrade() -> None:
    op.drop_table("work_times")
