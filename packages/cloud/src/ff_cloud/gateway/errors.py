"""What the gateway refuses, whatever is asked of it."""

from ff_core.errors import FFError


class VmTokenRefused(FFError):
    """The gateway does not know this machine, or no longer; its workspace was probably stopped or deleted."""

    code = "vm_token_refused"
    status = 401


class GatewayNotReady(FFError):
    """The gateway does not listen yet; it waits for the Docker Engine. Try again in a few seconds."""

    code = "gateway_not_ready"
    status = 503
