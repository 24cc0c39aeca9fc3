"""What the git door of the gateway refuses. Git shows these sentences to whoever typed the command."""

from ff_core.errors import FFError


class GitPathRefused(FFError):
    """The gateway serves clone, fetch and push over HTTPS and nothing else; this address is none of theirs."""

    code = "git_path_refused"
    status = 404


class GitHostRefused(FFError):
    """The gateway does not lead to this git server; ask the administrator to add it to FF_GIT_HOSTS."""

    code = "git_host_refused"
    status = 403


class GitLfsUnsupported(FFError):
    """Git LFS does not work through the gateway yet; clone with GIT_LFS_SKIP_SMUDGE=1 to go without its files."""

    code = "git_lfs_unsupported"
    status = 501


class GitCredentialRefused(FFError):
    """The git server refused this; set a credential that may do it: `ff credential set github_token`."""

    code = "git_credential_refused"
    status = 403


class GitMoved(FFError):
    """The git server sends this to another place, where the gateway does not go; give the remote its new address."""

    code = "git_moved"
    status = 502


class GitHubPathRefused(FFError):
    """The gateway serves pull requests, issues, commits, checks and reviews of repositories, to read; nothing else."""

    code = "github_path_refused"
    status = 403


class UpstreamUnreachable(FFError):
    """The server behind the gateway can't be reached; try again later."""

    code = "upstream_unreachable"
    status = 502


class UpstreamSilent(FFError):
    """The server behind the gateway did not answer in time; try again later."""

    code = "upstream_silent"
    status = 504


class TooManyTransfers(FFError):
    """This workspace has as many git transfers under way as it may have; wait until one has ended."""

    code = "too_many_transfers"
    status = 429
