"""The version of the server, as installed."""

from importlib.metadata import version

VERSION = version("ff-cloud")
