"""${message}.

Expand first, fill in batches, contract a release later. An index on a table with rows is made CONCURRENTLY. A new table with a
``user_id`` is followed by ``tenant_table(op, name)``, any other by ``system_table(op, name)``.
"""

from alembic import op

from ff_cloud.kit.tenancy import system_table, tenant_table

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    op.execute("set local lock_timeout = '3s'")
    ${upgrades if upgrades else ""}


def downgrade() -> None:
    ${downgrades if downgrades else "raise NotImplementedError"}
