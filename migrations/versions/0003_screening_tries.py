"""how often the screening of a contribution was begun"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    with op.batch_alter_table("contributions", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False)
        )
        batch_op.add_column(sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    # SQLite's copy of the table could not take its place: other tables refer to it.
    with op.batch_alter_table("contributions", schema=None, recreate="never") as batch_op:
        batch_op.drop_column("retry_at")
        batch_op.drop_column("attempts")
