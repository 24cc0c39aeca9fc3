"""What a login may do, and how exactly a place is told."""

import pytest

from ff_cloud.auth.place import place_of
from ff_cloud.auth.scopes import SESSION_SCOPES, granted
from ff_core.contract.account import Scope


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("127.0.0.1", "local"),
        ("::1", "local"),
        ("", "local"),
        (None, "local"),
        ("/run/socket", "local"),
    ],
)
def test_a_place_is_a_network_and_never_an_address(address, place):
    assert place_of(address) == place


def test_only_an_administrator_has_the_admin_scope_and_only_as_long_as_he_is_one():
    assert Scope.ADMIN in granted(None, is_admin=True)
    assert granted(None, is_admin=False) == SESSION_SCOPES
    key = frozenset({Scope.ADMIN, Scope.ACCOUNT_READ})
    assert granted(key, is_admin=True) == key
    assert granted(key, is_admin=False) == {Scope.ACCOUNT_READ}


def test_a_bound_can_only_take_away():
    assert granted(frozenset({Scope.WORKSPACES_READ}), is_admin=True) == {Scope.WORKSPACES_READ}
    assert granted(frozenset(), is_admin=True) == frozenset()
