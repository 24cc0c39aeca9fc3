"""What can go wrong with a repository, and how git's words become our errors."""

import re

from ff_core.errors import Conflict, FFError, InvalidInput, TimedOut

STDERR_SHOWN_MAX = 500
"""Characters of git's own words in a :class:`GitFailed`."""


class RepoUrlInvalid(InvalidInput):
    """This is not the https address of a git repository."""

    code = "repo_url_invalid"


class BranchInvalid(InvalidInput):
    """This is not a name that git accepts for a branch."""

    code = "branch_invalid"


class RepoNotFound(FFError):
    """The repository was not found; check its address, and give a token if it is private."""

    code = "repo_not_found"
    status = 422


class RepoAuthFailed(FFError):
    """The git server refused the credential; give a token that may read this repository."""

    code = "repo_auth_failed"
    status = 422


class BranchNotFound(FFError):
    """The repository has no such branch."""

    code = "branch_not_found"
    status = 422


class RepoUnreachable(FFError):
    """The git server could not be reached; check the address, or try again later."""

    code = "repo_unreachable"
    status = 502


class CloneTimedOut(TimedOut):
    """Cloning the repository took too long and was stopped; nothing was kept."""

    code = "clone_timed_out"


class CloneDiskFull(FFError):
    """The disk was full before the repository was cloned; nothing was kept."""

    code = "clone_disk_full"
    status = 507


class CloneTargetTaken(Conflict):
    """The folder to clone into already holds something else."""

    code = "clone_target_taken"


class NotARepository(InvalidInput):
    """There is no git repository in this folder; make one with `git init`, or choose another folder."""

    code = "not_a_repository"


class FetchTimedOut(TimedOut):
    """The remote did not answer in time."""

    code = "fetch_timed_out"


class GitFailed(FFError):
    """Git failed in a way we did not expect."""

    code = "git_failed"
    status = 502


def scrub(text: str) -> str:
    """Cut user names, passwords and tokens out of every URL in ``text``."""
    return re.sub(r"(?<=://)[^\s/@'\"]*@", "", text)


def explain(exit_code: int, stderr: str, *, url: str | None = None, branch: str | None = None, gateway: bool = False) -> FFError:
    """The error that git's exit code and English stderr mean; for ``url`` and ``branch`` where these are known. Pure.

    Where our own ``gateway`` answered, its sentence is the better one: it knows of the owner's credential.
    """
    where = f" ({scrub(url)})" if url else ""
    for pattern, make in _MEANINGS:
        if re.search(pattern, stderr):
            error = make(where, branch or "asked for")
            said = re.search(r"^remote: (.+)$", stderr, re.MULTILINE) if gateway else None
            return error if said is None else type(error)(scrub(said[1])[:STDERR_SHOWN_MAX])
    words = " ".join(line for line in map(str.strip, scrub(stderr).splitlines()[-5:]) if line)
    return GitFailed(f"git ended with exit code {exit_code}: {words[-STDERR_SHOWN_MAX:] or 'it said nothing'}")


def _disk_full(where: str, _branch: str) -> FFError:
    return CloneDiskFull(f"The disk is full; the repository{where} does not fit. Free some space and try again.")


def _auth_missing(where: str, _branch: str) -> FFError:
    return RepoAuthFailed(f"The repository{where} asks for a credential, or does not exist. Check the address, or give a token.")


def _auth_refused(where: str, _branch: str) -> FFError:
    return RepoAuthFailed(f"The git server refused the token for the repository{where}. Give one that is valid and may read it.")


def _not_found(where: str, _branch: str) -> FFError:
    return RepoNotFound(
        f"There is no repository at this address{where}. Check it, and give a token if the repository is private."
    )


def _no_branch(where: str, branch: str) -> FFError:
    return BranchNotFound(f"The repository{where} has no branch '{branch}'. Check the name, or leave it out.")


def _unknown_host(where: str, _branch: str) -> FFError:
    return RepoUnreachable(f"The host name of the repository{where} is not known. Check the address.")


def _refused(where: str, _branch: str) -> FFError:
    return RepoUnreachable(f"Nothing answers at the address of the repository{where}. Check it, or try again later.")


def _certificate(where: str, _branch: str) -> FFError:
    return RepoUnreachable(
        f"The certificate of the git server{where} can't be trusted. If it is your organisation's own, add its "
        "authority to the machine's certificates."
    )


def _broken_off(where: str, _branch: str) -> FFError:
    return RepoUnreachable(f"The connection to the git server{where} broke off. Try again.")


def _server_error(where: str, _branch: str) -> FFError:
    return RepoUnreachable(f"The git server failed to serve the repository{where}. Try again later.")


# In order: the first that is found decides. A full disk also looks like a broken connection.
_MEANINGS = (
    (r"No space left on device|Disk quota exceeded|unable to write file ", _disk_full),
    (r"could not read (Username|Password) for", _auth_missing),
    (r"Authentication failed for|returned error: 40[13]\b", _auth_refused),
    (r"Remote branch .* not found in upstream", _no_branch),
    (r"repository '.*' not found|returned error: (404|410)\b|is this a git repository\?", _not_found),
    (r"does not appear to be a git repository|repository '.*' does not exist", _not_found),
    (r"Could not resolve host", _unknown_host),
    (r"(?i)ssl certificate problem|certificate verif|server certificate", _certificate),
    (r"Failed to connect|Couldn't connect|Connection (refused|timed out)|No route to host", _refused),
    (r"returned error: (429|5\d\d)\b", _server_error),
    (r"unexpected disconnect|early EOF|RPC failed|Empty reply from server|Recv failure|Operation too slow", _broken_off),
    (r"unable to access '", _refused),
)
