"""A scripted stand-in for the Anthropic Messages API, good enough for the real Claude CLI, offline.

The *prompt text* selects what "the model" does (the language is in :mod:`.script`), so a conversation can be resumed
on another machine against another instance: the server keeps no conversation, only failure counters and queued
one-off replies.
"""

from ff_core.testing.model_api.record import RecordedRequest
from ff_core.testing.model_api.server import ModelApi

__all__ = ["ModelApi", "RecordedRequest"]
