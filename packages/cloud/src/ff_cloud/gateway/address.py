"""Where VMs find the gateway, and what they are told to get in."""

from pydantic import SecretStr

from ff_cloud.gateway.errors import GatewayNotReady
from ff_cloud.gateway.model import PREFIX
from ff_cloud.gateway.tokens import gateway_token
from ff_cloud.vms.access import Outside
from ff_core.contract.daemon import GitAccess, ModelAccess
from ff_core.ids import VmId

HOST_OF_VMS = "ff-host"
"""The name under which every VM knows the machine it runs on."""


class GatewayAddress:
    """``url`` when it is set or the port is fixed; else known once the gateway of this process listens."""

    def __init__(self, *, url: str | None, port: int) -> None:
        self._url = url or (f"http://{HOST_OF_VMS}:{port}" if port else None)

    def listens(self, port: int) -> None:
        """The gateway of this process took a port; it counts where nothing was set."""
        if self._url is None:
            self._url = f"http://{HOST_OF_VMS}:{port}"

    @property
    def known_url(self) -> str | None:
        """The same; null while it is not known."""
        return self._url.rstrip("/") if self._url else None

    @property
    def url(self) -> str:
        """Without a slash at its end. Raises :class:`GatewayNotReady`."""
        if self._url is None:
            raise GatewayNotReady
        return self._url.rstrip("/")


class Ways:
    """What a VM is bound with: the gateway's address, and the VM's own token for it. No secret of a user."""

    def __init__(self, address: GatewayAddress, token_key: bytes, git_hosts: tuple[str, ...]) -> None:
        self._address = address
        self._token_key = token_key
        self._git_hosts = git_hosts

    def __call__(self, vm_id: VmId, generation: int) -> Outside:
        """The ways out of one generation of a VM. Raises :class:`GatewayNotReady`."""
        token = SecretStr(gateway_token(self._token_key, vm_id, generation))
        return Outside(
            model=ModelAccess(base_url=f"{self._address.url}{PREFIX}", api_key=token),
            git=GitAccess(gateway_url=self._address.url, token=token, hosts=self._git_hosts),
        )
