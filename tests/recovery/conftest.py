"""A PostgreSQL of this process."""

from collections.abc import Iterator

import pytest
import structlog

from ff_cloud.testing.postgres import PostgresForTests, postgres_for_tests


def pytest_configure() -> None:
    """Plain tracebacks: structlog's default draws each with all local variables, which takes seconds."""
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, console])


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresForTests]:
    with postgres_for_tests() as server:
        yield server
