-- Times are ISO 8601 in UTC, ids are UUIDs in their usual text form.

CREATE TABLE workspaces (
  id            TEXT PRIMARY KEY,
  name          TEXT NOT NULL,
  status        TEXT NOT NULL CHECK (status IN ('NEW', 'PROVISIONING', 'READY', 'FAILED', 'ARCHIVING', 'ARCHIVED')),
  repo_url      TEXT,
  repo_branch   TEXT,
  error_code    TEXT,
  error_message TEXT,
  created_at    TEXT NOT NULL,
  updated_at    TEXT NOT NULL
) STRICT;

CREATE TABLE events (
  workspace_id TEXT NOT NULL,
  seq          INTEGER NOT NULL CHECK (seq >= 1),
  at           TEXT NOT NULL,
  session_id   TEXT,
  body         TEXT NOT NULL CHECK (json_valid(body)),
  PRIMARY KEY (workspace_id, seq)
) STRICT;

-- The journal is append-only and without gaps, whatever the code above it does.
CREATE TRIGGER events_gapless BEFORE INSERT ON events
WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM events WHERE workspace_id = NEW.workspace_id)
BEGIN SELECT raise(ABORT, 'events: seq must be the next one'); END;

CREATE TRIGGER events_no_update BEFORE UPDATE ON events
BEGIN SELECT raise(ABORT, 'events: append only'); END;

CREATE TRIGGER events_no_delete BEFORE DELETE ON events
BEGIN SELECT raise(ABORT, 'events: append only'); END;
