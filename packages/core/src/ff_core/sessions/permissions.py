"""Who decides about a tool call: a preset, or the user. Pure.

A preset spares the user questions; it is not what keeps an agent in. That is the container.
"""

import re
from enum import Enum
from pathlib import PurePosixPath
from posixpath import normpath

from ff_core.contract.session import PermissionPreset
from ff_core.sessions.backend import ToolCall

QUESTION_TOOL = "AskUserQuestion"
PLAN_TOOL = "ExitPlanMode"
_EDITS = {"Write": "file_path", "Edit": "file_path", "MultiEdit": "file_path", "NotebookEdit": "notebook_path"}

# Commands whose damage can't be taken back by git: history on the remote, files outside, the machine itself.
_GRAVE = re.compile(
    r"""(?x)
      (?:^|[\s;&|(`]) (?: sudo | su | doas | mkfs[.\w]* | dd | shutdown | reboot | halt | poweroff ) (?:[\s;&|)]|$)
    | \bgit \b [^;&|\n]* \bpush\b [^;&|\n]* (?: \s--force | \s-[a-zA-Z]*f | \s--delete | \s--mirror | \s\+\S )
    | \brm \b [^;&|\n]* \s-[a-zA-Z]*[rR] [^;&|\n]* \s["']? (?: /(?!tmp/) | ~ | \$HOME | \$\{HOME\} | \.\./ | \.\.(?:[\s"']|$) )
    | \b(?:curl|wget)\b [^;&\n]* \| \s* (?:ba|z|da)?sh\b
    """
)


class Ruling(Enum):
    """What a preset says. There is no "deny": a preset that does not allow leaves it to the user."""

    ALLOW = "allow"
    ASK = "ask"


def rule(preset: PermissionPreset, call: ToolCall) -> Ruling:
    """Whether the preset answers this call. Questions and plans are always the user's."""
    if call.name in (QUESTION_TOOL, PLAN_TOOL):
        return Ruling.ASK
    match preset:
        case PermissionPreset.STRICT:
            return Ruling.ASK
        case PermissionPreset.RELAXED:
            return Ruling.ALLOW if _is_ordinary(call) else Ruling.ASK
        case PermissionPreset.YOLO:
            return Ruling.ALLOW


def _is_ordinary(call: ToolCall) -> bool:
    """An edit inside the workspace, or a command that is not grave, or a tool that is neither."""
    if call.name in _EDITS:
        return _is_inside(call.workspace, call.input.get(_EDITS[call.name]))
    if call.name == "Bash":
        command = call.input.get("command")
        return isinstance(command, str) and not _GRAVE.search(command)
    return True


def _is_inside(workspace: PurePosixPath, path: object) -> bool:
    if not isinstance(path, str) or not path:
        return False
    return PurePosixPath(normpath(workspace / path)).is_relative_to(workspace)
