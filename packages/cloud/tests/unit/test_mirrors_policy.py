"""Which mirrors there may be, and which must go."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ff_cloud.mirrors.policy import UNUSED_MAX, Kept, MirrorsFull, Rules, name_of
from ff_core.contract.daemon import SEED_BYTES_MAX

NOW = datetime(2030, 1, 1, tzinfo=UTC)
HUGE = 1 << 50


def rules(**changed) -> Rules:
    usual = {
        "hosts": ("https://github.com", "http://10.0.0.1:3000"),
        "github": "https://github.com",
        "allow_plain_http": True,
        "bytes_max": 1000,
        "free_bytes_min": 100,
    }
    return Rules(**{**usual, **changed})


@pytest.mark.parametrize(
    ("url", "admitted"),
    [
        ("https://github.com/o/r.git", True),
        ("https://GitHub.com:443/o/r", True),
        ("http://10.0.0.1:3000/o/r", True),
        ("http://10.0.0.1:3001/o/r", False),
        ("http://github.com/o/r", False),
        ("https://github.com.evil.example/o/r", False),
        ("https://github.com@evil.example/o/r", False),
        ("https://169.254.169.254/o/r", False),
        ("file:///etc", False),
        ("ext::sh -c x", False),
        ("", False),
    ],
)
def test_only_servers_of_the_gateway(url, admitted):
    assert (rules().admitted(url) is not None) == admitted
    assert rules(bytes_max=0).admitted(url) is None


def test_plain_http_only_where_it_is_allowed():
    assert rules(allow_plain_http=False).admitted("http://10.0.0.1:3000/o/r") is None


def test_addresses_that_may_differ_have_folders_of_their_own():
    urls = [f"https://github.com/{path}" for path in ("o/r", "o/R", "o/r.git", "o/r/x")] + ["http://10.0.0.1:3000/o/r"]
    assert len({name_of(rules().admitted(url)) for url in urls}) == len(urls)
    assert name_of(rules().admitted("https://github.com/o/r/")) == name_of(rules().admitted("https://GITHUB.com/o/r"))


def test_what_one_may_take():
    assert rules().one_bytes_max(HUGE) == 500
    assert rules().one_bytes_max(400) == 300
    assert rules(bytes_max=HUGE).one_bytes_max(HUGE * 4) == SEED_BYTES_MAX
    with pytest.raises(MirrorsFull):
        rules().one_bytes_max(100)


kept = st.lists(
    st.builds(
        lambda size, age: (size, NOW - timedelta(hours=age)),
        st.integers(0, 900),
        st.integers(-24, int(UNUSED_MAX.total_seconds()) // 3600 + 24),
    ),
    max_size=12,
).map(lambda pairs: [Kept(Path(f"{number}"), *pair) for number, pair in enumerate(pairs)])


@given(kept, st.integers(0, 3000), st.integers(0, 3000))
def test_the_least_recently_used_go_until_the_rest_fits(have, free, bytes_max):
    ruled = rules(bytes_max=bytes_max)
    gone = ruled.surplus(have, free, NOW)
    left = [one for one in have if one not in gone]
    total, remaining = sum(one.disk_bytes for one in have), sum(one.disk_bytes for one in left)
    allowed = min(bytes_max, total + free - ruled.free_bytes_min)
    assert remaining <= max(allowed, 0)
    assert all(NOW - one.used_at <= UNUSED_MAX for one in left)
    assert all(a.used_at <= b.used_at for a in gone for b in left)
    if gone and NOW - gone[-1].used_at <= UNUSED_MAX:
        assert remaining + gone[-1].disk_bytes > allowed  # not one more than needed
