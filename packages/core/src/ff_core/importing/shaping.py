"""A project, workspace or session as the export names its fields, read into what we keep of it. Pure.

The database's tables are given the same names before (:mod:`ff_core.importing.reading_database`).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ff_core.contract.plain import URL_CHARS_MAX
from ff_core.contract.record import DispatchOutcome, PullRequestRecord, RatchetRecord
from ff_core.contract.session import WORKFLOW, WORKFLOW_PATTERN, PermissionPreset
from ff_core.importing.errors import ImportUnreadable
from ff_core.importing.found import DESCRIPTION_CHARS_MAX, ID_CHARS_MAX, FoundProject, FoundSession, FoundWorkspace
from ff_core.importing.values import Fields

LABEL_CHARS_MAX = 100
WORD_CHARS_MAX = 100
KEY_CHARS_MAX = 20_000
BRANCH_CHARS_MAX = 250
OPEN_STATES = frozenset({"OPEN", "DRAFT", "CHANGES_REQUESTED", "APPROVED"})

_ISSUE_URL = re.compile(r"https://[^/\s]+/[^/\s]+/[^/\s]+/issues/[0-9]+")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:\[\]@-]{0,99}")
_CONVERSATION = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
"""It becomes the name of a file."""
_URL = re.compile(r"https?://[^\s\x00-\x1f\x7f]+")


def project(values: Mapping[str, Any]) -> FoundProject:
    """A project. Raises ``ImportUnreadable`` without what makes it one."""
    fields = Fields(values, _where("project", values))
    path = fields.required("repoPath")
    script = fields.text("startupScriptCommand") or fields.text("startupScriptPath")
    return FoundProject(
        id=_id(fields, "id"),
        name=label(fields.text("name") or "") or label(Path(path).name) or "project",
        slug=fields.text("slug") or "",
        path=Path(path),
        default_branch=fields.text("defaultBranch") or "main",
        archived=fields.flag("isArchived", default=False),
        created_at=fields.required_moment("createdAt"),
        left=("its start-up script (put it into factory-factory.json as scripts.setup)",) if script else (),
    )


def workspace(values: Mapping[str, Any]) -> FoundWorkspace:
    """A workspace. Raises ``ImportUnreadable`` without what makes it one."""
    fields = Fields(values, _where("workspace", values))
    worktree, description = fields.text("worktreePath"), fields.text("description")
    issue = fields.text("githubIssueUrl") or ""
    return FoundWorkspace(
        id=_id(fields, "id"),
        project_id=_id(fields, "projectId"),
        name=label(fields.text("name") or "") or "workspace",
        description=description and description[:DESCRIPTION_CHARS_MAX],
        status=_word(fields, "status") or "",
        worktree=None if worktree is None else Path(worktree),
        branch=(fields.text("branchName") or "")[:BRANCH_CHARS_MAX] or None,
        github_issue_url=issue if len(issue) <= URL_CHARS_MAX and _ISSUE_URL.fullmatch(issue) else None,
        pull_request=_pull_request(fields),
        ratchet=_ratchet(fields),
        init_error=fields.text("initErrorMessage"),
        created_at=fields.required_moment("createdAt"),
        left=tuple(_left(fields)),
    )


def session(values: Mapping[str, Any]) -> FoundSession:
    """A session. Raises ``ImportUnreadable`` without what makes it one."""
    fields = Fields(values, _where("session", values))
    conversation, model = fields.text("providerSessionId") or "", fields.text("model") or ""
    return FoundSession(
        id=_id(fields, "id"),
        workspace_id=_id(fields, "workspaceId"),
        name=label(fields.text("name") or ""),
        workflow=_workflow(fields.text("workflow") or ""),
        model=model if _MODEL.fullmatch(model) else None,
        status=_word(fields, "status") or "",
        provider=_word(fields, "provider") or "",
        provider_session_id=conversation if _CONVERSATION.fullmatch(conversation) else None,
        created_at=fields.required_moment("createdAt"),
        updated_at=fields.moment("updatedAt") or fields.required_moment("createdAt"),
    )


def permissions(values: Mapping[str, Any] | None) -> PermissionPreset:
    """What the user's settings give new sessions; the strictest without a word about it."""
    word = None if values is None else Fields(values, "The settings").text("defaultWorkspacePermissions")
    return PermissionPreset(word) if word in set(PermissionPreset) else PermissionPreset.STRICT


def label(text: str) -> str | None:
    """The text as a :data:`~ff_core.contract.base.Label`; None when nothing of it is left."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text[: LABEL_CHARS_MAX * 10]).split())
    line = line.replace("/", "-").replace("\\", "-")[:LABEL_CHARS_MAX].strip()
    return None if line in {"", ".", ".."} else line


def _workflow(text: str) -> str:
    word = re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")[:50]
    return word if re.fullmatch(WORKFLOW_PATTERN, word) else WORKFLOW


def _pull_request(fields: Fields) -> PullRequestRecord | None:
    url = fields.text("prUrl") or ""
    if len(url) > URL_CHARS_MAX or not _URL.fullmatch(url):
        return None
    state = _word(fields, "prState") or "NONE"
    return PullRequestRecord(
        url=url,
        number=fields.number("prNumber"),
        state=state,
        review_state=_word(fields, "prReviewState"),
        ci_status=_word(fields, "prCiStatus") or "UNKNOWN",
        has_merge_conflict=_conflict(fields, state),
        review_last_checked_at=fields.moment("prReviewLastCheckedAt"),
    )


def _conflict(fields: Fields, state: str) -> bool:
    # Only newer databases say it. Before, it was hidden in the ratchet's state, where a failing build outranked it.
    ratchet, key = fields.text("ratchetState"), fields.text("ratchetLastCiRunId") or ""
    masked = ratchet == "CI_FAILED" and state in OPEN_STATES and key.endswith("|merge:conflict")
    return fields.flag("prHasMergeConflict", default=ratchet == "MERGE_CONFLICT" or masked)


def _ratchet(fields: Fields) -> RatchetRecord:
    outcome = fields.text("ratchetDispatchOutcome")
    key = fields.text("ratchetLastCiRunId")
    return RatchetRecord(
        enabled=fields.flag("ratchetEnabled", default=True),
        # A key that was cut would be another key, and a fix be dispatched twice; nobody makes one so long.
        dispatch_snapshot_key=key if key is None or len(key) <= KEY_CHARS_MAX else None,
        # Its fixer does not come along, so it is over; COMPLETED is the outcome after which the same is not tried again.
        dispatch_outcome=DispatchOutcome.DIED if outcome == "DIED" else DispatchOutcome.COMPLETED if outcome else None,
        dispatch_retry_count=max(0, fields.number("ratchetDispatchRetryCount") or 0),
        dispatch_stalled=fields.flag("ratchetDispatchStalled", default=False),
    )


def _left(fields: Fields) -> list[str]:
    linear = _word(fields, "linearIssueIdentifier")
    issue = fields.text("githubIssueUrl") is None and fields.number("githubIssueNumber") is not None
    further = fields.number("furtherPullRequests") or 0
    said = {
        "its auto-iteration": _word(fields, "mode") == "AUTO_ITERATION",
        f"its Linear issue {linear}": linear is not None,
        f"its GitHub issue {fields.number('githubIssueNumber')}, which has no address": issue,
        "that another workspace made it": fields.text("parentWorkspaceId") is not None,
        f"{further} further pull requests": further > 0,
    }
    return [what for what, is_so in said.items() if is_so]


def _id(fields: Fields, name: str) -> str:
    value = fields.required(name)
    if len(value) > ID_CHARS_MAX:
        raise ImportUnreadable(f"An {name} of more than {ID_CHARS_MAX} characters is not one of Factory Factory's.")
    return value


def _word(fields: Fields, name: str) -> str | None:
    value = fields.text(name)
    return value and value[:WORD_CHARS_MAX]


def _where(kind: str, values: Mapping[str, Any]) -> str:
    for name in ("name", "id"):
        value = values.get(name)
        if isinstance(value, str) and label(value):
            return f"The {kind} {label(value)!r}"
    return f"A {kind}"
