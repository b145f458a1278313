"""how far the weights of each base are from v0's"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    with op.batch_alter_table("bases", schema=None) as batch_op:
        batch_op.add_column(sa.Column("distance", sa.Float(), nullable=True))
        batch_op.add_column(
            sa.Column("distance_tried_at", sa.DateTime(timezone=True), nullable=True)
        )
    # The others are measured by workers that have nothing else to do.
    op.execute("UPDATE bases SET distance = 0 WHERE number = 0")


def downgrade() -> None:
    # SQLite's copy of the table could not take its place: other tables refer to it.
    with op.batch_alter_table("bases", schema=None, recreate="never") as batch_op:
        batch_op.drop_column("distance_tried_at")
        batch_op.drop_column("distance")
