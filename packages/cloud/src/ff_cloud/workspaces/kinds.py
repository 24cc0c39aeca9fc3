"""The names of the operations on workspaces, and what is known of their steps before they run."""

PROVISION = "provision"
"""Make a workspace READY: a VM for it, unless one was claimed, and its repository."""
REVIVE = "revive"
"""Have its container run again over its files."""
SUSPEND = "suspend"
WAKE = "wake"
UPGRADE = "upgrade"
"""Give it a container of the present image over its files."""
CHECKPOINT = "checkpoint"
"""Store its state outside of its VM."""

REMOVE = "remove"
"""The step in which a deleted workspace's VM goes."""
ADMIT = "admit"
"""The step in which a VM waits for room on the machine."""
WAITING_KINDS = (PROVISION, WAKE)
"""The operations that have it."""
CLAIMED_STEPS_DONE = 4
"""Of PROVISION's steps, those that make a VM and bind it: a claim finds them done (a test holds them together)."""
PASSING = frozenset({"no_capacity", "docker_unreachable", "database_unavailable", "step_timed_out", "worker_lost"})
"""Codes of failures that say nothing about the VM: the same may work a little later."""
