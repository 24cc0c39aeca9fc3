"""What a user of Factory Factory (DOMAIN.md) has on this machine becomes projects, workspaces and sessions of ours."""
