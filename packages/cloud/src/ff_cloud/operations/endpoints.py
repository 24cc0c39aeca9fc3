"""Operations over HTTP: how far a long act has come."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends

from ff_cloud.kit.caller import Caller, caller
from ff_cloud.kit.http import Db
from ff_cloud.operations.model import Operation
from ff_cloud.operations.service import get as get_operation
from ff_core.contract.account import Scope
from ff_core.contract.base import ErrorView
from ff_core.contract.operation import OperationStatus, OperationView
from ff_core.ids import OperationId, WorkspaceId

router = APIRouter(prefix="/v1/operations", tags=["operations"])


@router.get("/{operation_id}")
async def get(operation_id: OperationId, who: Annotated[Caller, Depends(caller(Scope.WORKSPACES_READ))], db: Db) -> OperationView:
    """One of your operations; kept for 30 days after its end."""
    async with db.transaction(who.user_id) as tx:
        return view_of(await get_operation(tx, operation_id))


def view_of(operation: Operation) -> OperationView:
    """What the API shows of an operation."""
    error = None
    if operation.error_code is not None:
        error = ErrorView(code=operation.error_code, message=operation.error_message or "")
    return OperationView(
        id=operation.id,
        kind=operation.kind,
        workspace_id=WorkspaceId(UUID(operation.key)),
        status=OperationStatus(operation.status),
        step=None if operation.finished else operation.step_name,
        progress=operation.step,
        error=error,
        created_at=operation.created_at,
        updated_at=operation.updated_at,
        finished_at=operation.finished_at,
    )
