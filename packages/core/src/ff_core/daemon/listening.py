"""The socket of the door. Imports next to nothing: it is opened before everything else is imported."""

import socket
from collections.abc import Mapping

BACKLOG = 512
HOST = "0.0.0.0"  # noqa: S104  (inside a container whose network only the control plane shares)
ENV_PORT = "FF_PORT"
PORT = "8430"
"""As ``ff_core.contract.daemon`` says, which takes long to import."""
PORT_MAX = 65_535


def open_door(env: Mapping[str, str]) -> socket.socket | None:
    """Listen where the environment says; None when it does not say a port, of which the settings complain then."""
    port = env.get(ENV_PORT) or PORT
    if not port.isdecimal() or int(port) > PORT_MAX:
        return None
    return listen(HOST, int(port))


def listen(host: str, port: int) -> socket.socket:
    """An address that callers can connect to from now on; they wait for their answer until somebody serves it."""
    # With the protocol said, asyncio turns Nagle's algorithm off for what it accepts; else each answer would wait 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
