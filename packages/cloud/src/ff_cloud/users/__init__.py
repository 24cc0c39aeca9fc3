"""Accounts: who exists, under which e-mail."""
