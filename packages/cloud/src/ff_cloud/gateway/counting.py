"""Counting what VMs ask of the outside, and how much goes there and back. Bodies are not looked into."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ff_cloud.gateway import git_hosts, github_rest, model
from ff_cloud.kit.metrics import GatewayMetrics, UpstreamKind

_PREFIXES: tuple[tuple[str, UpstreamKind], ...] = (
    (model.PREFIX, "model"),
    (git_hosts.PREFIX, "git"),
    (github_rest.PREFIX, "github"),
)


def upstream_of(path: str) -> UpstreamKind:
    """Where a request leads. Pure."""
    for prefix, kind in _PREFIXES:
        if path == prefix or path.startswith(f"{prefix}/"):
            return kind
    return "other"


class Counted:
    """An ASGI app around the gateway's."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See :class:`Counted`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = from_vm = to_vm = 0
        kind = upstream_of(scope["path"])

        async def counting_receive() -> Message:
            nonlocal from_vm
            message = await receive()
            from_vm += len(message.get("body", b""))
            return message

        async def counting_send(message: Message) -> None:
            nonlocal status, to_vm
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]
            to_vm += len(message.get("body", b""))

        try:
            await self._app(scope, counting_receive, counting_send)
        finally:
            self._metrics.passed(kind, status, from_vm_bytes=from_vm, to_vm_bytes=to_vm)
