"""What the rooms of the server stand on: PostgreSQL, transactions, tenancy, migrations, notifications."""
