"""``ff serve``: the process that owns the workspaces of this machine, so that a closed terminal ends nothing."""
