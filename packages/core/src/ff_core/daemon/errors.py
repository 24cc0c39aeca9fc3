"""What the door itself can refuse."""

from ff_core.errors import Conflict, FFError, InvalidInput
from ff_core.process import ProgramMissing


class Unauthorized(FFError):
    """This needs the daemon's own bearer token."""

    code = "unauthorized"
    status = 401


class StaleGeneration(Conflict):
    """This call was meant for an earlier life of this VM; look it up again."""

    code = "stale_generation"


class NotBound(Conflict):
    """This VM belongs to nobody yet, or was restarted; bind it first."""

    code = "not_bound"


class MethodNotAllowed(FFError):
    """This address does not take that method."""

    code = "method_not_allowed"
    status = 405


class ExecCwdOutside(InvalidInput):
    """The folder to run a command in must be inside the workspace: the repository or the home folder."""

    code = "exec_cwd_outside"


class CommandMissing(ProgramMissing):
    """The command to run is not installed in the workspace, or may not be run."""

    status = 422


class TooManyCommands(FFError):
    """Too many commands run in this workspace at once; wait until one has ended."""

    code = "too_many_commands"
    status = 429


class BadSettings(FFError):
    """The daemon's environment is not complete."""

    code = "bad_settings"


class ProbeFailed(FFError):
    """This VM lacks something that an agent works with; make another one, and look at its image and its volume."""

    code = "probe_failed"
    status = 503
