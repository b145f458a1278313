"""what came through the hub door: pull requests, and bytes that are not declared yet"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.create_table(
        "hub_pulls",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("contributor_id", sa.Integer(), nullable=False),
        sa.Column("base_number", sa.Integer(), nullable=True),
        sa.Column("title", sa.String(length=500), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("commit_id", sa.String(length=40), nullable=True),
        sa.Column("contribution_id", sa.String(length=32), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["contribution_id"],
            ["contributions.id"],
            name=op.f("fk_hub_pulls_contribution_id_contributions"),
        ),
        sa.ForeignKeyConstraint(
            ["contributor_id"],
            ["contributors.id"],
            name=op.f("fk_hub_pulls_contributor_id_contributors"),
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_hub_pulls_model_id_models")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hub_pulls")),
        sa.UniqueConstraint("model_id", "number", name=op.f("uq_hub_pulls_model_id_number")),
    )
    with op.batch_alter_table("hub_pulls", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_hub_pulls_commit_id"), ["commit_id"])
        batch_op.create_index(batch_op.f("ix_hub_pulls_contribution_id"), ["contribution_id"])
    op.create_table(
        "hub_uploads",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("contributor_id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("part_bytes", sa.BigInteger(), nullable=False),
        sa.Column("stored", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["contributor_id"],
            ["contributors.id"],
            name=op.f("fk_hub_uploads_contributor_id_contributors"),
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_hub_uploads_model_id_models")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hub_uploads")),
        sa.UniqueConstraint(
            "model_id",
            "contributor_id",
            "sha256",
            name=op.f("uq_hub_uploads_model_id_contributor_id_sha256"),
        ),
    )
    with op.batch_alter_table("hub_uploads", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_hub_uploads_contributor_id"), ["contributor_id"])
        batch_op.create_index(batch_op.f("ix_hub_uploads_sha256"), ["sha256"])
    op.create_table(
        "hub_xorbs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("contributor_id", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("pieces", sa.Integer(), nullable=False),
        sa.Column("file_sha256", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["contributor_id"],
            ["contributors.id"],
            name=op.f("fk_hub_xorbs_contributor_id_contributors"),
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_hub_xorbs_model_id_models")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hub_xorbs")),
        sa.UniqueConstraint(
            "model_id",
            "contributor_id",
            "hash",
            name=op.f("uq_hub_xorbs_model_id_contributor_id_hash"),
        ),
    )
    with op.batch_alter_table("hub_xorbs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_hub_xorbs_contributor_id"), ["contributor_id"])
        batch_op.create_index(batch_op.f("ix_hub_xorbs_sha256"), ["sha256"])
    op.create_table(
        "hub_areas",
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("contributor_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["contributor_id"],
            ["contributors.id"],
            name=op.f("fk_hub_areas_contributor_id_contributors"),
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_hub_areas_model_id_models")
        ),
        sa.PrimaryKeyConstraint("model_id", "contributor_id", name=op.f("pk_hub_areas")),
    )
    with op.batch_alter_table("contribution_files", schema=None) as batch_op:
        batch_op.add_column(sa.Column("upload", sa.String(length=40), nullable=True))
        batch_op.add_column(
            sa.Column("stored", sa.Boolean(), server_default=sa.false(), nullable=False)
        )


def downgrade() -> None:
    with op.batch_alter_table("contribution_files", schema=None, recreate="never") as batch_op:
        batch_op.drop_column("stored")
        batch_op.drop_column("upload")
    op.drop_table("hub_areas")
    op.drop_table("hub_xorbs")
    op.drop_table("hub_uploads")
    op.drop_table("hub_pulls")
