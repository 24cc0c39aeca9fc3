"""What the scripted model API remembers of a request."""

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime

from ff_core.testing.model_api.script import Json, last_prompt

_CREDENTIALS = ("x-api-key", "authorization")


@dataclass
class RecordedRequest:
    """One request that the model API saw, and how it ended."""

    at: datetime
    method: str
    path: str
    """With the query string."""
    headers: dict[str, str]
    """Names in lower case; credentials as they came."""
    body: Json
    kind: str = ""
    """``main``, ``side``, or empty for anything but a message."""
    plan: list[tuple[str, str]] = field(default_factory=list)
    outcome: str = ""
    """What was answered, in a few words; empty while the answer is under way."""
    seconds: float = 0.0

    @property
    def prompt(self) -> str:
        """The last thing a person asked in this request."""
        return last_prompt(self.body.get("messages") or [])[1]

    def summary(self, *, full: bool) -> Json:
        """As JSON: everything, or a row without the body."""
        if full:
            return {**asdict(self), "at": self.at.isoformat()}
        return {
            "at": self.at.isoformat(),
            "method": self.method,
            "path": self.path,
            "outcome": self.outcome,
            "seconds": self.seconds,
            "auth": {name: value for name, value in self.headers.items() if name in _CREDENTIALS},
            "model": self.body.get("model"),
            "stream": self.body.get("stream"),
            "messages": len(self.body.get("messages") or []),
            "tools": len(self.body.get("tools") or []),
            "prompt": self.prompt[:120],
        }

    def log_line(self) -> str:
        """Everything as one line of JSON, credentials cut to their last four characters."""
        masked = {name: f"…{self.headers[name][-4:]}" for name in _CREDENTIALS if name in self.headers}
        return json.dumps(self.summary(full=True) | {"headers": {**self.headers, **masked}})
