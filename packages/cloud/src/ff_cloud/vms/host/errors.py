"""What can go wrong with the machine that VMs run on."""

from ff_core.errors import FFError


class HostFailed(FFError):
    """The machine that runs VMs refused something they need; run `ff-cloud doctor` on it."""

    code = "host_failed"
    status = 502


class EgressUnavailable(FFError):
    """VMs can't be kept from private networks here, and FF_VM_EGRESS=on asks for it, so none is started. It needs root,
    iptables and a Docker Engine on the same machine; FF_VM_EGRESS=auto goes on without.
    """

    code = "egress_unavailable"
    status = 503
