"""Logging in by the system's browser (RFC 8252): the answer comes to a port of the loopback interface, PKCE proves who asked."""

import hmac
import queue
import secrets
import threading
import webbrowser
from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

from ff_core.contract.account import Client, TokenPairView
from ff_core.contract.authorization import CODE_GRANT, DEVICE_NAME_CHARS_MAX, METADATA_PATH, ServerMetadata
from ff_desktop.connection import Connection
from ff_desktop.errors import LoginRefused, LoginTimedOut

WAIT_S_MAX = 600.0
_SOCKET_S_MAX = 5.0
_PATH = "/cb"
_PAGE = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Factory Factory</title>'
    "<body><h1>{title}</h1><p>You can close this page and go back to the terminal.</p></body></html>"
)


class _Receiver(ThreadingHTTPServer):
    """Listens for the one answer that has our ``state``; whatever else comes is turned away and forgotten."""

    daemon_threads = True

    def __init__(self, state: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.state = state
        self.answers: queue.Queue[dict[str, str]] = queue.Queue(maxsize=1)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a connection that a browser opened and did not use is no error of ours."""


class _Handler(BaseHTTPRequestHandler):
    server: _Receiver
    timeout = _SOCKET_S_MAX

    def do_GET(self) -> None:
        """Take the answer."""
        parts = urlsplit(self.path)
        found = {name: values[0] for name, values in parse_qs(parts.query, max_num_fields=10).items() if len(values) == 1}
        ours = hmac.compare_digest(found.get("state", "").encode(), self.server.state.encode())
        if parts.path != _PATH or self.headers.get("Host") != self.server.host or not ours:
            self._say(404, "Nothing is here.")
            return
        self._say(200, "You are logged in." if "code" in found else "You are not logged in.")
        if not self.server.answers.full():
            self.server.answers.put_nowait(found)

    def _say(self, status: int, title: str) -> None:
        content = _PAGE.format(title=title).encode()
        self.send_response(status)
        for name, value in (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(content))),
            ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-store"),
            ("Connection", "close"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Say nothing: the address holds the code."""


def log_in_by_browser(
    server: Connection,
    *,
    device: str,
    show: Callable[[str], None],
    open_browser: Callable[[str], object] | None = webbrowser.open,
    wait_s: float = WAIT_S_MAX,
) -> TokenPairView:
    """Send the user to the server's page and wait for his answer. ``show`` tells him the address; None opens no browser.

    Raises ``LoginRefused``, ``LoginTimedOut``, and what :meth:`Connection.ask` raises.
    """
    metadata = server.ask("GET", METADATA_PATH, ServerMetadata)
    state, verifier = secrets.token_urlsafe(24), secrets.token_urlsafe(48)
    with _Receiver(state) as receiver:
        redirect_uri = f"http://{receiver.host}{_PATH}"
        query = {
            "response_type": "code",
            "client_id": Client.FF.value,
            "redirect_uri": redirect_uri,
            "state": state,
            "device": device[:DEVICE_NAME_CHARS_MAX],
            "code_challenge": urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            url = f"{metadata.authorization_endpoint}?{urlencode(query)}"
            show(url)
            if open_browser is not None:  # in a thread: some only return when the user closes them
                threading.Thread(target=open_browser, args=(url,), daemon=True).start()
            answer = receiver.answers.get(timeout=wait_s)
        except queue.Empty:
            raise LoginTimedOut from None
        finally:
            receiver.shutdown()
    if answer.get("iss") != metadata.issuer:
        raise LoginRefused("The answer came from another server than the one that was asked; nobody is logged in.")
    if "code" not in answer:
        raise LoginRefused
    form = {
        "grant_type": CODE_GRANT,
        "client_id": Client.FF.value,
        "code": answer["code"],
        "redirect_uri": redirect_uri,
        "code_verifier": verifier,
    }
    return server.ask("POST", "/v1/auth/token", TokenPairView, form=form)
