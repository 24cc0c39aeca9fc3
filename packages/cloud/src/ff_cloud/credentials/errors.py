"""What can go wrong with third-party credentials."""

from ff_core.errors import Conflict, FFError, NotFound


class CredentialNotSet(NotFound):
    """You have set no credential of this kind."""


class ModelKeyMissing(Conflict):
    """The agent has no key for the model. Set yours with `ff credential set anthropic_api_key`, then send your prompt again."""

    code = "model_key_missing"


class KeyringUnusable(FFError):
    """The file with the keys that credentials are encrypted under can't be used; the message says why."""

    code = "keyring_unusable"
