"""What the control plane asks of a VM when its workspace comes or goes (DESIGN.md section 11).

=======  ========================  =====================================================================================
PUT      ``/v1/handoff``           :class:`Incoming` as parameters, the bundle as body -> :class:`Arrived`; the workspace is
                                   bound with location DESKTOP, and its checkout is prepared
DELETE   ``/v1/handoff``           ``id``; nothing of it lies there any more -> 204
POST     ``/v1/handoff/freeze``    :class:`Freeze` -> ``Health``; 409 ``turn_running``, ``fixer_active``, ``command_running``
DELETE   ``/v1/handoff/freeze``    :class:`Thaw` as parameters -> ``Health``
POST     ``/v1/handoff/export``    :class:`Export` -> :class:`Exported`
GET      ``/v1/handoff/bundle``    :class:`Outgoing` as parameters -> what was packed, from there to its end
=======  ========================  =====================================================================================

All may be repeated. That a workspace lives in the VM from now on, or no longer, is said with ``bind``.
"""

from typing import Annotated

from pydantic import Field

from ff_core.contract.base import Request, View
from ff_core.contract.handoff import (
    BUNDLE_BYTES_MAX,
    HAVE_MAX,
    INCLUDE_MAX,
    BundleFacts,
    Contents,
    Fingerprint,
    ObjectName,
    Sha256,
)
from ff_core.ids import HandoffId

REASON_CHARS_MAX = 500


class Incoming(Request):
    """A bundle to make the workspace of; what is there of its checkout is replaced."""

    id: HandoffId
    size: Annotated[int, Field(gt=0, le=BUNDLE_BYTES_MAX)]
    sha256: Sha256


class Arrived(View):
    """The workspace is there, as it was packed, and nothing runs in it yet."""

    fingerprint: Fingerprint


class OneHandoff(Request):
    """Which one."""

    id: HandoffId


class Freeze(Request):
    """Let nothing new begin. ``interrupt``: stop what runs."""

    id: HandoffId
    interrupt: bool = False


class Thaw(Request):
    """The workspace stays here, if it was this handoff that froze it."""

    id: HandoffId
    reason: Annotated[str, Field(max_length=REASON_CHARS_MAX)]


class Export(Request):
    """Pack the workspace that this handoff has frozen, for one who has these commits."""

    id: HandoffId
    have: Annotated[tuple[ObjectName, ...], Field(max_length=HAVE_MAX)] = ()
    include: Annotated[tuple[str, ...], Field(max_length=2 * INCLUDE_MAX)] = ()


class Exported(View):
    """The bundle lies in the VM."""

    bundle: BundleFacts
    contents: Contents


class Outgoing(Request):
    """Where to go on."""

    id: HandoffId
    offset: Annotated[int, Field(ge=0, le=BUNDLE_BYTES_MAX)] = 0
