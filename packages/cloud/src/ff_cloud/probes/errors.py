"""What can go wrong with the probes."""

from ff_core.errors import FFError


class MetricsRefused(FFError):
    """The metrics are told to this machine, or to who shows FF_METRICS_TOKEN as a bearer token."""

    code = "metrics_refused"
    status = 403
