"""Factory Factory's ``data.db``: which of its layouts it has is seen from its columns (DOMAIN.md section 5). Blocking."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ff_core.importing import shaping
from ff_core.importing.errors import ImportUnreadable
from ff_core.importing.found import CLAUDE, PROJECTS_MAX, SESSIONS_MAX, WORKSPACES_MAX, Found
from ff_core.store.foreign import COPY_BYTES_MAX, TIMEOUT_S, Foreign, Unreadable, opened_copy

MIGRATIONS_MAX = 1_000
SIDE_ROWS_MAX = 4 * WORKSPACES_MAX
"""A workspace may have more than one pull request in the newest layout."""

Names = Mapping[str, str]

PROJECT = (
    *("id", "name", "slug", "repoPath", "defaultBranch", "isArchived"),
    *("startupScriptCommand", "startupScriptPath", "createdAt"),
)
# Also what older layouts had on the workspace itself and newer ones have beside it.
WORKSPACE = (
    *("id", "projectId", "name", "description", "status", "worktreePath", "branchName", "initErrorMessage", "createdAt"),
    *("githubIssueNumber", "githubIssueUrl", "linearIssueIdentifier", "mode", "parent_workspace_id"),
    *("prUrl", "prNumber", "prState", "prReviewState", "prCiStatus", "prReviewLastCheckedAt"),
    *("ratchetEnabled", "ratchetState", "ratchetLastCiRunId", "ratchetDispatchOutcome", "ratchetDispatchRetryCount"),
)
SESSION = (
    *("id", "workspaceId", "name", "workflow", "model", "status", "provider", "providerSessionId", "claudeSessionId"),
    *("createdAt", "updatedAt"),
)
PULL_REQUEST: Names = {
    "url": "prUrl",
    "number": "prNumber",
    "state": "prState",
    "reviewState": "prReviewState",
    "ciStatus": "prCiStatus",
    "hasMergeConflict": "prHasMergeConflict",
    "reviewLastCheckedAt": "prReviewLastCheckedAt",
    "detachedAt": "detachedAt",
}
RATCHET: Names = {
    "enabled": "ratchetEnabled",
    "state": "ratchetState",
    "dispatchSnapshotKey": "ratchetLastCiRunId",
    "dispatchOutcome": "ratchetDispatchOutcome",
    "dispatchRetryCount": "ratchetDispatchRetryCount",
    "dispatchStalled": "ratchetDispatchStalled",
}
AUTO_ITERATION: Names = {"mode": "mode"}
ENABLED: Names = {"enabled": "ratchetEnabled"}
NEEDED = {"Project": {"id", "name", "repoPath", "createdAt"}, "Workspace": {"id", "projectId", "name", "status", "createdAt"}}


def read(path: Path, *, folder: Path | None = None, timeout_s: float = TIMEOUT_S, bytes_max: int = COPY_BYTES_MAX) -> Found:
    """Read it from a copy made below ``folder``, also while its program writes. Raises ``ImportUnreadable``."""
    try:
        with opened_copy(path, folder=folder, timeout_s=timeout_s, bytes_max=bytes_max) as database:
            return _read(path, database)
    except Unreadable as exc:
        raise ImportUnreadable(f"{path} {exc}.") from exc


def _read(path: Path, database: Foreign) -> Found:
    for table, needed in NEEDED.items():
        missing = needed - database.columns(table)
        if missing:
            raise ImportUnreadable(
                f"{path} is a database, but not Factory Factory's: it has no table {table} with {', '.join(sorted(missing))}."
            )
    sides = (
        _newest_of_each(database, PULL_REQUEST),
        _by_workspace(database, "WorkspacePRMonitoring", ENABLED),
        _by_workspace(database, "WorkspaceRatchet", RATCHET),
        _by_workspace(database, "WorkspaceAutoIteration", AUTO_ITERATION),
    )
    workspaces = []
    for row in _rows(database, "Workspace", WORKSPACE, WORKSPACES_MAX):
        whole = {**row, "parentWorkspaceId": row.get("parent_workspace_id")}
        for side in sides:
            whole.update(side.get(str(row["id"]), {}))
        workspaces.append(shaping.workspace(whole))
    return Found(
        source=path,
        layout=_layout(database),
        projects=tuple(shaping.project(row) for row in _rows(database, "Project", PROJECT, PROJECTS_MAX)),
        workspaces=tuple(workspaces),
        sessions=tuple(shaping.session(row) for row in _sessions(database)),
        permissions=shaping.permissions(next(_rows(database, "UserSettings", ("defaultWorkspacePermissions",), 1_000), None)),
    )


def _sessions(database: Foreign) -> Iterator[dict[str, Any]]:
    # Before February 2026 there was only one provider, and the table had its name.
    table = "AgentSession" if database.columns("AgentSession") else "ClaudeSession"
    for row in _rows(database, table, SESSION, SESSIONS_MAX):
        older = {"provider": CLAUDE, "providerSessionId": row["claudeSessionId"]} if "claudeSessionId" in row else {}
        yield {**row, **older}


def _newest_of_each(database: Foreign, names: Names) -> dict[str, dict[str, Any]]:
    """Each workspace's pull request; of several that is an open one, and the newest."""
    several: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for workspace, row in _of_workspaces(database, "WorkspacePR", names):
        if row.pop("detachedAt", None) is None:
            several[workspace].append(row)
    chosen = {}
    for workspace, rows in several.items():
        best = max(rows, key=lambda row: (row.get("prState") in shaping.OPEN_STATES, _number(row.get("prNumber"))))
        chosen[workspace] = {**best, "furtherPullRequests": len(rows) - 1}
    return chosen


def _by_workspace(database: Foreign, table: str, names: Names) -> dict[str, dict[str, Any]]:
    return dict(_of_workspaces(database, table, names))


def _of_workspaces(database: Foreign, table: str, names: Names) -> Iterator[tuple[str, dict[str, Any]]]:
    for row in _rows(database, table, ("workspaceId", *names), SIDE_ROWS_MAX):
        yield str(row.pop("workspaceId", "")), {names[name]: value for name, value in row.items()}


def _rows(database: Foreign, table: str, columns: Sequence[str], rows_max: int) -> Iterator[dict[str, Any]]:
    there = database.columns(table)
    wanted = [name for name in columns if name in there]
    return database.rows(table, wanted, rows_max=rows_max) if wanted else iter(())


def _layout(database: Foreign) -> str:
    names = [str(row["migration_name"]) for row in _rows(database, "_prisma_migrations", ("migration_name",), MIGRATIONS_MAX)]
    newest = shaping.label(max(names, default=""))
    return f"database with {len(names)} migrations, the newest {newest}" if newest else "database"


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
