"""suites, what evaluations say of them, and the tries of the Repository's own evaluator"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "suites",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.Column("contributor_id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["contributor_id"],
            ["contributors.id"],
            name=op.f("fk_suites_contributor_id_contributors"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_suites")),
        sa.UniqueConstraint("name", name=op.f("uq_suites_name")),
    )
    with op.batch_alter_table("suites", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_suites_digest"), ["digest"], unique=False)
    op.create_table(
        "evaluation_tries",
        sa.Column("base_id", sa.Integer(), nullable=False),
        sa.Column("suite_digest", sa.String(length=64), nullable=False),
        sa.Column("protocol", sa.String(length=20), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["base_id"], ["bases.id"], name=op.f("fk_evaluation_tries_base_id_bases")
        ),
        sa.PrimaryKeyConstraint(
            "base_id", "suite_digest", "protocol", name=op.f("pk_evaluation_tries")
        ),
    )
    with op.batch_alter_table("evaluations", schema=None) as batch_op:
        batch_op.add_column(sa.Column("suite_digest", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("standard_errors", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("by_seed", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("seeds", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("software", sa.String(length=500), nullable=True))
        batch_op.add_column(sa.Column("report_sha256", sa.String(length=64), nullable=True))
        batch_op.create_index(
            batch_op.f("ix_evaluations_suite_digest"), ["suite_digest"], unique=False
        )
        batch_op.create_index(
            "uq_evaluations_same_report",
            ["base_id", "contributor_id", "report_sha256"],
            unique=True,
        )


def downgrade() -> None:
    with op.batch_alter_table("evaluations", schema=None, recreate="never") as batch_op:
        batch_op.drop_index("uq_evaluations_same_report")
        batch_op.drop_index(batch_op.f("ix_evaluations_suite_digest"))
        for column in (
            "report_sha256",
            "software",
            "seeds",
            "by_seed",
            "standard_errors",
            "suite_digest",
        ):
            batch_op.drop_column(column)
    op.drop_table("evaluation_tries")
    with op.batch_alter_table("suites", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_suites_digest"))
    op.drop_table("suites")
