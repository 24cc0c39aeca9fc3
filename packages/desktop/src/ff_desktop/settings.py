"""What the environment may decide. Everything else is a flag or lives in the credentials file."""

from pathlib import Path

from platformdirs import user_config_path, user_data_path
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class DesktopSettings(BaseSettings):
    """Environment variables ``FF_…``; docs/reference/cli.md lists them."""

    model_config = SettingsConfigDict(env_prefix="FF_", frozen=True, extra="ignore", env_ignore_empty=True)

    config_dir: Path = Field(default_factory=lambda: user_config_path("factory-factory", appauthor=False))
    """Where the credentials file lies."""
    desktop_dir: Path = Field(default_factory=lambda: user_data_path("factory-factory", appauthor=False))
    """Where the workspaces of this machine are kept: their database and worktrees, and the socket and log of ``ff serve``."""
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

    @property
    def socket_path(self) -> Path:
        """Where ``ff serve`` listens."""
        return self.desktop_dir / "serve.sock"

    @property
    def lock_path(self) -> Path:
        """Held by ``ff serve`` for as long as it lives."""
        return self.desktop_dir / "serve.lock"

    @property
    def log_path(self) -> Path:
        """What ``ff serve`` writes when nobody sees its terminal."""
        return self.desktop_dir / "serve.log"

    @property
    def has_local_state(self) -> bool:
        """Whether there ever was a project or workspace on this machine."""
        return (self.desktop_dir / "state.db").exists()
