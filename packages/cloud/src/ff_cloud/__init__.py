"""The Factory Factory Cloud server: accounts, tenancy, VMs, routing of sessions and events."""
