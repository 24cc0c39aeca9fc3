"""Databases and exports as Factory Factory writes them (DOMAIN.md sections 1 and 5), in each of its layouts.

Written from its columns' names; only what an import looks at, and some of what it must not mind.
"""

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

PROJECT = """
CREATE TABLE "Project" (
  "id" TEXT NOT NULL PRIMARY KEY, "name" TEXT NOT NULL, "slug" TEXT NOT NULL, "repoPath" TEXT NOT NULL,
  "worktreeBasePath" TEXT NOT NULL, "defaultBranch" TEXT NOT NULL DEFAULT 'main', "githubOwner" TEXT, "githubRepo" TEXT,
  "isArchived" BOOLEAN NOT NULL DEFAULT false, "startupScriptCommand" TEXT, "startupScriptPath" TEXT,
  "startupScriptTimeout" INTEGER NOT NULL DEFAULT 300, "createdAt" DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP);
"""
_WORKSPACE = """
  "id" TEXT NOT NULL PRIMARY KEY, "projectId" TEXT NOT NULL, "name" TEXT NOT NULL, "description" TEXT,
  "status" TEXT NOT NULL DEFAULT 'NEW', "worktreePath" TEXT, "branchName" TEXT, "creationMetadata" JSONB,
  "initErrorMessage" TEXT, "initOutput" TEXT, "githubIssueNumber" INTEGER, "githubIssueUrl" TEXT,
  "createdAt" DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP, "updatedAt" DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "hasHadSessions" BOOLEAN NOT NULL DEFAULT false
"""
_LATER = """, "linearIssueIdentifier" TEXT, "parent_workspace_id" TEXT"""
_PR = """, "prUrl" TEXT, "prNumber" INTEGER, "prState" TEXT NOT NULL DEFAULT 'NONE', "prReviewState" TEXT"""
_FLAT = (
    _PR
    + """, "prCiStatus" TEXT NOT NULL DEFAULT 'UNKNOWN', "prReviewLastCheckedAt" DATETIME,
  "ratchetEnabled" BOOLEAN NOT NULL DEFAULT true, "ratchetState" TEXT NOT NULL DEFAULT 'IDLE', "ratchetActiveSessionId" TEXT,
  "ratchetLastCiRunId" TEXT, "ratchetDispatchOutcome" TEXT, "ratchetDispatchRetryCount" INTEGER NOT NULL DEFAULT 0,
  "runScriptCommand" TEXT, "runScriptStatus" TEXT NOT NULL DEFAULT 'IDLE', "mode" TEXT NOT NULL DEFAULT 'STANDARD'"""
)
_SESSION = """
  "id" TEXT NOT NULL PRIMARY KEY, "workspaceId" TEXT NOT NULL, "name" TEXT, "workflow" TEXT NOT NULL,
  "model" TEXT NOT NULL DEFAULT 'sonnet', "status" TEXT NOT NULL DEFAULT 'IDLE',
  "createdAt" DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP, "updatedAt" DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP
"""
SESSION = (
    f'CREATE TABLE "AgentSession" ({_SESSION}, "provider" TEXT NOT NULL, "providerSessionId" TEXT, "providerMetadata" JSONB);'
)
SETTINGS = (
    """CREATE TABLE "UserSettings" ("id" TEXT PRIMARY KEY, "defaultWorkspacePermissions" TEXT NOT NULL DEFAULT 'STRICT');"""
)
MIGRATIONS = """
CREATE TABLE "_prisma_migrations" ("id" TEXT PRIMARY KEY, "migration_name" TEXT NOT NULL);
INSERT INTO "_prisma_migrations" VALUES ('a', '20260127181600_init'), ('b', '20260807222320_voice_vad_aggressiveness_settings');
"""
_SIDES = """
CREATE TABLE "WorkspaceRatchet" (
  "workspaceId" TEXT NOT NULL PRIMARY KEY, "enabled" BOOLEAN NOT NULL DEFAULT true, "lastCheckedAt" DATETIME,
  "activeSessionId" TEXT, "dispatchSnapshotKey" TEXT, "dispatchOutcome" TEXT, "dispatchRetryCount" INTEGER NOT NULL DEFAULT 0,
  "dispatchStalled" BOOLEAN NOT NULL DEFAULT false);
CREATE TABLE "WorkspaceAutoIteration" (
  "workspaceId" TEXT NOT NULL PRIMARY KEY, "mode" TEXT NOT NULL DEFAULT 'STANDARD', "config" JSONB, "progress" JSONB);
"""
_ONE_PR = """
CREATE TABLE "WorkspacePR" (
  "workspaceId" TEXT NOT NULL PRIMARY KEY, "url" TEXT, "number" INTEGER, "state" TEXT NOT NULL DEFAULT 'NONE',
  "reviewState" TEXT, "ciStatus" TEXT NOT NULL DEFAULT 'UNKNOWN', "hasMergeConflict" BOOLEAN NOT NULL DEFAULT false,
  "syncedAt" DATETIME, "reviewLastCheckedAt" DATETIME);
"""
_MANY_PRS = """
CREATE TABLE "WorkspacePR" (
  "id" TEXT NOT NULL PRIMARY KEY, "workspaceId" TEXT NOT NULL, "url" TEXT NOT NULL, "number" INTEGER,
  "state" TEXT NOT NULL DEFAULT 'NONE', "reviewState" TEXT, "ciStatus" TEXT NOT NULL DEFAULT 'UNKNOWN',
  "hasMergeConflict" BOOLEAN NOT NULL DEFAULT false, "syncedAt" DATETIME, "detachedAt" DATETIME, "reviewLastCheckedAt" DATETIME);
CREATE TABLE "WorkspacePRMonitoring" ("workspaceId" TEXT NOT NULL PRIMARY KEY, "enabled" BOOLEAN NOT NULL DEFAULT false);
"""

FIRST = (
    PROJECT + f'CREATE TABLE "Workspace" ({_WORKSPACE}{_PR}); CREATE TABLE "ClaudeSession" ({_SESSION}, "claudeSessionId" TEXT);'
)
"""January 2026: one provider, no ratchet, no settings."""
FLAT = PROJECT + f'CREATE TABLE "Workspace" ({_WORKSPACE}{_LATER}{_FLAT});' + SESSION + SETTINGS + MIGRATIONS
"""Before 2026-07-26: all on the workspace itself."""
SPLIT = PROJECT + f'CREATE TABLE "Workspace" ({_WORKSPACE}{_LATER});' + _SIDES + _ONE_PR + SESSION + SETTINGS + MIGRATIONS
"""v0.4.6: tables beside it."""
NEWEST = PROJECT + f'CREATE TABLE "Workspace" ({_WORKSPACE}{_LATER});' + _MANY_PRS + SESSION + SETTINGS + MIGRATIONS
"""October 2026: several pull requests, and no ratchet's record."""


Rows = Iterable[tuple[str, dict[str, object]]]


def make(path: Path, layout: str, rows: Rows = (), *, wal: bool = False) -> Path:
    """Make a database of that layout with rows: pairs of a table and its columns' values."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        if wal:
            database.execute("PRAGMA journal_mode = WAL")
        database.executescript(layout)
        database.execute("BEGIN")
        for table, row in rows:
            insert(database, table, **row)
        database.execute("COMMIT")
    return path


def insert(database: sqlite3.Connection, table: str, **row: object) -> None:
    """Add a row."""
    names, marks = ", ".join(f'"{name}"' for name in row), ", ".join("?" for _ in row)
    database.execute(f'INSERT INTO "{table}" ({names}) VALUES ({marks})', tuple(row.values()))  # noqa: S608  (words of tests)


def export(path: Path, *, version: object = 4, **data: object) -> Path:
    """Write an export; ``data`` are its lists and its settings."""
    whole = {"projects": [], "workspaces": [], "agentSessions": [], "terminalSessions": [], "userSettings": None} | data
    meta = {"exportedAt": "2026-08-10T09:00:00.000Z", "version": "0.4.6", "schemaVersion": version}
    path.write_text(json.dumps({"meta": meta, "data": whole}))
    return path
