"""differences between a base and its parent; whose weights a contribution encodes"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "differences",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("base_id", sa.Integer(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("old_sha256", sa.String(length=64), nullable=False),
        sa.Column("new_sha256", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["base_id"], ["bases.id"], name=op.f("fk_differences_base_id_bases")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_differences")),
        sa.UniqueConstraint("base_id", "path", name=op.f("uq_differences_base_id_path")),
    )
    with op.batch_alter_table("differences", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_differences_sha256"), ["sha256"], unique=False)
    with op.batch_alter_table("bases", schema=None) as batch_op:
        batch_op.add_column(sa.Column("differences_at", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("contributions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("weights_sha256", sa.String(length=64), nullable=True))
        batch_op.create_index(
            batch_op.f("ix_contributions_weights_sha256"), ["weights_sha256"], unique=False
        )


def downgrade() -> None:
    with op.batch_alter_table("contributions", schema=None, recreate="never") as batch_op:
        batch_op.drop_index(batch_op.f("ix_contributions_weights_sha256"))
        batch_op.drop_column("weights_sha256")
    # SQLite's copy of the table could not take its place: other tables refer to it.
    with op.batch_alter_table("bases", schema=None, recreate="never") as batch_op:
        batch_op.drop_column("differences_at")
    with op.batch_alter_table("differences", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_differences_sha256"))
    op.drop_table("differences")
