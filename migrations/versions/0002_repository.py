"""who owns the store; files that need no upload, and files that were erased"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "repository",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_repository")),
    )
    with op.batch_alter_table("contribution_files", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("here", sa.Boolean(), server_default=sa.false(), nullable=False)
        )
        batch_op.add_column(sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("contribution_files", schema=None) as batch_op:
        batch_op.drop_column("erased_at")
        batch_op.drop_column("here")

    op.drop_table("repository")
