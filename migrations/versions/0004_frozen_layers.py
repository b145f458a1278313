"""what a contribution says that it has not trained"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    with op.batch_alter_table("contributions", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("frozen", sa.JSON(), server_default=sa.text("'[]'"), nullable=False)
        )


def downgrade() -> None:
    # SQLite's copy of the table could not take its place: other tables refer to it.
    with op.batch_alter_table("contributions", schema=None, recreate="never") as batch_op:
        batch_op.drop_column("frozen")
