"""What has to stand before the first VM of a deployment: its network, the rules about the outside, and the knowledge of
what this machine can do.
"""

import asyncio
import hashlib
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog

from ff_cloud.vms.engine.client import DockerClient, filters
from ff_cloud.vms.engine.errors import EngineFailed
from ff_cloud.vms.engine.hardening import HOST_NAME, LABEL_DEPLOYMENT, Direct, Place, hosts_of, network_body, network_name_of
from ff_cloud.vms.engine.options import EngineOptions
from ff_cloud.vms.engine.reading import Refused, bridge_of, gateway_of
from ff_cloud.vms.engine.trial import Abilities, Trial
from ff_cloud.vms.host import firewall, resolving
from ff_cloud.vms.host.crash import Crash
from ff_cloud.vms.host.egress import Allowed, Egress
from ff_cloud.vms.host.errors import EgressUnavailable, HostFailed
from ff_cloud.vms.host.network import Bridge, default_mtu, is_here
from ff_cloud.vms.host.volumes import Volumes
from ff_core.ids import VmId

log = structlog.get_logger(__name__)

RESOLVE_TIMEOUT_S = 5.0
RULES_FRESH_S = 60.0
"""How long rules that were looked at are believed to stand when a VM is made. Looking costs 10 ms; a loop does it more often."""
_IPV6 = Path("/proc/sys/net/ipv6")


@dataclass(frozen=True)
class Net:
    """The VMs' network. ``bridge`` is null where it is not a bridge of this machine."""

    id: str
    gateway: str | None
    bridge: Bridge | None


class Ground:
    """The ground of one deployment on one Docker Engine. All methods are to be called inside of ``door``."""

    def __init__(self, client: DockerClient, deployment: str, options: EngineOptions, crash: Crash) -> None:
        self.deployment = deployment
        self.options = options
        self.on_host = client.local and os.geteuid() == 0
        """Whether the Docker Engine's machine is this one, and ours to change."""
        self.folder = options.place / deployment
        self.volumes = Volumes(self.folder, reserve=options.disk_quota == "reserve", crash=crash)
        self.egress_problem: str | None = None
        """Why the rules about the outside are not in force; null when they are, or not wanted."""
        self._client = client
        self._net: Net | None = None
        self._able: Abilities | None = None
        self._rules: tuple[str | None, float] | None = None
        """When they were last seen to stand, and with which gateway."""
        self._making_network = asyncio.Lock()
        self._trying = asyncio.Lock()
        self._ruling = asyncio.Lock()

    async def prepare(self, image: str) -> Abilities:
        """Bring everything about, and the rules back if somebody took them away. Safe to repeat.

        Raises ``EgressUnavailable`` when the rules are a condition and can't be put in force, ``ImageMissing``.
        """
        self._net = None
        await self.keep_rules(fresh_s=0)
        return await self.abilities(image)

    async def abilities(self, image: str) -> Abilities:
        """What this machine can do; found out once."""
        async with self._trying:
            if self._able is None:
                net = await self.network()
                self._able = await Trial(
                    client=self._client,
                    deployment=self.deployment,
                    options=self.options,
                    image=image,
                    place=lambda able: self._place(able, net, {}),
                    bridge=net.bridge if self.on_host else None,
                    folder=self.folder if self.on_host else None,
                ).run()
            return self._able

    @property
    def quota(self) -> bool:
        """Whether disks are limited; false as long as nobody found out."""
        return self._able is not None and self._able.quota

    def has_volume(self, vm_id: VmId) -> bool:
        """Whether the VM's volume is one of ours, with a limit."""
        return self.on_host and self.volumes.has(vm_id)

    def left_of_volume(self, vm_id: VmId) -> bool:
        """Whether anything is left of such a volume."""
        return self.on_host and self.volumes.left_of(vm_id)

    def all_volumes(self) -> set[VmId]:
        """Every VM of which anything is left."""
        return self.volumes.all() if self.on_host else set()

    def neighbours(self) -> set[str]:
        """The names of all deployments that keep something on this machine."""
        folder = self.options.place
        return {entry.name for entry in folder.iterdir() if entry.is_dir()} if self.on_host and folder.exists() else set()

    async def place(self, image: str, hosts: Mapping[str, str]) -> Place:
        """Where a container goes."""
        return self._place(await self.abilities(image), await self.network(), hosts)

    async def network(self) -> Net:
        """The network, made when there is none."""
        async with self._making_network:
            if self._net is None:
                found = await self.find_network() or await self._make_network()
                bridge = bridge_of(found) if self._client.local else None
                self._net = Net(found["Id"], gateway_of(found), bridge)
            return self._net

    def forget_network(self) -> None:
        """It turned out to be gone; the next one may have another bridge."""
        self._net = self._rules = None

    async def find_network(self) -> dict[str, Any] | None:
        """The network as Docker shows it; null when there is none yet."""
        if self.options.network is not None:
            found: dict[str, Any] | None = await self._client.find(f"networks/{self.options.network}")
            return found
        own = [network for network in await self._networks() if network["Name"] == network_name_of(self.deployment)]
        return min(own, key=lambda network: (network["Created"], network["Id"]), default=None)

    async def keep_rules(self, *, fresh_s: float = RULES_FRESH_S) -> None:
        """Put the rules about the outside in force, unless they were seen to stand less than ``fresh_s`` ago.

        Raises ``EgressUnavailable``.
        """
        if self.options.egress == "off":
            return
        now, gateway = asyncio.get_running_loop().time(), self.options.gateway_url()
        try:
            async with self._ruling:
                if self._rules is not None and self._rules[0] == gateway and now - self._rules[1] < fresh_s:
                    return
                wanted = await self.wanted_rules()
                if await firewall.apply(wanted):
                    log.info("egress.applied", bridge=wanted.bridge)
                self._rules, self.egress_problem = (gateway, now), None
        except HostFailed as error:
            if self.egress_problem != error.detail:
                log.warning("egress.open", reason=error.detail)
            self._rules, self.egress_problem = None, error.detail
            if self.options.egress == "on":
                raise EgressUnavailable from error

    async def wanted_rules(self) -> Egress:
        """The rules as they have to be now. Raises ``HostFailed`` where there can't be any."""
        if not self.on_host:
            raise HostFailed("VMs can be kept from private networks only with root on the machine of the Docker Engine.")
        bridge = (await self.network()).bridge
        if bridge is None or not await asyncio.to_thread(is_here, bridge):
            raise HostFailed("VMs can't be kept from private networks: their Docker network is not a bridge of this machine.")
        allowed = (*self.options.egress_allow, *await self._gateway(bridge))
        _, resolvers = resolving.resolv_conf()
        return Egress(self.deployment, bridge.name, bridge.subnet, resolvers, allowed)

    async def clear(self) -> None:
        """Remove the network, the rules, the volumes and their folder."""
        if self.on_host:
            await firewall.remove(self.deployment)
            await asyncio.to_thread(self.volumes.clear)
        for network in await self._networks():
            await self._remove_network(network["Id"])
        self._net = self._rules = None

    async def _networks(self) -> list[dict[str, Any]]:
        listed = await self._client.ask("GET", "networks", params=filters(label=[f"{LABEL_DEPLOYMENT}={self.deployment}"]))
        return list(listed)

    async def _make_network(self) -> dict[str, Any]:
        """Old Engines may let two racers have a network each: the elder stays."""
        if self.options.network is not None:
            raise EngineFailed(
                f"There is no Docker network {self.options.network!r}. Create it, or name none and one is made for you."
            )
        mtu = default_mtu() if self._client.local else None
        try:
            made = (await self._client.ask("POST", "networks/create", body=network_body(self.deployment, mtu)))["Id"]
        except Refused as exc:
            if exc.status != 409:
                raise
            made = None
        found = await self.find_network()
        if found is None:
            raise EngineFailed("The VMs' Docker network was removed while it was being made. Try again.")
        if made is not None and found["Id"] != made:
            await self._remove_network(made)
        return found

    async def _remove_network(self, network_id: str) -> None:
        """Also from under containers that are gone, which Docker may go on believing in."""
        found = await self._client.find(f"networks/{network_id}") or {}
        for connected in (found.get("Containers") or {}).values():
            body = {"Container": connected["Name"], "Force": True}
            await self._client.drop("POST", f"networks/{network_id}/disconnect", body=body)
        await self._client.drop("DELETE", f"networks/{network_id}")

    async def _gateway(self, bridge: Bridge) -> tuple[Allowed, ...]:
        url = self.options.gateway_url()
        if url is None:
            return ()
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if parts.hostname == HOST_NAME:
            return (Allowed(IPv4Network(bridge.gateway), port),)
        addresses = await _resolve(parts.hostname or "")
        return tuple(Allowed(IPv4Network(address), port) for address in addresses)

    def _place(self, able: Abilities, net: Net, hosts: Mapping[str, str]) -> Place:
        place = Place(self.deployment, net.id, net.gateway, able.runtime)
        if not able.direct:
            return place
        text, _ = resolving.resolv_conf()
        names = resolving.hosts(hosts_of(place, hosts))
        return replace(place, direct=Direct(self._file("hosts", names), self._file("resolv.conf", text), _IPV6.exists()))

    def _file(self, name: str, text: str) -> Path:
        """A file of that content for any number of containers. It never changes: another content is another file."""
        path = self.folder / "etc" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            new = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
            new.write_text(text)
            new.chmod(0o644)
            new.replace(path)
        return path


async def _resolve(name: str) -> list[IPv4Address]:
    """The addresses of a name or an address; none when it has none now."""
    try:
        return [IPv4Address(name)]
    except AddressValueError:
        pass
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(name, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except (TimeoutError, OSError):
        log.warning("egress.gateway_unknown", host=name)
        return []
    return sorted({IPv4Address(item[4][0]) for item in found})
