"""What the door itself can refuse."""

from ff_core.errors import Conflict, FFError


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


class BadSettings(FFError):
    """The daemon's environment is not complete."""

    code = "bad_settings"


class LivesHere(Conflict):
    """This workspace lives in this VM already, so nothing can be put in its place."""

    code = "lives_here"


class ProbeFailed(FFError):
    """This VM lacks something that an agent works with; make another one, and look at its image and its volume."""

    code = "probe_failed"
    status = 503
