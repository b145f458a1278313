"""audit log"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

ONLY_ADDED = "the audit log is only added to"


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.String(length=27), nullable=False),
        sa.Column("by", sa.String(length=100), nullable=False),
        sa.Column("token", sa.String(length=16), nullable=True),
        sa.Column("action", sa.String(length=60), nullable=False),
        sa.Column("model", sa.String(length=100), nullable=True),
        sa.Column("subject", sa.String(length=200), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("previous", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit")),
    )
    if op.get_bind().dialect.name == "postgresql":
        _guard_postgresql()
    else:
        _guard_sqlite()


def downgrade() -> None:
    op.drop_table("audit")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_is_only_added_to()")


def _guard_postgresql() -> None:
    op.execute(
        f"""
        CREATE FUNCTION audit_is_only_added_to() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '{ONLY_ADDED}';
        END $$
        """
    )
    # By row: emptying a table that is empty is no harm.
    op.execute(
        "CREATE TRIGGER audit_rows BEFORE UPDATE OR DELETE ON audit "
        "FOR EACH ROW EXECUTE FUNCTION audit_is_only_added_to()"
    )
    op.execute(
        "CREATE TRIGGER audit_table BEFORE TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_is_only_added_to()"
    )


def _guard_sqlite() -> None:
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_{change.lower()} BEFORE {change} ON audit "
            f"BEGIN SELECT RAISE(ABORT, '{ONLY_ADDED}'); END"
        )
    # INSERT OR REPLACE removes a row without asking the trigger of removals.
    op.execute(
        "CREATE TRIGGER audit_insert BEFORE INSERT ON audit "
        "WHEN EXISTS (SELECT 1 FROM audit WHERE number >= NEW.number) "
        f"BEGIN SELECT RAISE(ABORT, '{ONLY_ADDED}'); END"
    )
