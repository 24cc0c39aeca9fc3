"""The command ``ff-cloud``: thin, one module per group."""

from ff_cloud.cli.main import app, main

__all__ = ["app", "main"]
