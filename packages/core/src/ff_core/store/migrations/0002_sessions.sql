CREATE TABLE sessions (
  id                  TEXT PRIMARY KEY,
  workspace_id        TEXT NOT NULL,
  name                TEXT NOT NULL,
  model               TEXT,
  permissions         TEXT NOT NULL CHECK (permissions IN ('STRICT', 'RELAXED', 'YOLO')),
  status              TEXT NOT NULL CHECK (status IN ('IDLE', 'RUNNING', 'COMPLETED', 'FAILED')),
  activity            TEXT NOT NULL CHECK (activity IN ('WORKING', 'WAITING', 'IDLE')),
  -- The agent's own name of the conversation.
  provider_session_id TEXT,
  -- The agent has said something in it, so there is something to lose when it can't be resumed.
  has_history         INTEGER NOT NULL DEFAULT 0 CHECK (has_history IN (0, 1)),
  -- What the user allowed for the rest of the session, in the agent's words.
  grants              TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(grants)),
  error_code          TEXT,
  error_message       TEXT,
  created_at          TEXT NOT NULL,
  updated_at          TEXT NOT NULL
) STRICT;

CREATE INDEX sessions_by_workspace ON sessions (workspace_id, created_at);

-- The durable queue of prompts: position is the order in which they are given to the agent.
CREATE TABLE session_messages (
  position   INTEGER PRIMARY KEY AUTOINCREMENT,
  id         TEXT NOT NULL UNIQUE,
  session_id TEXT NOT NULL REFERENCES sessions (id),
  text       TEXT NOT NULL,
  state      TEXT NOT NULL CHECK (state IN ('QUEUED', 'SENT', 'DONE', 'CANCELLED')),
  created_at TEXT NOT NULL
) STRICT;

CREATE INDEX session_messages_by_state ON session_messages (session_id, state, position);

-- Permissions and questions that the agent put to the user.
CREATE TABLE session_requests (
  id         TEXT PRIMARY KEY,
  session_id TEXT NOT NULL REFERENCES sessions (id),
  kind       TEXT NOT NULL CHECK (kind IN ('permission', 'question')),
  tool_name  TEXT NOT NULL,
  input      TEXT NOT NULL CHECK (json_valid(input)),
  questions  TEXT NOT NULL CHECK (json_valid(questions)),
  asked_at   TEXT NOT NULL,
  state      TEXT NOT NULL CHECK (state IN ('PENDING', 'ANSWERED', 'CANCELLED'))
) STRICT;

CREATE INDEX session_requests_by_state ON session_requests (session_id, state, asked_at);
