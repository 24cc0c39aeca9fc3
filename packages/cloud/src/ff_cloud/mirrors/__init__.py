"""Copies of repositories on this machine, so that a VM need not fetch again what another one has fetched."""
