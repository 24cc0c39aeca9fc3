"""The contract of a backend, held to this machine's: a real ``ff serve``. ``tests/e2e`` holds the server's to the same list."""

import pytest
from backend_contract import CHECKS, Place
from desk import Desk

from ff_core.contract.local import NewLocalWorkspace, NewProject

pytestmark = [pytest.mark.claude, pytest.mark.timeout(60)]


@pytest.fixture(scope="module")
def place():
    with Desk.opened() as desk:
        backend = desk.backend()
        backend.add_project(NewProject(path=str(desk.repository())))

        def make(name):
            return desk.ready(backend.create(NewLocalWorkspace(name=name)))

        yield Place(backend, make)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_this_machine(check, place):
    check(place)
