"""What can go wrong on this side of the wire. Errors of the server arrive as ``ff_core.contract.problem.RemoteProblem``."""

from ff_core.errors import Conflict, FFError, InvalidInput


class NotLoggedIn(FFError):
    """You are not logged in; run: ff login --server URL."""

    code = "not_logged_in"
    status = 401


class ServerUnreachable(FFError):
    """The server can't be reached."""

    code = "server_unreachable"
    status = 503


class ServeUnreachable(ServerUnreachable):
    """`ff serve`, which runs the workspaces of this machine, does not answer; its log is in the data folder."""

    code = "serve_unreachable"


class ServeFailed(ServeUnreachable):
    """`ff serve` could not be started; its log in the data folder has the reason."""

    code = "serve_failed"


class ServeRunning(Conflict):
    """`ff serve` runs already; stop it with `ff serve --stop`."""

    code = "serve_running"


class ServeBusy(Conflict):
    """Something runs in workspaces of this machine, so `ff serve` was not stopped."""

    code = "serve_busy"


class DataFolderUnfit(InvalidInput):
    """The data folder can't be used; choose another one with FF_DESKTOP_DIR."""

    code = "data_folder_unfit"


class CloudOnly(InvalidInput):
    """This is for workspaces in the cloud, and that one lives on this machine."""

    code = "cloud_only"


class ServerSilent(ServerUnreachable):
    """The server took the request and did not answer in time."""

    code = "server_silent"
    status = 504


class BadReply(FFError):
    """The server's answer makes no sense; is that address a Factory Factory server of a fitting version?"""

    code = "bad_reply"
    status = 502


class InsecureServer(InvalidInput):
    """Plain http would send your password and key readable over the network; use https, or pass --insecure to accept that."""

    code = "insecure_server"


class CredentialsExposed(FFError):
    """The file with your key is open to other users of this machine."""

    code = "credentials_exposed"
    status = 403


class CredentialsUnreadable(FFError):
    """The file with your key can't be read."""

    code = "credentials_unreadable"
    status = 500


class KeyringUnusable(FFError):
    """The system's keyring, which holds your login, does not answer; unlock it, or log in again with FF_KEYRING=0."""

    code = "keyring_unusable"
    status = 500


class LoginRefused(FFError):
    """The login was refused on the page; nobody is logged in."""

    code = "login_refused"
    status = 403


class VerifyFirst(FFError):
    """A letter is on its way to that e-mail. Do what it says, then log in: ff login --server URL --email E."""

    code = "verify_first"
    status = 403


class LoginTimedOut(FFError):
    """Nobody answered on the page in time; run ff login again."""

    code = "login_timed_out"
    status = 403


class CredentialsBusy(Conflict):
    """Another ff is logging in or out, or renewing the login, just now; try again when it is done."""

    code = "credentials_busy"


class Ambiguous(InvalidInput):
    """More than one thing is meant by that."""

    code = "ambiguous"


class NothingWaits(Conflict):
    """Nothing in this workspace waits for your answer."""

    code = "nothing_waits"


class OtherSettings(Conflict):
    """The session already runs with other settings."""

    code = "other_settings"


class CredentialsAsk(InvalidInput):
    """Files that look like credentials would stay behind; say --credentials to send them, or --no-credentials to leave them."""

    code = "credentials_ask"


class OnAnotherDesktop(Conflict):
    """This workspace lives on another desktop now; send it to the cloud from there."""

    code = "on_another_desktop"
