"""What the user means: a session, a request, an answer. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ff_core.contract.places import Location
from ff_core.contract.session import Answer, PendingRequest, PermissionPreset, Question, SessionView
from ff_core.contract.workspace import VmStatus, WorkspaceView
from ff_core.errors import InvalidInput, NotFound
from ff_desktop.errors import Ambiguous, NothingWaits, OtherSettings

B = TypeVar("B", bound=BaseModel)


@dataclass(frozen=True)
class Waiting:
    """A request and the session that waits on it."""

    session: SessionView
    request: PendingRequest


@dataclass(frozen=True)
class Reply:
    """What the user said on the command line."""

    allow: bool = False
    always: bool = False
    deny: bool = False
    message: str | None = None
    choose: tuple[str, ...] = ()
    text: str | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing was said."""
        return self == Reply()


def request_of(kind: type[B], /, **fields: Any) -> B:
    """Build what we ask of the server. Raises ``InvalidInput`` with a sentence that does not quote secrets."""
    try:
        return kind(**fields)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]).replace("_", " ")
        message = first["msg"].removeprefix("Value error, ")
        raise InvalidInput(f"{where}: {message}." if where else f"{message[:1].upper()}{message[1:]}.") from None


def asleep(workspace: WorkspaceView) -> bool:
    """Its VM is suspended, and a command or a prompt wakes it; what is kept of one that lives elsewhere sleeps for good."""
    suspended = workspace.vm is not None and workspace.vm.status is VmStatus.SUSPENDED
    return suspended and workspace.location is Location.CLOUD


def find_session(sessions: Sequence[SessionView], name: str) -> SessionView:
    """The session of that id or name. Raises ``NotFound``, ``Ambiguous``."""
    found = [session for session in sessions if name in {str(session.id), session.name}]
    if not found:
        raise NotFound(f"The workspace has no session {name!r}; `ff status` lists them, --new opens one.")
    if len(found) > 1:
        raise Ambiguous(f"{len(found)} sessions are named {name!r}; use an id of `ff status --json`.")
    return found[0]


def check_settings(
    session: SessionView, model: str | None, permissions: PermissionPreset | None, workflow: str | None = None
) -> None:
    """Refuse (``OtherSettings``) to send a prompt under other settings than were asked for."""
    if workflow not in {None, session.workflow}:
        raise OtherSettings(f"Session {session.name!r} is for {session.workflow!r}; pass --new to open another.")
    if model not in {None, session.model}:
        raise OtherSettings(f"Session {session.name!r} uses model {session.model or 'by default'}; pass --new to open another.")
    if permissions not in {None, session.permissions}:
        raise OtherSettings(f"Session {session.name!r} has permissions {session.permissions}; pass --new to open another.")


def waiting(sessions: Iterable[SessionView]) -> list[Waiting]:
    """Everything that waits for the user, oldest first."""
    found = [Waiting(session, request) for session in sessions for request in session.pending]
    return sorted(found, key=lambda one: one.request.asked_at)


def choose_request(found: Sequence[Waiting], request: str | None) -> Waiting:
    """The one that is meant: by id or the beginning of it, else the only one. Raises ``NothingWaits``, ``Ambiguous``."""
    if not found:
        raise NothingWaits
    if request is not None:
        found = [one for one in found if str(one.request.id).startswith(request.lower())]
        if not found:
            raise NotFound(f"No request {request!r} waits here; it may have been answered already.")
    if len(found) > 1:
        raise Ambiguous(f"{len(found)} requests wait; say which with --request ID.")
    return found[0]


def answer_of(request: PendingRequest, reply: Reply) -> Answer:
    """The answer to send. Raises ``InvalidInput`` when the reply does not fit the kind of request."""
    if request.kind == "permission":
        if reply.choose or reply.text is not None:
            raise InvalidInput("This is a permission request: answer --allow, --always or --deny.")
        if [reply.allow, reply.always, reply.deny].count(True) != 1:
            raise InvalidInput("Say exactly one of --allow, --always and --deny.")
        if reply.message is not None and not reply.deny:
            raise InvalidInput("--message goes with --deny.")
        decision = "allow" if reply.allow else "allow_always" if reply.always else "deny"
        return request_of(Answer, decision=decision, message=reply.message)
    if reply.allow or reply.always or (reply.deny and reply.text is not None):
        raise InvalidInput("This is a question: answer --choose LABEL or --text TEXT.")
    if reply.deny:
        raise InvalidInput("A question can't be denied: answer --choose LABEL or --text TEXT.")
    if bool(reply.choose) == (reply.text is not None):
        raise InvalidInput("Say either --choose LABEL (once per answer) or --text TEXT.")
    if reply.text is not None:
        return request_of(Answer, message=reply.text)
    return request_of(Answer, answers=choices(request.questions, reply.choose))


def choices(questions: Sequence[Question], labels: Sequence[str]) -> dict[str, str]:
    """Give each label to the first question that offers it and still has room. Raises ``InvalidInput`` with what is missing."""
    taken: dict[str, list[str]] = {question.question: [] for question in questions}
    for label in labels:
        for question in questions:
            offered = next((o.label for o in question.options if o.label.casefold() == label.strip().casefold()), None)
            mine = taken[question.question]
            if offered is not None and offered not in mine and (question.multi_select or not mine):
                mine.append(offered)
                break
        else:
            offers = "; ".join(", ".join(option.label for option in question.options) for question in questions)
            raise InvalidInput(f"{label!r} is not among the answers that are left. Offered: {offers}.")
    open_ones = [question for question, mine in taken.items() if not mine]
    if open_ones:
        raise InvalidInput(f"Still without an answer: {'; '.join(open_ones)}. Repeat --choose, once per question.")
    return {question: ", ".join(mine) for question, mine in taken.items()}
