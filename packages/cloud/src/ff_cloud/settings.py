"""Settings of the server: environment variables that begin with ``FF_``. docs/reference/settings.md has the table."""

import hashlib
import os
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, NonNegativeFloat, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from ff_cloud.errors import SettingsInvalid

_MIB = 1024 * 1024


def _default_data_dir() -> Path:
    return Path("/var/lib/ff-cloud") if os.geteuid() == 0 else Path.home() / ".local" / "share" / "ff-cloud"


class CloudSettings(BaseSettings):
    """What can be set. Make one with :func:`load_settings`; parts get the values they need, not this."""

    model_config = SettingsConfigDict(
        env_prefix="FF_", env_ignore_empty=True, extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True
    )

    database_url: SecretStr | None = Field(None, description="PostgreSQL to use; unset: an embedded one below the data directory")
    data_dir: Path = Field(
        default_factory=_default_data_dir, description="Where the server keeps its key file, the embedded database and logs"
    )
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on")
    port: int = Field(8420, ge=0, le=65535, description="Port to listen on; 0 takes a free one")
    body_bytes_max: int = Field(_MIB, ge=1024, description="Longest request body")
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        (), description="Networks of reverse proxies, with commas between them, whose `X-Forwarded-For` is believed"
    )
    rate_auth: int = Field(300, ge=0, le=10**6, description="Requests a minute without a good login, per address; 0: no limit")
    rate_read: int = Field(3000, ge=0, le=10**6, description="Reading requests a minute per account, five times that per address")
    rate_write: int = Field(600, ge=0, le=10**6, description="Writing requests a minute, likewise")
    rate_stream: int = Field(300, ge=0, le=10**6, description="Streams opened in a minute, likewise")
    signup_open: bool = Field(default=True, description="Whether strangers may open accounts")
    log_format: Literal["auto", "json", "console"] = Field("auto", description="Log lines: `auto` is `console` on a terminal")
    metrics_token: SecretStr | None = Field(
        None,
        min_length=16,
        description="Bearer token that `/metrics` asks for; unset: it answers this machine only, and nobody when `FF_PUBLIC_URL` "
        "is set, since a proxy's requests look like this machine's own",
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Further port for `/metrics`, `/healthz` and `/readyz`, the only one of a worker or gateway that runs "
        "alone; 0 takes a free one",
    )
    metrics_host: str = Field("127.0.0.1", min_length=1, description="Address of that port")
    otlp_endpoint: str | None = Field(
        None,
        pattern=r"^https?://",
        max_length=2048,
        description="Where traces go (OTLP over HTTP), such as `http://localhost:4318`; unset: what "
        "`OTEL_EXPORTER_OTLP_ENDPOINT` says, else nowhere. Needs the extra `ff-cloud[otel]`",
    )
    secret_key: SecretStr | None = Field(
        None,
        min_length=32,
        description="Secret that all keys are derived from; unset: `secret.key` in the data directory, made at the first start. "
        "Set it when several machines serve one database",
    )
    deployment: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")] | None = Field(
        None,
        description="Name in our containers' labels; unset: derived from the database. Must differ between servers on one Docker",
    )
    worker_concurrency: int = Field(8, ge=1, le=256, description="Operations carried out at the same time by one worker")
    health_interval_s: float = Field(15.0, gt=0, le=3600, description="Seconds between two looks at the health of a VM")
    provision_deadline_s: float = Field(900.0, gt=0, le=86_400, description="Seconds a workspace may take to become READY")
    terminate_deadline_s: float = Field(300.0, gt=0, le=86_400, description="Seconds the deletion of a workspace may take")
    sweep_interval_s: float = Field(30.0, gt=0, le=3600, description="Seconds between two looks for what is overdue or left over")
    shutdown_s: float = Field(20.0, gt=0, le=600, description="Seconds that running requests and steps get to end at a stop")
    allow_plain_http_repos: bool = Field(
        default=False, description="Whether repositories may be cloned over http://, where others can read along"
    )

    model_base_url: str | None = Field(
        None, pattern=r"^https?://", max_length=2048, description="Address of the model API; unset: Anthropic's"
    )
    model_api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("FF_MODEL_API_KEY", "ANTHROPIC_API_KEY"),
        description="Key for the model API, for users who have set none of their own; `ANTHROPIC_API_KEY` is taken when it is "
        "unset",
    )
    model_prices: dict[str, tuple[NonNegativeFloat, NonNegativeFloat]] = Field(
        {},
        description="US dollars per million input and output tokens of further models, as JSON, such as "
        '`{"claude-opus-9": [5, 25]}`; wins over the list prices we know',
    )
    gateway_host: str | None = Field(
        None, min_length=1, description="Address the gateway listens on; unset: that of this host on the VMs' network"
    )
    gateway_port: int = Field(8425, ge=0, le=65535, description="Port of the gateway; 0 takes a free one, for `serve` only")
    gateway_url: str | None = Field(
        None,
        pattern=r"^https?://[A-Za-z0-9.\-\[\]:]+$",
        max_length=2048,
        description="How VMs reach the gateway; unset: `http://ff-host` with the gateway's port",
    )
    git_hosts: str = Field(
        "github.com",
        max_length=4096,
        description="Git servers whose repositories VMs reach through the gateway, with commas between them: names, or "
        "addresses such "
        "as `http://10.0.0.1:3000` for others than https. Users' `github_token` goes to that of `FF_GITHUB_URL` only",
    )
    mirror_bytes_max: int = Field(
        20 * 1024 * _MIB,
        ge=0,
        description="Most disk that copies of repositories may take in the data directory; a second clone of one is made from "
        "its copy. 0: keep none",
    )
    credential_key_file: Path | None = Field(
        None,
        description="File of keys that users' credentials are encrypted under, lines of `VERSION BASE64`, for our eyes only; "
        "unset: keys derived from the secret key",
    )

    smtp_url: SecretStr | None = Field(
        None,
        description="Mail server, such as `smtp://user:password@mail.example.com:587` (STARTTLS) or `smtps://…:465`; unset: "
        "letters go into `outbox` in the data directory, and, while only loopback is served (no `FF_PUBLIC_URL`), "
        "their links into the log",
    )
    mail_from: str = Field(
        "Factory Factory <no-reply@localhost>",
        max_length=200,
        pattern=r"^([A-Za-z0-9 ._-]+ <[^@<>\s]+@[A-Za-z0-9.-]+>|[^@<>\s]+@[A-Za-z0-9.-]+)$",
        description="Sender of mails, such as `Factory Factory <ff@example.com>`",
    )
    require_verified_email: bool = Field(
        default=False,
        description="Whether an e-mail must be confirmed before a login works; then a sign-up does not tell who has an account",
    )
    public_url: str | None = Field(
        None,
        pattern=r"^https?://[A-Za-z0-9.\-\[\]:]+(/[A-Za-z0-9._~/-]*)?$",
        max_length=2048,
        description="Address that browsers and mails use for this server; unset: the one a request came to",
    )
    github_client_id: str | None = Field(
        None, max_length=100, description="GitHub OAuth app for logins; also needs `FF_PUBLIC_URL`"
    )
    github_client_secret: SecretStr | None = Field(None, description="Secret of that app")
    github_url: str = Field("https://github.com", pattern=r"^https?://", max_length=2048, description="Address of GitHub")
    github_api_url: str = Field(
        "https://api.github.com", pattern=r"^https?://", max_length=2048, description="Address of GitHub's REST API"
    )

    pool_size: int | None = Field(
        None,
        ge=0,
        le=1000,
        description="Warm VMs that wait for a claim, always so many; unset: as many as recent demand asks for",
    )
    pool_min: int = Field(2, ge=0, le=1000, description="Least of them, when their number follows demand")
    pool_max: int = Field(8, ge=0, le=1000, description="Most of them, when their number follows demand")
    pool_at_once: int = Field(1, ge=1, le=100, description="Warm VMs that are made at the same time")
    pool_age_max_s: float = Field(6 * 3600.0, ge=60, description="Seconds after which a warm VM that nobody took is replaced")
    suspend_after_s: float = Field(
        1800.0,
        ge=0,
        le=30 * 86_400,
        description="Seconds without a turn, a command, a process or an attached client after which a VM is suspended; 0: never",
    )
    checkpoint_store: Annotated[str, Field(pattern=r"^(/|s3://[a-z0-9][a-z0-9.-]{1,62}(/|$))", max_length=1024)] | None = Field(
        None,
        description="Where checkpoints of workspaces are kept: a folder, best on another disk, or `s3://bucket/prefix`; unset: "
        "`checkpoints` in the data directory. Credentials for S3 are those of `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` "
        "and `AWS_REGION`, or of the machine's role",
    )
    checkpoint_s3_endpoint: str | None = Field(
        None,
        pattern=r"^https?://",
        max_length=2048,
        description="Address of an S3 service other than Amazon's, such as `https://minio.example.com:9000`",
    )
    checkpoint_every_s: float = Field(
        300.0,
        ge=5,
        le=86_400,
        description="Seconds between two checkpoints of a workspace in use; after a turn one is made at once",
    )
    handoff_expires_s: float = Field(
        3600.0,
        ge=1,
        le=30 * 86_400,
        description="Seconds after which a handoff that does not go on is given up; the workspace stays where it was",
    )
    handoff_kept_s: float = Field(
        7 * 86_400.0,
        ge=0,
        le=365 * 86_400,
        description="Seconds for which the frozen copy of a workspace is kept that was pulled to a desktop",
    )
    wake_wait_s: float = Field(
        120.0, gt=0, le=3600, description="Seconds a request waits for a VM that wakes, is being made, or waits for room"
    )
    vms_max: int | None = Field(
        None, ge=1, le=100_000, description="Most VMs at once; unset: as many as the machine has room for"
    )
    vm_reserve_bytes: int = Field(
        256 * _MIB, ge=16 * _MIB, description="Memory that a VM is counted with when it is asked whether one more fits"
    )
    memory_free_bytes_min: int = Field(1024 * _MIB, ge=0, description="Memory of the machine that VMs leave free")
    disk_free_bytes_min: int = Field(5120 * _MIB, ge=0, description="Free disk below which nothing new is made")
    vms_per_cpu_max: int = Field(50, ge=1, le=10_000, description="VMs per processor of the machine")

    docker_host: str | None = Field(
        None, description="Docker Engine to use, such as `unix:///var/run/docker.sock`; unset: the usual one"
    )
    vm_image: str | None = Field(
        None, description="Image of VMs; unset: the one that `ff-cloud image build` makes of this version"
    )
    vm_network: str | None = Field(None, description="Docker network of VMs; unset: one of our own, without traffic between VMs")
    vm_memory_bytes: int = Field(
        4096 * _MIB, ge=256 * _MIB, description="Most memory a VM may have; its user's plan may give less"
    )
    vm_cpus: float = Field(2.0, gt=0, le=1024, description="Most CPUs a VM may use; its user's plan may give less")
    vm_pids_max: int = Field(1024, ge=64, le=1_000_000, description="Processes and threads a VM may have")
    vm_volume_options: dict[str, str] = Field(
        {}, description='Options of the Docker volume driver, as JSON, such as `{"size": "20G"}`; the server sets no quota then'
    )
    vm_runtime: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]+$",
        max_length=100,
        description="OCI runtime of VMs that the Docker Engine knows, such as `runsc`; unset: `crun` where it works, else the "
        "Engine's default",
    )
    vm_networking: Literal["auto", "direct", "docker"] = Field(
        "auto",
        description="Who connects VMs to their network: the server itself (`direct`, 100 ms faster; needs root on the Docker "
        "Engine's machine) or the Engine; `auto`: the first where it works",
    )
    vm_disk_quota: Literal["auto", "on", "reserve", "off"] = Field(
        "auto",
        description="Whether a VM's disk has a limit (needs root on the Docker Engine's machine, and e2fsprogs): `auto` where it "
        "works, `on` else no VM is started, `reserve` also takes the whole of it from the machine's disk at once",
    )
    vm_egress: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether VMs are kept from everything but the public internet, the gateway and name servers (needs root on "
        "the Docker Engine's machine, and iptables): `auto` where it works, `on` else no VM is started",
    )
    vm_egress_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Further addresses that VMs may reach, with commas between them, such as `10.1.0.0/16,10.2.3.4:8080`",
    )
    vm_dir: Path = Field(
        Path("/var/lib/ff-vms"),
        description="Where the Docker Engine's machine keeps the disks of VMs that have a limit; the same for all servers on it",
    )

    @field_validator("trusted_proxies", "vm_egress_allow", mode="before")
    @classmethod
    def _with_commas(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("vm_egress_allow")
    @classmethod
    def _are_destinations(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            address, colon, port = text.partition(":")
            try:
                IPv4Network(address)
                number = int(port) if colon else 1
            except ValueError:
                number = 0
            if not 1 <= number <= 65535:
                msg = "must be IPv4 networks or addresses, each with or without a port, such as 10.1.0.0/16,10.2.3.4:8080"
                raise ValueError(msg)
        return value

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            try:
                backend = make_url(value.get_secret_value()).drivername.partition("+")[0]
            except ArgumentError:
                backend = ""
            if backend not in {"postgresql", "postgres"}:
                msg = "must look like postgresql://user:password@host/database"
                raise ValueError(msg)
        return value

    @field_validator("smtp_url")
    @classmethod
    def _is_smtp(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parts = urlsplit(value.get_secret_value())
            if parts.scheme not in {"smtp", "smtps"} or not parts.hostname or parts.path.strip("/") or parts.query:
                msg = "must look like smtp://user:password@host:587 or smtps://user:password@host:465"
                raise ValueError(msg)
        return value

    @property
    def deployment_name(self) -> str:
        """The name of this deployment: the same for all processes that serve one database, another one for every other."""
        if self.deployment is not None:
            return self.deployment
        place = f"embedded {self.data_dir.expanduser().resolve()}"
        if self.database_url is not None:
            url = make_url(self.database_url.get_secret_value())
            place = f"{url.host} {url.port or 5432} {url.database} {sorted(url.query.items())}"
        return f"ff-{hashlib.sha256(place.encode()).hexdigest()[:10]}"


def load_settings(**overrides: Any) -> CloudSettings:
    """Read the settings from the environment; ``overrides`` win, except those that are None.

    Raises :class:`SettingsInvalid` with one line that names each wrong setting and never repeats a value.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return CloudSettings(**given)
    except ValidationError as error:
        lines = [f"{variable(str(item['loc'][0]))}: {item['msg'].removeprefix('Value error, ')}" for item in error.errors()]
        raise SettingsInvalid("; ".join(lines)) from None  # the cause would repeat the values
    except SettingsError as error:
        # A value that should be JSON and is not; the library names the field in its sentence only.
        names = [name for name in CloudSettings.model_fields if f'"{name}"' in str(error)]
        raise SettingsInvalid(f"{', '.join(map(variable, names)) or 'A setting'}: must be JSON") from None


def variable(field: str) -> str:
    """The environment variable of a field."""
    return field if field.isupper() else f"FF_{field.upper()}"
