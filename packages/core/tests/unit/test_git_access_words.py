"""What git is told about the gateway, before any git reads it."""

import pytest
from pydantic import ValidationError

from ff_core.contract.daemon import GitAccess
from ff_core.git.errors import RepoAuthFailed, explain
from ff_core.git.gateway import configuration, detour
from ff_core.git.remote import parse_repo_url

ACCESS = {"gateway_url": "http://ff-host:8431", "token": "vm-token_1", "hosts": ("https://github.com", "http://10.0.0.1:3000")}


def test_each_host_and_its_ssh_spellings_are_rewritten():
    said = configuration(GitAccess(**ACCESS)).splitlines()
    at = said.index('[url "http://ff-host:8431/git/https/github.com/"]')
    assert [line.strip() for line in said[at + 1 : at + 4]] == [
        "insteadOf = https://github.com/",
        "insteadOf = git@github.com:",
        "insteadOf = ssh://git@github.com/",
    ]
    at = said.index('[url "http://ff-host:8431/git/http/10.0.0.1:3000/"]')
    assert [line.strip() for line in said[at + 1 :]] == ["insteadOf = http://10.0.0.1:3000/"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"token": "two\nlines"},
        {"token": 'quo"te'},
        {"token": ""},
        {"gateway_url": 'http://x"]\n[core]'},
        {"gateway_url": "ftp://x"},
        {"gateway_url": "http://x/"},
        {"hosts": ("github.com",)},
        {"hosts": ("https://github.com/",)},
        {"hosts": ('https://x"]',)},
        {"hosts": ("https://x\n",)},
        {"hosts": ("https://a",) * 33},
    ],
)
def test_nothing_that_could_add_a_line_to_a_configuration_is_taken(wrong):
    with pytest.raises(ValidationError) as caught:
        GitAccess(**{**ACCESS, **wrong})
    assert "vm-token_1" not in str(caught.value)


def test_the_token_is_not_in_a_repr():
    assert "vm-token_1" not in repr(GitAccess(**ACCESS))


def test_who_goes_through_the_gateway():
    access = GitAccess(**ACCESS)
    assert detour(access, parse_repo_url("https://github.com/a/b.git")) == "http"
    assert detour(access, parse_repo_url("https://GitHub.com:443/a/b")) == "http"
    assert detour(access, parse_repo_url("https://gitlab.com/a/b")) is None
    assert detour(None, parse_repo_url("https://github.com/a/b")) is None


def test_the_gateways_sentence_wins_over_our_guess():
    said = "remote: github.com asks for a credential. Set one.\n"
    said += "fatal: unable to access 'http://gw/x/': The requested URL returned error: 403\n"
    told = explain(128, said, url="https://github.com/a/b", gateway=True)
    assert isinstance(told, RepoAuthFailed)
    assert told.detail == "github.com asks for a credential. Set one."
    assert explain(128, said, url="https://github.com/a/b").detail != told.detail
