"""What the environment may decide. Everything else is a flag or lives in the credentials file."""

from pathlib import Path

from platformdirs import user_config_path
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class DesktopSettings(BaseSettings):
    """Environment variables ``FF_…``; docs/reference/cli.md lists them."""

    model_config = SettingsConfigDict(env_prefix="FF_", frozen=True, extra="ignore", env_ignore_empty=True)

    config_dir: Path = Field(default_factory=lambda: user_config_path("factory-factory", appauthor=False))
    """Where the credentials file lies."""
    server: str | None = None
    """With ``api_key``: the server to use instead of the one logged in to (programs, CI)."""
    api_key: SecretStr | None = None
    insecure: bool = False
    """With ``server``: accept plain http to another machine."""
    keyring: bool = True
    """Whether the tokens of a login may lie in the system's keyring; otherwise they lie in the credentials file."""

    @property
    def credentials_path(self) -> Path:
        """The file that ``ff login`` writes."""
        return self.config_dir / "credentials.json"
