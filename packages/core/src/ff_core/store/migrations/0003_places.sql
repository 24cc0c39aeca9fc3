-- Where a workspace lives and how often that changed; the handoff that moves it, while one does.
ALTER TABLE workspaces ADD COLUMN location TEXT NOT NULL DEFAULT 'CLOUD' CHECK (location IN ('DESKTOP', 'CLOUD'));
ALTER TABLE workspaces ADD COLUMN epoch INTEGER NOT NULL DEFAULT 1 CHECK (epoch >= 0);
ALTER TABLE workspaces ADD COLUMN moving TEXT;
-- What only a desktop knows: many workspaces, each in a worktree of a project.
ALTER TABLE workspaces ADD COLUMN project_id TEXT REFERENCES projects (id);
ALTER TABLE workspaces ADD COLUMN worktree_path TEXT;
ALTER TABLE workspaces ADD COLUMN branch TEXT;
ALTER TABLE workspaces ADD COLUMN description TEXT;
ALTER TABLE workspaces ADD COLUMN github_issue_url TEXT;

CREATE TABLE projects (
  id             TEXT PRIMARY KEY,
  name           TEXT NOT NULL,
  slug           TEXT NOT NULL UNIQUE,
  path           TEXT NOT NULL UNIQUE,
  default_branch TEXT NOT NULL,
  repo_url       TEXT,
  include        TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(include)),
  created_at     TEXT NOT NULL
) STRICT;

CREATE INDEX workspaces_by_project ON workspaces (project_id);

ALTER TABLE sessions ADD COLUMN workflow TEXT NOT NULL DEFAULT 'followup';

CREATE TABLE ratchets (
  workspace_id          TEXT PRIMARY KEY REFERENCES workspaces (id) ON DELETE CASCADE,
  enabled               INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
  active_session_id     TEXT,
  dispatch_snapshot_key TEXT,
  dispatch_outcome      TEXT CHECK (dispatch_outcome IN ('RUNNING', 'COMPLETED', 'DIED')),
  dispatch_retry_count  INTEGER NOT NULL DEFAULT 0,
  dispatch_stalled      INTEGER NOT NULL DEFAULT 0 CHECK (dispatch_stalled IN (0, 1))
) STRICT;

CREATE TABLE pull_requests (
  workspace_id           TEXT PRIMARY KEY REFERENCES workspaces (id) ON DELETE CASCADE,
  url                    TEXT NOT NULL,
  number                 INTEGER,
  state                  TEXT NOT NULL DEFAULT 'NONE',
  review_state           TEXT,
  ci_status              TEXT NOT NULL DEFAULT 'UNKNOWN',
  has_merge_conflict     INTEGER NOT NULL DEFAULT 0 CHECK (has_merge_conflict IN (0, 1)),
  review_last_checked_at TEXT
) STRICT;

-- Handoffs of this desktop: what was decided, so that a restart goes on or turns back.
CREATE TABLE handoffs (
  id           TEXT PRIMARY KEY,
  workspace_id TEXT NOT NULL,
  name         TEXT NOT NULL,
  direction    TEXT NOT NULL CHECK (direction IN ('SEND', 'PULL')),
  status       TEXT NOT NULL CHECK (status IN ('RUNNING', 'STOPPED', 'DONE', 'ABORTED', 'FAILED')),
  step         TEXT NOT NULL,
  wanted       TEXT NOT NULL CHECK (json_valid(wanted)),
  -- What its steps found out and later ones need.
  state        TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(state)),
  receipt      TEXT CHECK (receipt IS NULL OR json_valid(receipt)),
  error_code    TEXT,
  error_message TEXT,
  created_at   TEXT NOT NULL,
  updated_at   TEXT NOT NULL
) STRICT;

-- At most one handoff at a time moves a workspace.
CREATE UNIQUE INDEX handoffs_one_open ON handoffs (workspace_id) WHERE status IN ('RUNNING', 'STOPPED');

-- This installation: 'desktop_id'.
CREATE TABLE facts (
  name  TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT;
