"""The ff command: drives workspaces in Factory Factory Cloud and on this machine."""

from importlib.metadata import version

__version__ = version("ff-desktop")
