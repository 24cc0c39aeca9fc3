"""Whatever stands in a row or an export: it is refused with a word of ours, or it fits our tables and contracts."""

from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from ff_core.contract.base import Label
from ff_core.contract.session import NewSession
from ff_core.contract.workspace import NewWorkspace
from ff_core.importing import shaping
from ff_core.importing.errors import ImportUnreadable

LABEL = TypeAdapter(Label)
AT = "2026-07-01T10:20:30.456+00:00"
words = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=True),
    st.text(st.characters(codec=None)),
    st.binary(max_size=20),
    st.sampled_from(["READY", "CLAUDE", "DIED", "https://github.com/a/b/issues/1", "https://x/pull/1", AT, "main", "..", "a/b"]),
    st.lists(st.integers(), max_size=2),
)
names = st.sampled_from(
    [
        *("id", "projectId", "workspaceId", "name", "status", "createdAt", "updatedAt", "repoPath", "isArchived", "slug"),
        *("description", "worktreePath", "branchName", "githubIssueUrl", "githubIssueNumber", "mode", "prUrl", "prNumber"),
        *("prState", "prHasMergeConflict", "prReviewLastCheckedAt", "ratchetEnabled", "ratchetState", "ratchetLastCiRunId"),
        *("ratchetDispatchOutcome", "ratchetDispatchRetryCount", "provider", "providerSessionId", "workflow", "model"),
    ]
)
rows = st.dictionaries(names, words, max_size=6)
SOUND = {"id": "x", "projectId": "p", "workspaceId": "w", "name": "n", "status": "READY", "createdAt": AT, "repoPath": "/code"}


@settings(max_examples=300)
@given(st.text(st.characters(codec=None)))
def test_a_name_becomes_a_label_or_nothing(text):
    made = shaping.label(text)
    assert made is None or LABEL.validate_python(made) == made


@settings(max_examples=300)
@given(rows)
def test_rows_are_refused_or_fit(row):
    try:
        project, workspace, session = (make(SOUND | row) for make in (shaping.project, shaping.workspace, shaping.session))
    except ImportUnreadable as error:
        error.detail.encode()  # it can be sent and shown
        return
    LABEL.validate_python(project.name)
    NewWorkspace(name=workspace.name, branch=workspace.branch, github_issue_url=workspace.github_issue_url)
    NewSession(id=UUID(int=0), name=session.name, model=session.model, workflow=session.workflow)
    for text in (workspace.description or "", workspace.ratchet.dispatch_snapshot_key or "", str(workspace.worktree)):
        text.encode()
        assert "\0" not in text
    assert session.provider_session_id is None or "/" not in session.provider_session_id
