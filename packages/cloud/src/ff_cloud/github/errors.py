"""What can go wrong between GitHub, a browser and an account."""

from ff_cloud.errors import CloudError
from ff_core.errors import Conflict


class GitHubNotSetUp(CloudError):
    """This server does not offer GitHub logins; log in with e-mail and password."""

    code = "github_not_set_up"
    status = 404


class GitHubLoginInvalid(CloudError):
    """This GitHub login was begun in another browser, was finished before, or took too long; begin it again."""

    code = "github_login_invalid"
    status = 400


class GitHubRefused(CloudError):
    """GitHub did not confirm the login; nothing was changed. Begin again if you want to log in."""

    code = "github_refused"
    status = 400


class GitHubUnavailable(CloudError):
    """GitHub does not answer as it should just now; try again in a minute."""

    code = "github_unavailable"
    status = 503


class GitHubEmailUnverified(CloudError):
    """Your GitHub account has no verified primary e-mail address; verify it at GitHub, then log in again."""

    code = "github_email_unverified"
    status = 403


class AccountHasEmail(Conflict):
    """There is an account with your e-mail here already. Log in to it first, then link your GitHub account on its page."""

    code = "account_has_email"


class IdentityElsewhere(Conflict):
    """This GitHub account belongs to another account here; unlink it there first."""

    code = "identity_elsewhere"


class OtherIdentity(Conflict):
    """Your account is linked to another GitHub account; unlink that one first."""

    code = "other_identity"


class LastLogin(Conflict):
    """This is the only way to log in to your account; set a password first."""

    code = "last_login"
