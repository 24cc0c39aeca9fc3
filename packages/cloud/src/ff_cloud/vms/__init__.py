"""VMs: what makes them, what they are made from, and what keeps them well."""
