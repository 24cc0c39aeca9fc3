"""Checkpoints: what is stored of each workspace outside of its VM."""

from alembic import op

from ff_cloud.kit.tenancy import tenant_table

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.execute("set local lock_timeout = '3s'")
    op.execute("""
        create table checkpoints (
            workspace_id uuid not null,
            number bigint not null check (number > 0),
            user_id uuid not null,
            vm_id uuid not null,
            vm_generation integer not null,
            state text not null check (state in ('SAVING', 'SAVED', 'FAILED')),
            reason text not null check (length(reason) <= 40),
            key text not null unique check (length(key) <= 500),
            base_number bigint,
            bytes bigint,
            sha256 text,
            tree_sha256 text,
            tree_bytes bigint,
            content_bytes bigint,
            entries bigint,
            journal_seq bigint,
            settled boolean,
            left_out_count integer,
            began_at timestamptz not null,
            created_at timestamptz,
            primary key (workspace_id, number),
            foreign key (user_id, workspace_id) references workspaces (user_id, id) on delete cascade,
            check (base_number < number),
            check (state <> 'SAVED' or num_nonnulls(
                bytes, sha256, tree_sha256, tree_bytes, content_bytes, entries, journal_seq, settled, left_out_count, created_at
            ) = 10)
        )
    """)
    op.execute("comment on column checkpoints.began_at is 'What changed in the workspace later need not be in it'")
    op.execute("comment on column checkpoints.base_number is 'The one it builds on: useless without that one. Null: it is whole'")
    op.execute("create index checkpoints_saving on checkpoints (began_at) where state = 'SAVING'")
    tenant_table(op, "checkpoints", app="select")


def downgrade() -> None:
    op.execute("drop table checkpoints")
