"""HTTP to one server: bounded, timed, typed by the contract; every foreign error is translated here."""

import contextlib
import functools
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import httpx2
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import to_json

from ff_core.contract.problem import Problem, RemoteProblem
from ff_core.errors import FFError
from ff_desktop import __version__
from ff_desktop.address import Server
from ff_desktop.bearer import Bearer, FixedBearer
from ff_desktop.errors import BadReply, NotLoggedIn, ServerSilent, ServerUnreachable, ServeUnreachable

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0
ANSWER_BYTES_MAX = 16 * 1024 * 1024
PROBLEM_BYTES_MAX = 256 * 1024
MACHINE_CHARS_MAX = 60
RETRY_DELAYS_S = (0.2, 0.8)
"""Waits before the second and the third try of what may be repeated."""
RETRY_STATUSES = frozenset({502, 503, 504})

M = TypeVar("M", bound=BaseModel)
Params = Mapping[str, str | int]
Content = tuple[bytes | None, str]
"""A body and its type."""


HERE = Server(url="http://ff-serve", loopback=True, insecure=False)
"""The name of ``ff serve`` in what is sent over its socket."""


@functools.cache
def _authorities(*, trust_env: bool) -> ssl.SSLContext:
    """Whom to trust, read once for all connections of a process: that takes longer than most answers."""
    return httpx2.create_ssl_context(trust_env=trust_env)


class Connection:
    """A server and, for most calls, who calls. Redirects are not followed, so the credential goes nowhere else.

    ``socket_path``: the server is ``ff serve`` of this machine, behind that Unix socket, which only its user can open.
    ``patient`` false: nothing is tried twice.
    """

    def __init__(
        self,
        server: Server,
        bearer: Bearer | SecretStr | None,
        *,
        sleep: Callable[[float], None],
        socket_path: Path | None = None,
        patient: bool = True,
    ) -> None:
        self.server = server
        self._sleep = sleep
        self._socket_path = socket_path
        self._delays_s = RETRY_DELAYS_S if patient else ()
        self._bearer = FixedBearer(bearer) if isinstance(bearer, SecretStr) else bearer
        headers = {"User-Agent": f"ff/{__version__} on {machine_name(socket.gethostname())}", "Accept": "application/json"}
        self._client = httpx2.Client(
            headers=headers,
            timeout=httpx2.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            follow_redirects=False,
            transport=None if socket_path is None else httpx2.HTTPTransport(uds=str(socket_path), verify=False),
            verify=_authorities(trust_env=not server.loopback) if socket_path is None else False,
            trust_env=not server.loopback,  # a proxy from the environment can't reach this machine's loopback
        )

    def close(self) -> None:
        """Give the sockets back; may be repeated."""
        self._client.close()

    def ask(
        self,
        method: str,
        path: str,
        answer: type[M],
        *,
        body: BaseModel | None = None,
        form: Mapping[str, str] | None = None,
        raw: Content | None = None,
        params: Params | None = None,
        idempotency_key: str | None = None,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> M:
        """One request and its typed answer. A GET, or a POST with an ``idempotency_key``, is tried up to three times.

        ``raw``: bytes to send as they are. Raises ``RemoteProblem`` (the server refused), ``ServerUnreachable``, ``BadReply``.
        """
        content = self.call(
            *(method, path),
            body=body,
            form=form,
            raw=raw,
            params=params,
            idempotency_key=idempotency_key,
            answer_timeout_s=answer_timeout_s,
        )
        try:
            return answer.model_validate_json(content)
        except ValidationError:
            # Without its cause: the message would quote the answer, which may hold a token.
            raise BadReply(f"{self.server.url}{path} answered something that is not a {answer.__name__}.") from None

    def call(
        self,
        method: str,
        path: str,
        *,
        body: BaseModel | None = None,
        form: Mapping[str, str] | None = None,
        raw: Content | None = None,
        params: Params | None = None,
        idempotency_key: str | None = None,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> bytes:
        """Like :meth:`ask`, with the answer's bytes (at most ``ANSWER_BYTES_MAX``)."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        content = _content(body, form) if raw is None else raw
        for delay_s in self._delays_s if method == "GET" or idempotency_key else ():
            try:
                return self._once(method, path, content, params, headers, answer_timeout_s)
            except FFError as error:
                if not worth_retrying(error):
                    raise
                self._sleep(delay_s)
        return self._once(method, path, content, params, headers, answer_timeout_s)

    def _once(
        self, method: str, path: str, content: Content, params: Params | None, headers: Mapping[str, str], answer_timeout_s: float
    ) -> bytes:
        with self._stream(method, path, content, params=params, headers=headers, read_timeout_s=answer_timeout_s) as response:
            return self._bounded(response, ANSWER_BYTES_MAX)

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        body: BaseModel | None = None,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        read_timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> Iterator[httpx2.Response]:
        """One request whose answer is read as it comes; never retried. Leaving closes the connection.

        ``read_timeout_s`` limits the wait for each next piece. Raises like :meth:`ask`.
        """
        content = _content(body)
        with self._stream(method, path, content, params=params, headers=headers, read_timeout_s=read_timeout_s) as response:
            yield response

    @contextlib.contextmanager
    def _stream(
        self,
        method: str,
        path: str,
        content: Content,
        *,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        read_timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> Iterator[httpx2.Response]:
        with contextlib.ExitStack() as stack:

            def send(secret: SecretStr | None) -> httpx2.Response:
                sent = {**(headers or {}), **_authorization(secret)}
                return stack.enter_context(self._sent(method, path, content, params, sent, read_timeout_s))

            secret = None if self._bearer is None else self._bearer.current()
            try:
                response = send(secret)
            except RemoteProblem as error:
                # What was refused for its credential was not carried out, so it may be sent again with another one.
                refused = error.problem.status == NotLoggedIn.status
                if not refused or self._bearer is None or secret is None or not self._bearer.renewed(secret):
                    raise
                response = send(self._bearer.current())
            yield response

    @contextlib.contextmanager
    def _sent(
        self, method: str, path: str, content: Content, params: Params | None, headers: Mapping[str, str], read_timeout_s: float
    ) -> Iterator[httpx2.Response]:
        data, content_type = content
        sent = {**headers, **({"Content-Type": content_type} if content_type else {})}
        timeout = httpx2.Timeout(read_timeout_s, connect=CONNECT_TIMEOUT_S)
        try:
            with self._client.stream(
                method, f"{self.server.url}{path}", content=data, params=params, headers=sent, timeout=timeout
            ) as response:
                if not response.is_success:
                    raise RemoteProblem(self._problem(response))
                yield response
        except httpx2.ReadTimeout as error:
            raise ServerSilent(f"{self.server.url} did not answer within {read_timeout_s:g} s; try again.") from error
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise self._absent(_words(error)) from error
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise self._broken(_words(error)) from error

    def _absent(self, words: str) -> ServerUnreachable:
        if self._socket_path is not None:
            return ServeUnreachable(f"`ff serve` does not answer at {self._socket_path} ({words}).")
        return ServerUnreachable(
            f"No server answers at {self.server.url} ({words}). Check the address, and that `ff-cloud serve` runs there."
        )

    def _broken(self, words: str) -> ServerUnreachable:
        if self._socket_path is not None:
            return ServeUnreachable(f"The connection to `ff serve` broke ({words}); it may have been stopped.")
        return ServerUnreachable(f"The connection to {self.server.url} broke ({words}).")

    def _bounded(self, response: httpx2.Response, bytes_max: int) -> bytes:
        content = bytearray()
        for piece in response.iter_bytes():
            content += piece
            if len(content) > bytes_max:
                raise BadReply(f"{self.server.url} answered more than {bytes_max} bytes.")
        return bytes(content)

    def _problem(self, response: httpx2.Response) -> Problem:
        status = response.status_code
        try:
            problem = Problem.model_validate_json(self._bounded(response, PROBLEM_BYTES_MAX))
        except ValidationError:
            return Problem(
                title="No problem document",
                status=status,
                code=f"http_{status}",
                detail=f"{self.server.url} answered {status} without saying why; is that a Factory Factory server?",
            )
        return problem.model_copy(update={"status": status})


def worth_retrying(error: FFError) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, RemoteProblem):
        return error.problem.status in RETRY_STATUSES
    return isinstance(error, ServerUnreachable)


def machine_name(host: str) -> str:
    """The name of a machine, for its user to recognise in lists of logins: printable ASCII, at most 60 characters."""
    plain = "".join(char for char in host if char.isascii() and char.isprintable() and char not in "/\\")
    return plain.strip()[:MACHINE_CHARS_MAX] or "a machine"


def _content(body: BaseModel | None, form: Mapping[str, str] | None = None) -> Content:
    if form is not None:
        return urlencode(form).encode(), "application/x-www-form-urlencoded"
    return (None, "") if body is None else (to_json(_revealed(body)), "application/json")


def _authorization(secret: SecretStr | None) -> dict[str, str]:
    return {} if secret is None else {"Authorization": f"Bearer {secret.get_secret_value()}"}


def _revealed(body: BaseModel) -> dict[str, Any]:
    """The fields to send. Secrets print as stars everywhere but here."""
    fields = body.model_dump(exclude_none=True)
    return {name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in fields.items()}


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
