"""Shipped fakes and real parts for tests, usable by every package's tests."""
