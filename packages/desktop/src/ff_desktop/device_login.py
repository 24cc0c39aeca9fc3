"""Logging in from a machine without a browser (RFC 8628): the user types a code into a browser elsewhere."""

from collections.abc import Callable

from ff_core.contract.account import Client, TokenPairView
from ff_core.contract.authorization import (
    AUTHORIZATION_PENDING,
    DEVICE_GRANT,
    DEVICE_NAME_CHARS_MAX,
    SLOW_DOWN,
    SLOW_DOWN_S,
    DeviceLogin,
)
from ff_core.contract.problem import RemoteProblem
from ff_core.errors import FFError
from ff_desktop.connection import Connection, worth_retrying
from ff_desktop.errors import LoginRefused, LoginTimedOut

INTERVAL_S_MIN = 1
INTERVAL_S_MAX = 60
POLLS_MAX = 1000


def log_in_by_device(
    server: Connection, *, device: str, show: Callable[[DeviceLogin], None], sleep: Callable[[float], None]
) -> TokenPairView:
    """Begin a device login, ``show`` it, and ask until the user has decided.

    A broken connection is waited out. Raises ``LoginRefused``, ``LoginTimedOut``, and what :meth:`Connection.ask` raises.
    """
    begin = {"client_id": Client.FF.value, "device": device[:DEVICE_NAME_CHARS_MAX]}
    begun = server.ask("POST", "/v1/auth/device", DeviceLogin, form=begin)
    show(begun)
    interval_s = min(max(begun.interval, INTERVAL_S_MIN), INTERVAL_S_MAX)
    waited_s = 0
    form = {"grant_type": DEVICE_GRANT, "client_id": Client.FF.value, "device_code": begun.device_code}
    for _ in range(POLLS_MAX):
        sleep(interval_s)
        waited_s += interval_s
        try:
            return server.ask("POST", "/v1/auth/device/token", TokenPairView, form=form)
        except FFError as error:
            code = error.problem.code if isinstance(error, RemoteProblem) else ""
            if code == SLOW_DOWN or worth_retrying(error):
                interval_s += SLOW_DOWN_S
            elif code == "access_denied":
                raise LoginRefused from error
            elif code == "expired_token":
                raise LoginTimedOut from error
            elif code != AUTHORIZATION_PENDING:
                raise
        if waited_s > begun.expires_in:
            break
    raise LoginTimedOut
