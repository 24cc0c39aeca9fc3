"""What can go wrong between the server and its database."""

from ff_core.errors import Conflict, FFError


class DatabaseUnavailable(FFError):
    """The database does not answer just now; try again in a few seconds."""

    code = "database_unavailable"
    status = 503


class DatabaseInUse(Conflict):
    """Another server process uses this data directory; stop it, choose another one, or set FF_DATABASE_URL."""

    code = "database_in_use"


class DatabaseNotStarted(FFError):
    """The embedded PostgreSQL did not start; its log is in the data directory."""

    code = "database_not_started"


class DatabaseUnsafe(FFError):
    """The database would not keep tenants apart; run `ff-cloud migrate` with the role that owns the tables."""

    code = "database_unsafe"
