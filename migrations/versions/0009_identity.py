"""invitations, and tokens for some models only"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    with op.batch_alter_table("tokens", schema=None) as batch_op:
        batch_op.add_column(sa.Column("models", sa.JSON(), nullable=True))
    op.create_table(
        "invitations",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=True),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("models", sa.JSON(), nullable=True),
        sa.Column("lifetime_seconds", sa.BigInteger(), nullable=True),
        sa.Column("made_by", sa.String(length=16), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("token_id", sa.String(length=16), nullable=True),
        sa.ForeignKeyConstraint(
            ["made_by"], ["tokens.id"], name=op.f("fk_invitations_made_by_tokens")
        ),
        sa.ForeignKeyConstraint(
            ["token_id"], ["tokens.id"], name=op.f("fk_invitations_token_id_tokens")
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_invitations")),
        sa.UniqueConstraint("id", name=op.f("uq_invitations_id")),
    )
    with op.batch_alter_table("invitations", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_invitations_made_by"), ["made_by"])
        batch_op.create_index(batch_op.f("ix_invitations_token_id"), ["token_id"])


def downgrade() -> None:
    op.drop_table("invitations")
    with op.batch_alter_table("tokens", schema=None, recreate="never") as batch_op:
        batch_op.drop_column("models")
