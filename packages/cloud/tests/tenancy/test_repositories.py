"""What one user owns, no transaction of another sees or changes: every method of every tenant repository, each with its case.

A case is run for a stranger, with the owner's ids: it finds nothing, and every row of the owner stays as it is. It is run for the
owner too, where it must find or change something; so no case is empty of meaning.
"""

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError, NoResultFound

import ff_cloud
from ff_cloud.audit import repository as audit
from ff_cloud.auth import repository as auth
from ff_cloud.auth import session_repository as logins
from ff_cloud.credentials import repository as credentials
from ff_cloud.events.repository import EventRepository
from ff_cloud.gateway import repository as usage
from ff_cloud.github import repository as identities
from ff_cloud.handoffs.model import Piece
from ff_cloud.handoffs.repository import HandoffRepository
from ff_cloud.kit.blobs import Stored
from ff_cloud.kit.db import Database, Tx
from ff_cloud.operations.repository import OperationRepository
from ff_cloud.sessions.repository import SessionRepository
from ff_cloud.testing.tenants import MARK, NOW, PRINT, Estate, add_user, belongings, furnish, pull_of
from ff_cloud.users import repository as users
from ff_cloud.vms import fleet_repository as fleet
from ff_cloud.vms.repository import SystemVmRepository, VmRepository
from ff_cloud.workspaces.repository import WorkspaceRepository
from ff_core.contract.account import ApiKeyView, Scope
from ff_core.contract.base import ErrorView
from ff_core.contract.credentials import CredentialKind
from ff_core.contract.handoff import BundleFacts, Contents, HandoffStatus, Receipt, SentWorkspace
from ff_core.contract.places import Direction
from ff_core.contract.session import Activity, PermissionPreset, SessionStatus, SessionView
from ff_core.contract.workspace import NewWorkspace, WorkspaceStatus
from ff_core.errors import FFError
from ff_core.ids import ApiKeyId, DesktopId, HandoffId, OperationId, UserId, VmId, WorkspaceId

ANN, BOB = UserId(UUID(int=0xA)), UserId(UUID(int=0xB))
KIND = CredentialKind.ANTHROPIC_API_KEY
SEALED = credentials.Sealed(ANN, KIND, "x", "x", "x")
NEW = UUID(int=0xF)
WARM = "an image that a warm VM has"
KEY = ApiKeyView(
    id=ApiKeyId(NEW), name="n", prefix="p", scopes=frozenset({Scope.ADMIN}), created_at=NOW, expires_at=NOW, last_used_at=None
)

CONTENTS = dict.fromkeys(
    ("commits", "files", "file_bytes", "deleted", "stashes", "submodules", "sessions", "queued", "events"), 0
)
NEW_FACTS = BundleFacts(size=1, sha256="0" * 64, fingerprint=PRINT)
RECEIPT = Receipt(
    handoff_id=HandoffId(NEW),
    workspace_id=WorkspaceId(NEW),
    name="x",
    direction=Direction.PULL,
    epoch=2,
    committed_at=NOW,
    bundle_bytes=1,
    bundle_sha256="0" * 64,
    sent=PRINT,
    arrived=PRINT,
    contents=Contents(**CONTENTS),
)

Act = Callable[[Tx, Estate], Awaitable[Any]]


@dataclass(frozen=True)
class Case:
    """``own`` names what a stranger may get, because it is his or everybody's and not the owner's."""

    act: Act
    own: str = ""


async def _move(tx: Tx, estate: Estate) -> Any:
    # A stranger who came by the row itself.
    found = await WorkspaceRepository(tx).get(estate.workspace_id)
    found = found or _WORKSPACE[0]
    _WORKSPACE[:] = [found]
    return await WorkspaceRepository(tx).move(found, WorkspaceStatus.FAILED, ErrorView(code="x", message="x"))


_WORKSPACE: list[Any] = []
_HANDOFF: list[Any] = []
"""The owner's rows, for one who came by them."""


async def _told(answer: Awaitable[bool]) -> str:
    return f"draining: {await answer}"


def view(estate: Estate) -> SessionView:
    return SessionView(
        id=estate.session_id,
        workspace_id=estate.workspace_id,
        name="x",
        model=None,
        permissions=PermissionPreset.YOLO,
        status=SessionStatus.IDLE,
        activity=Activity.IDLE,
        provider_session_id=None,
        queued=0,
        pending=(),
        error=None,
        created_at=NOW,
        updated_at=NOW,
    )


def new_operation(tx: Tx, user_id: UserId | None) -> Awaitable[bool]:
    ordered = {"kind": "k", "key": "new", "input": {}, "cancellable": True}
    return OperationRepository(tx).insert(id=OperationId(NEW), user_id=user_id, **ordered)


CASES: dict[str, Case] = {
    "audit.repository.add": Case(
        lambda tx, e: audit.add(
            tx,
            {"user_id": e.user_id, "action": "forged", "outcome": "ok", "address": None, "user_agent": None}
            | {"request_id": None, "detail": {}},
        )
    ),
    "audit.repository.newest": Case(lambda tx, e: audit.newest(tx, user_id=e.user_id, before=None, rows_max=9)),
    "auth.repository.add_key": Case(lambda tx, e: auth.add_key(tx, KEY, b"x" * 32), own="a key of his own"),
    "auth.repository.lock_keys": Case(lambda tx, e: auth.lock_keys(tx), own="a lock of his own"),
    "auth.repository.count_keys": Case(lambda tx, e: auth.count_keys(tx)),
    "auth.repository.list_keys": Case(lambda tx, e: auth.list_keys(tx)),
    "auth.repository.revoke_key": Case(lambda tx, e: auth.revoke_key(tx, e.api_key_id, NOW)),
    "auth.session_repository.list_live": Case(lambda tx, e: logins.list_live(tx, NOW + timedelta(days=9990), 9)),
    "credentials.repository.put": Case(lambda tx, e: credentials.put(tx, SEALED, "hint", NOW), own="a secret of his own"),
    "credentials.repository.remove": Case(lambda tx, e: credentials.remove(tx, KIND)),
    "credentials.repository.views": Case(lambda tx, e: credentials.views(tx)),
    "credentials.repository.has_any": Case(lambda tx, e: credentials.has_any(tx, [KIND])),
    "credentials.repository.find": Case(lambda tx, e: credentials.find(tx, [KIND])),
    "credentials.repository.note_use": Case(lambda tx, e: credentials.note_use(tx, SEALED, NOW)),
    "events.repository.EventRepository.read": Case(lambda tx, e: EventRepository(tx).read(e.workspace_id, 0, 9)),
    "events.repository.EventRepository.turns": Case(
        lambda tx, e: EventRepository(tx).turns(e.workspace_id, before=None, turns_max=9)
    ),
    "gateway.repository.page": Case(
        lambda tx, e: usage.page(tx, since=None, until=None, workspace_id=e.workspace_id, after=None, rows_max=9)
    ),
    "github.repository.list_own": Case(lambda tx, e: identities.list_own(tx)),
    "github.repository.remove_own": Case(lambda tx, e: identities.remove_own(tx, "github")),
    "handoffs.repository.HandoffRepository.insert": Case(
        lambda tx, e: HandoffRepository(tx).insert(
            pull_of(e).model_copy(update={"id": NEW, "workspace_id": NEW, "desktop_name": "x"}), made_workspace=False, expires_s=9
        ),
        own="a handoff of his own",
    ),
    "handoffs.repository.HandoffRepository.get": Case(lambda tx, e: HandoffRepository(tx).get(e.handoff_id)),
    "handoffs.repository.HandoffRepository.page": Case(
        lambda tx, e: HandoffRepository(tx).page(before=None, workspace_id=e.workspace_id, only_open=True, items_max=9)
    ),
    "handoffs.repository.HandoffRepository.open_of": Case(lambda tx, e: HandoffRepository(tx).open_of(e.workspace_id)),
    "handoffs.repository.HandoffRepository.name_of_desktop": Case(
        lambda tx, e: HandoffRepository(tx).name_of_desktop(DesktopId(e.handoff_id))
    ),
    **{
        f"handoffs.repository.HandoffRepository.{name}": Case(lambda tx, e, act=act: act(HandoffRepository(tx), _HANDOFF[0]))
        for name, act in {
            "delete": lambda handoffs, found: handoffs.delete(found),
            "move": lambda handoffs, found: handoffs.move(found, HandoffStatus.ABORTED),
            "works_on": lambda handoffs, found: handoffs.works_on(found, OperationId(NEW)),
            "progressed": lambda handoffs, found: handoffs.progressed(found, 9),
            "pieces": lambda handoffs, found: handoffs.pieces(found),
            "announced": lambda handoffs, found: handoffs.announced(found, NEW_FACTS, Contents(**CONTENTS), 9),
            "count_pieces": lambda handoffs, found: handoffs.count_pieces(found),
            "forget_pieces": lambda handoffs, found: handoffs.forget_pieces(found),
            "add_piece": lambda handoffs, found: handoffs.add_piece(found, Piece(1, "new", Stored(1, "x")), 9),
            "commit": lambda handoffs, found: handoffs.commit(found, RECEIPT),
        }.items()
    },
    "operations.repository.OperationRepository.insert": Case(lambda tx, e: new_operation(tx, e.user_id)),
    "operations.repository.OperationRepository.get": Case(lambda tx, e: OperationRepository(tx).get(e.operation_id)),
    "operations.repository.OperationRepository.active": Case(lambda tx, e: OperationRepository(tx).active(str(e.workspace_id))),
    "operations.repository.OperationRepository.latest": Case(lambda tx, e: OperationRepository(tx).latest(str(e.workspace_id))),
    "operations.repository.OperationRepository.request_cancel": Case(
        lambda tx, e: OperationRepository(tx).request_cancel(str(e.workspace_id))
    ),
    "operations.repository.OperationRepository.hasten": Case(lambda tx, e: OperationRepository(tx).hasten(e.operation_id)),
    "sessions.repository.SessionRepository.workspace_of": Case(lambda tx, e: SessionRepository(tx).workspace_of(e.session_id)),
    "sessions.repository.SessionRepository.of_workspace": Case(lambda tx, e: SessionRepository(tx).of_workspace(e.workspace_id)),
    "sessions.repository.SessionRepository.record": Case(lambda tx, e: SessionRepository(tx).record(view(e))),
    "users.repository.get": Case(lambda tx, e: users.get(tx, e.user_id)),
    "users.repository.plan_of": Case(lambda tx, e: users.plan_of(tx, e.user_id)),
    "users.repository.plan_names": Case(lambda tx, e: users.plan_names(tx), own="what plans there are is no secret"),
    "users.repository.wait_for_others": Case(lambda tx, e: users.wait_for_others(tx, tx.user_id), own="a lock of his own"),
    "vms.fleet_repository.refusing": Case(lambda tx, e: fleet.refusing(tx), own="why nothing new is made is no secret"),
    "vms.fleet_repository.draining": Case(lambda tx, e: _told(fleet.draining(tx)), own="nor that the server is being emptied"),
    "vms.repository.VmRepository.standing": Case(lambda tx, e: VmRepository(tx).standing(), own="how many of his own run"),
    "vms.repository.VmRepository.of_workspace": Case(lambda tx, e: VmRepository(tx).of_workspace(e.workspace_id)),
    "users.repository.hold_plan": Case(lambda tx, e: users.hold_plan(tx, e.user_id)),
    "workspaces.repository.WorkspaceRepository.look": Case(lambda tx, e: WorkspaceRepository(tx).look(e.workspace_id)),
    "vms.repository.VmRepository.claim": Case(lambda tx, e: VmRepository(tx).claim(e.workspace_id, image=WARM, runtime=None)),
    "vms.repository.VmRepository.insert": Case(
        lambda tx, e: VmRepository(tx).insert(VmId(NEW), e.workspace_id, image="x", runtime=None)
    ),
    "vms.repository.VmRepository.of_workspaces": Case(lambda tx, e: VmRepository(tx).of_workspaces([e.workspace_id])),
    "vms.repository.VmRepository.count_running": Case(lambda tx, e: VmRepository(tx).count_running()),
    "workspaces.repository.WorkspaceRepository.insert": Case(
        lambda tx, e: WorkspaceRepository(tx).insert(
            WorkspaceId(NEW), NewWorkspace(name="new"), repo_token_sealed=None, operation_id=OperationId(NEW), deadline_s=9
        ),
        own="a workspace of his own",
    ),
    "workspaces.repository.WorkspaceRepository.page": Case(
        lambda tx, e: WorkspaceRepository(tx).page(before=None, name=None, items_max=9)
    ),
    "workspaces.repository.WorkspaceRepository.count": Case(lambda tx, e: WorkspaceRepository(tx).count()),
    "workspaces.repository.WorkspaceRepository.get": Case(lambda tx, e: WorkspaceRepository(tx).get(e.workspace_id)),
    "workspaces.repository.WorkspaceRepository.want_gone": Case(lambda tx, e: WorkspaceRepository(tx).want_gone(e.workspace_id)),
    "workspaces.repository.WorkspaceRepository.touch": Case(lambda tx, e: WorkspaceRepository(tx).touch(e.workspace_id)),
    "workspaces.repository.WorkspaceRepository.set_operation": Case(
        lambda tx, e: WorkspaceRepository(tx).set_operation(e.workspace_id, OperationId(NEW), 9)
    ),
    "workspaces.repository.WorkspaceRepository.move": Case(_move),
    "workspaces.repository.WorkspaceRepository.hold": Case(
        lambda tx, e: WorkspaceRepository(tx).hold(e.workspace_id, HandoffId(NEW))
    ),
    "workspaces.repository.WorkspaceRepository.give_up": Case(
        lambda tx, e: WorkspaceRepository(tx).give_up(e.workspace_id, HandoffId(NEW))
    ),
    "workspaces.repository.WorkspaceRepository.settle_here": Case(
        lambda tx, e: WorkspaceRepository(tx).settle_here(e.workspace_id, 9, HandoffId(NEW), SentWorkspace(name="x"))
    ),
    "workspaces.repository.WorkspaceRepository.settle_there": Case(
        lambda tx, e: WorkspaceRepository(tx).settle_there(e.workspace_id, 9, DesktopId(NEW), "x", kept_s=9)
    ),
    "workspaces.repository.WorkspaceRepository.insert_sent": Case(
        lambda tx, e: WorkspaceRepository(tx).insert_sent(
            WorkspaceId(NEW),
            SentWorkspace(name="new"),
            epoch=0,
            desktop_id=DesktopId(NEW),
            desktop_name="x",
            handoff_id=HandoffId(NEW),
        ),
        own="a workspace of his own",
    ),
}
# For the system's transactions only; the application's role has no right to it.
SYSTEM_ONLY = {
    "operations.repository.OperationRepository.delete_finished": lambda tx: OperationRepository(tx).delete_finished(
        older_than_s=0, rows_max=9
    ),
    "operations.repository.OperationRepository.delete_of": lambda tx: OperationRepository(tx).delete_of(ANN),
}


def tenant_methods() -> Iterator[str]:
    """Every public function whose first parameter is a user's transaction, and every public method of a class made of one."""
    for module in pkgutil.walk_packages(ff_cloud.__path__, "ff_cloud."):
        if not module.name.endswith("repository"):
            continue
        code = importlib.import_module(module.name)
        short = module.name.removeprefix("ff_cloud.")
        for name, thing in vars(code).items():
            if name.startswith("_") or getattr(thing, "__module__", None) != module.name:
                continue
            if inspect.isfunction(thing) and takes_users_transaction(thing):
                yield f"{short}.{name}"
            elif (
                inspect.isclass(thing) and inspect.isfunction(thing.__init__) and takes_users_transaction(thing.__init__, skip=1)
            ):
                methods = inspect.getmembers(thing, inspect.isfunction)
                yield from (f"{short}.{name}.{method}" for method, _ in methods if not method.startswith("_"))


def takes_users_transaction(function: Callable[..., Any], skip: int = 0) -> bool:
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    if not parameters:
        return False
    kind = parameters[0].annotation
    return kind is Tx or Tx in typing.get_args(kind)


@pytest.fixture
async def estate(db: Database) -> Estate:
    async with db.system_transaction() as tx:
        await add_user(tx, ANN, f"ann-{MARK}")
        await add_user(tx, BOB, "bob")
        await SystemVmRepository(tx).insert_warm(VmId(UUID(int=0xFF)), image=WARM, runtime=None, deadline_s=9)
        await SystemVmRepository(tx).change(VmId(UUID(int=0xFF)), status="WARM", warm_at=NOW)
    return await furnish(db, ANN)


def test_every_method_has_a_case() -> None:
    methods = set(tenant_methods())
    assert len(methods) > 30
    assert methods - set(CASES) - set(SYSTEM_ONLY) == set(), "these have no stranger case"
    assert (set(CASES) | set(SYSTEM_ONLY)) - methods == set(), "these are gone"


async def test_the_owner_has_something_in_every_tenant_table(db: Database, estate: Estate) -> None:
    """So that no table is left out of what must stay as it is; but those of secrets on their way, which hold nobody's things."""
    empty = {table for table, rows in (await belongings(db, ANN)).items() if not rows}
    logging_in = {"authorization_codes", "browser_sessions", "device_logins", "github_states"}
    assert empty <= logging_in | {"auth_passwords", "mail_links", "outbox"}


@pytest.mark.parametrize("name", sorted(CASES))
async def test_a_stranger_sees_and_changes_nothing(db: Database, estate: Estate, name: str) -> None:
    case = CASES[name]
    async with db.transaction(ANN) as tx:  # for cases that need a row they could not find
        _WORKSPACE[:] = [await WorkspaceRepository(tx).get(estate.workspace_id)]
        _HANDOFF[:] = [await HandoffRepository(tx).get(estate.handoff_id)]
    before = await belongings(db, ANN)
    try:
        async with db.transaction(BOB) as tx:
            answer = await case.act(tx, estate)
    except (DBAPIError, psycopg.Error, FFError, NoResultFound):
        answer = None
    assert case.own or not answer
    assert MARK not in repr(answer)
    assert await belongings(db, ANN) == before


# A workspace has one VM, and the owner's has it already.
@pytest.mark.parametrize("name", sorted(set(CASES) - {"vms.repository.VmRepository.insert", "vms.repository.VmRepository.claim"}))
async def test_the_owner_does(db: Database, estate: Estate, name: str) -> None:
    async with db.transaction(ANN) as tx:
        _HANDOFF[:] = [await HandoffRepository(tx).get(estate.handoff_id)]
    before = await belongings(db, ANN)
    async with db.transaction(ANN) as tx:
        answer = await CASES[name].act(tx, estate)
    assert answer or CASES[name].own or await belongings(db, ANN) != before


@pytest.mark.parametrize("name", sorted(SYSTEM_ONLY))
async def test_what_is_for_the_system_only_is_refused_to_a_user(db: Database, estate: Estate, name: str) -> None:
    before = await belongings(db, ANN)
    for user in (ANN, BOB):
        with pytest.raises(DBAPIError):
            async with db.transaction(user) as tx:
                await SYSTEM_ONLY[name](tx)
    assert await belongings(db, ANN) == before
