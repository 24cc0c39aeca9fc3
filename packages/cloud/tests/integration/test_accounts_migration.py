"""A database of before accounts had plans keeps its users, and gets an administrator; and the way back."""

import psycopg
import pytest
from alembic import command
from sqlalchemy import create_engine, text

from ff_cloud.kit import migrate as migrations
from ff_cloud.kit.db import libpq_arguments

USER = "00000000-0000-7000-8000-00000000000{}"


@pytest.fixture
def url(postgres):
    made = postgres.create_database()
    yield made
    postgres.drop_database(made)


def downgrade(url, target):
    engine = create_engine(url)
    with engine.connect() as connection:
        connection.execute(text("set role ff_owner"))
        connection.commit()
        config = migrations._config()
        config.attributes["connection"] = connection
        command.downgrade(config, target)
    engine.dispose()


def test_users_of_before_get_a_plan_and_the_first_one_administrates(url, postgres):
    downgrade(url, "0003")
    with psycopg.connect(**libpq_arguments(postgres.admin_url(url)), autocommit=True) as admin:
        for n in (2, 1):
            values = (USER.format(n), f"u{n}@example.com", f"2026-01-0{n}")
            admin.execute("insert into users (id, email, name, plan, created_at) values (%s, %s, 'n', 'standard', %s)", values)
        migrations.migrate(url)
        query = "select email, plan, is_admin, disabled_at from users order by email"
        assert admin.execute(query).fetchall() == [
            ("u1@example.com", "pro", True, None),
            ("u2@example.com", "pro", False, None),
        ]
        forced = admin.execute("select relrowsecurity and relforcerowsecurity from pg_class where relname = 'users'")
        assert forced.fetchone() == (True,)
        downgrade(url, "0003")
        assert admin.execute("select distinct plan from users").fetchall() == [("standard",)]
