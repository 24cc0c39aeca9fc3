"""Put transcripts that were unpacked where the agents of this host look for them."""

from ff_core.claude import transcripts
from ff_core.handoff.orders import Settle, Settled
from ff_core.handoff.solid import alone_in


def settle(order: Settle) -> Settled:
    """See :class:`Settle`. May be repeated. Raises what ``transcripts.settle`` does, ``HandoffBusy``."""
    found = []
    with alone_in(order.conversations.parent):
        for session in order.sessions:
            folder = order.conversations / str(session.session_id)
            transcripts.settle(folder, order.config_dir, order.cwd, session.provider_session_id)
            here = transcripts.print_of_settled(session.session_id, order.config_dir, session.provider_session_id)
            if here.files:
                found.append(here)
    return Settled(conversations=tuple(found))
