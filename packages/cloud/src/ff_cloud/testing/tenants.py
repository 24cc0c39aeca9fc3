"""Somebody who owns one of everything, for tests that show that a stranger sees and changes none of it."""

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import text

from ff_cloud.audit import service as audit
from ff_cloud.auth import repository as auth
from ff_cloud.auth.tables import sessions as auth_sessions
from ff_cloud.credentials import repository as credentials
from ff_cloud.events.repository import SystemEventRepository
from ff_cloud.github import repository as identities
from ff_cloud.kit.db import Database, SystemTx
from ff_cloud.operations import service as operations
from ff_cloud.vms.repository import VmRepository
from ff_cloud.workspaces.repository import WorkspaceRepository
from ff_core.contract.account import ApiKeyView, Scope
from ff_core.contract.credentials import CredentialKind
from ff_core.contract.events import Event, SessionStarted, TurnFinished
from ff_core.contract.handoff import BundleFacts, Fingerprint, NewHandoff
from ff_core.contract.places import Direction
from ff_core.contract.session import PermissionPreset
from ff_core.contract.workspace import NewWorkspace
from ff_core.ids import ApiKeyId, DesktopId, HandoffId, OperationId, SessionId, UserId, VmId, WorkspaceId
from ff_core.testing.world import FakeWorld

MARK = "owned-by-somebody-else"
"""Is in every text of the owner's: no answer to a stranger may hold it."""

NOW = datetime(2026, 1, 1, tzinfo=UTC)

PRINT = Fingerprint(repositories=(), conversations=(), records="0" * 64)
BUNDLE = BundleFacts(size=1, sha256="0" * 64, fingerprint=PRINT)

_USER = text("insert into users (id, email, name, plan, created_at) values (:id, :email, :name, 'free', :now)")
_TENANT_TABLES = text("""
    select c.relname from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = c.oid and a.attname = 'user_id' and not a.attisdropped
    where c.relkind in ('r', 'p') and n.nspname = 'public' order by c.relname
""")


@dataclass(frozen=True)
class Estate:
    """The ids of what one user owns."""

    user_id: UserId
    workspace_id: WorkspaceId
    vm_id: VmId
    session_id: SessionId
    login_id: UUID
    api_key_id: ApiKeyId
    operation_id: OperationId
    handoff_id: HandoffId


def pull_of(estate: Estate) -> NewHandoff:
    """The handoff that moves the workspace."""
    return NewHandoff(
        id=estate.handoff_id,
        direction=Direction.PULL,
        workspace_id=estate.workspace_id,
        epoch=1,
        desktop_id=DesktopId(estate.handoff_id),
        desktop_name=MARK,
    )


async def add_user(tx: SystemTx, user_id: UserId, name: str) -> None:
    """An account without a password."""
    await tx.execute(_USER, {"id": user_id, "email": f"{name}@example.com", "name": name, "now": NOW})


async def furnish(db: Database, user_id: UserId) -> Estate:
    """Give an account one of everything that a tenant can own."""
    world = FakeWorld(NOW - timedelta(days=1))  # its ids are others than those of a test's own FakeWorld
    estate = Estate(
        user_id=user_id,
        workspace_id=WorkspaceId(world.new_id()),
        vm_id=VmId(world.new_id()),
        session_id=SessionId(world.new_id()),
        login_id=world.new_id(),
        api_key_id=ApiKeyId(world.new_id()),
        operation_id=OperationId(user_id),  # until it has one
        handoff_id=HandoffId(world.new_id()),
    )
    async with db.transaction(user_id) as tx:
        await WorkspaceRepository(tx).insert(
            estate.workspace_id,
            NewWorkspace(name=MARK, repo_url=f"https://example.com/{MARK}"),
            repo_token_sealed=MARK,
            operation_id=estate.operation_id,
            deadline_s=60.0,
        )
        await VmRepository(tx).insert(estate.vm_id, estate.workspace_id, image=MARK, runtime=None)
        key = ApiKeyView(
            id=estate.api_key_id,
            name=MARK,
            prefix=MARK,
            scopes=frozenset({Scope.WORKSPACES_READ}),
            created_at=NOW,
            expires_at=NOW + timedelta(days=9999),
            last_used_at=None,
        )
        await auth.add_key(tx, key, hashlib.sha256(b"key").digest())
        sealed = credentials.Sealed(user_id, CredentialKind.ANTHROPIC_API_KEY, MARK, MARK, MARK)
        await credentials.put(tx, sealed, "mark", NOW)
        await audit.record(tx, user_id=user_id, action="login", note=MARK)
        operation = await operations.start(
            tx, "workspace.provision", key=str(estate.workspace_id), user_id=user_id, input={"note": MARK}, world=world
        )
        await tx.execute(
            text("insert into idempotency_keys (user_id, key, fingerprint) values (:user, :mark, :mark)"),
            {"user": user_id, "mark": MARK},
        )
    async with db.system_transaction() as tx:
        started = SessionStarted(name=MARK, model=None, permissions=PermissionPreset.STRICT)
        ended = TurnFinished(message_ids=(), outcome="done")
        journal = [
            Event(workspace_id=estate.workspace_id, seq=seq, at=NOW, session_id=estate.session_id, body=body)
            for seq, body in enumerate((started, ended), start=1)
        ]
        await SystemEventRepository(tx).append(user_id, journal)
        await tx.execute(
            text("insert into sessions values (:id, :user, :workspace, :mark, null, 'STRICT', 'IDLE', :now, :now)"),
            {"id": estate.session_id, "user": user_id, "workspace": estate.workspace_id, "mark": MARK, "now": NOW},
        )
        await tx.execute(
            auth_sessions.insert().values(
                id=estate.login_id,
                user_id=user_id,
                user_agent=MARK,
                created_at=NOW,
                expires_at=NOW + timedelta(days=9999),
                last_used_at=NOW + timedelta(days=9990),
            )
        )
        await tx.execute(text("update vms set status = 'RUNNING' where id = :id"), {"id": estate.vm_id})
        await identities.add(tx, user_id, "4711", MARK, NOW)
        await tx.execute(
            text(
                "insert into checkpoints (workspace_id, number, user_id, vm_id, vm_generation, state, reason, key, began_at)"
                " values (:workspace, 1, :user, :vm, 1, 'FAILED', 'turn', :mark || :user, :now)"
            ),
            {"user": user_id, "workspace": estate.workspace_id, "vm": estate.vm_id, "now": NOW, "mark": MARK},
        )
        await tx.execute(
            text(
                "insert into handoffs (id, user_id, workspace_id, direction, status, desktop_id, desktop_name, epoch, wanted,"
                " bundle, made_workspace, expires_at, created_at, updated_at) values (:id, :user, :workspace, 'PULL', 'READY',"
                " :id, :mark, 1, cast(:wanted as jsonb), cast(:bundle as jsonb), false, :later, :now, :now)"
            ),
            {
                "id": estate.handoff_id,
                "user": user_id,
                "workspace": estate.workspace_id,
                "mark": MARK,
                "wanted": pull_of(estate).model_dump_json(),
                "bundle": BUNDLE.model_dump_json(),
                "later": NOW + timedelta(days=9999),
                "now": NOW,
            },
        )
        await tx.execute(
            text("insert into handoff_pieces values (:user, :handoff, 0, 1, :mark, :mark || :user)"),
            {"user": user_id, "handoff": estate.handoff_id, "mark": MARK},
        )
        await tx.execute(
            text("insert into usage values (gen_random_uuid(), :user, :workspace, :now, :mark, null, 1, 1, 1, 1, 1)"),
            {"user": user_id, "workspace": estate.workspace_id, "now": NOW, "mark": MARK},
        )
    return replace(estate, operation_id=operation)


async def belongings(db: Database, user_id: UserId) -> dict[str, list[str]]:
    """Every row of a user in every tenant table, as text."""
    async with db.system_transaction() as tx:
        found = {}
        for table in (await tx.execute(_TENANT_TABLES)).scalars().all():
            rows = await tx.execute(text(f"select t::text from {table} t where user_id = :user order by 1"), {"user": user_id})  # noqa: S608
            found[table] = list(rows.scalars())
        return found
