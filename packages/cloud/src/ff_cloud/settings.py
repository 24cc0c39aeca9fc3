"""Settings of the server: environment variables that begin with ``FF_``. docs/reference/settings.md has the table."""

import hashlib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError
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
    signup_open: bool = Field(default=True, description="Whether strangers may open accounts")
    log_format: Literal["auto", "json", "console"] = Field("auto", description="Log lines: `auto` is `console` on a terminal")
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
    workspaces_max: int = Field(50, ge=1, le=100_000, description="Workspaces one user may have")
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
        description="Key for the model API; `ANTHROPIC_API_KEY` is taken when it is unset",
    )

    docker_host: str | None = Field(
        None, description="Docker Engine to use, such as `unix:///var/run/docker.sock`; unset: the usual one"
    )
    vm_image: str | None = Field(
        None, description="Image of VMs; unset: the one that `ff-cloud image build` makes of this version"
    )
    vm_network: str | None = Field(None, description="Docker network of VMs; unset: one of our own, without traffic between VMs")
    vm_memory_bytes: int = Field(4096 * _MIB, ge=256 * _MIB, description="Memory limit of a VM")
    vm_cpus: float = Field(2.0, gt=0, le=1024, description="CPUs a VM may use")
    vm_pids_max: int = Field(1024, ge=64, le=1_000_000, description="Processes and threads a VM may have")
    vm_volume_options: dict[str, str] = Field(
        {}, description='Options of the Docker volume driver, as JSON, such as `{"size": "20G"}`'
    )

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
