"""Getting ready for a VM's first day: all that is otherwise imported and built when it is first asked for.

Takes a tenth of a second, in which a VM that somebody waits for has better things to do; one that is to be warm has not.
"""

import gc
from collections.abc import Iterator

from pydantic import BaseModel

import ff_core.contract.execution
import ff_core.contract.problem
import ff_core.daemon.handoff_endpoints
import ff_core.daemon.work_endpoints
import ff_core.sessions.service
import ff_core.workspaces.output
import ff_core.workspaces.preparation  # noqa: F401  (importing them is the point)
from ff_core.contract.base import Request, View
from ff_core.contract.events import EVENT_BODY


def build() -> None:
    """Build the validators of all models, and keep the collector from ever looking at what stays for good."""
    for model in (*_below(Request), *_below(View)):
        model.model_rebuild()
    EVENT_BODY.rebuild()
    gc.collect()
    gc.freeze()


def _below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for each in model.__subclasses__():
        yield each
        yield from _below(each)
