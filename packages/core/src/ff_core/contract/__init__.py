"""What crosses a process border: daemon, control plane and desktop see of ``ff_core`` only this, errors, ids, world."""
