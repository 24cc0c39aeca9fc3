"""The pages, as text: plain HTML without scripts. Everything that comes from outside is escaped here and nowhere else.

Addresses are relative, so that the server may lie below a path.
"""

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from html import escape
from urllib.parse import urlencode, urlsplit

from fastapi.responses import HTMLResponse

from ff_core.contract.account import Scope
from ff_core.contract.authorization import IdentityView

_STYLE = (
    "body{font:1.05rem/1.5 system-ui,sans-serif;max-width:32rem;margin:3rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}"
    "label{display:block;margin:1rem 0 .25rem}input{font:inherit;width:100%;box-sizing:border-box;padding:.5rem;"
    "border:1px solid #767676;border-radius:.25rem}button{font:inherit;margin:1.25rem .75rem 0 0;padding:.5rem 1.25rem;"
    "border:1px solid #1a1a1a;border-radius:.25rem;background:#fff;color:#1a1a1a;cursor:pointer}"
    "button.main{background:#0b57d0;border-color:#0b57d0;color:#fff}dt{font-weight:600}dd{margin:0 0 .5rem}"
    ".problem{border-left:.3rem solid #b3261e;padding:.5rem .75rem;background:#fceeee}"
    ":focus-visible{outline:3px solid #f29900;outline-offset:2px}"
)
_STYLE_SOURCE = f"'sha256-{b64encode(sha256(_STYLE.encode()).digest()).decode()}'"

_SCOPES = {
    Scope.WORKSPACES_READ: "see your workspaces",
    Scope.WORKSPACES_WRITE: "make, change and delete workspaces",
    Scope.SESSIONS_WRITE: "run agents in them",
    Scope.ACCOUNT_READ: "see your account",
}


def page(title: str, body: str, *, status: int = 200, form_targets: Sequence[str] = ()) -> HTMLResponse:
    """A whole page. ``form_targets``: further origins that the answer to its form may lead to."""
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)} - Factory Factory Cloud</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )
    targets = " ".join(["'self'", *form_targets])
    policy = f"default-src 'none'; style-src {_STYLE_SOURCE}; frame-ancestors 'none'; base-uri 'none'; form-action {targets}"
    # `no-referrer`, which the API has, would make browsers send `Origin: null` with our own forms.
    headers = {"Content-Security-Policy": policy, "Referrer-Policy": "same-origin", "Cache-Control": "no-store"}
    return HTMLResponse(html, status, headers)


def login(*, csrf: str, following: str, problem: str = "", email: str = "", github: bool, status: int = 200) -> HTMLResponse:
    """E-mail and password, or GitHub; afterwards the browser goes to ``following``."""
    alternative = ""
    if github:
        target = escape("v1/auth/github/start?" + urlencode({"next": following}))
        alternative = f'<p>Or <a href="{target}">log in with GitHub</a>.</p>'
    body = (
        f'{_problem(problem)}<form method="post" action="login">{_hidden(csrf=csrf, next=following)}'
        '<label for="email">E-mail</label>'
        f'<input id="email" name="email" type="email" autocomplete="username" required value="{escape(email)}">'
        '<label for="password">Password</label>'
        '<input id="password" name="password" type="password" autocomplete="current-password" required>'
        f'<button class="main">Log in</button></form>{alternative}'
    )
    return page("Log in", body, status=status)


def consent(
    *, csrf: str, action: str, client: str, device: str, email: str, scopes: frozenset[Scope] | None, target: str
) -> HTMLResponse:
    """A program on this machine asks to be let in; ``target`` is the address that hears the answer."""
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(target))
    body = (
        f"<p><strong>{escape(client)}</strong> on <strong>{escape(device)}</strong> wants to use the account "
        f"<strong>{escape(email)}</strong>. It could:</p>{_what(scopes)}"
        "<p>Allow it only if you have just run <code>ff login</code> on this machine.</p>"
        f'<form method="post" action="{escape(action)}">{_hidden(csrf=csrf)}'
        '<button class="main" name="decision" value="allow">Allow</button>'
        '<button name="decision" value="deny">Deny</button></form>'
    )
    # Browsers check form-action for the redirect too. A CSP can't name an IPv6 address, so there the scheme has to do.
    return page("Let this program in?", body, form_targets=["http:" if "[" in origin else origin])


def device_code(*, csrf: str, problem: str = "", status: int = 200) -> HTMLResponse:
    """Where the user types the code that a program shows elsewhere."""
    body = (
        f"{_problem(problem)}<p>Type the code that <code>ff login --device</code> shows. If somebody sent you a code, close "
        "this page: it would let them into your account.</p>"
        f'<form method="post" action="device">{_hidden(csrf=csrf)}<label for="user_code">Code</label>'
        '<input id="user_code" name="user_code" required autocomplete="off" autocapitalize="characters" spellcheck="false" '
        'maxlength="20" placeholder="XXXX-XXXX"><button class="main">Continue</button></form>'
    )
    return page("Log in another machine", body, status=status)


def device_approval(
    *, csrf: str, user_code: str, client: str, device: str, place: str, age_s: int, email: str, scopes: frozenset[Scope] | None
) -> HTMLResponse:
    """What asks, from where and since when; approve or deny."""
    body = (
        f"<dl><dt>Program</dt><dd>{escape(client)} on {escape(device)} (a name it gave itself)</dd>"
        f"<dt>Network address</dt><dd>{escape(place)}</dd><dt>Asked</dt><dd>{_age(age_s)}</dd>"
        f"<dt>Account</dt><dd>{escape(email)}</dd></dl><p>It could:</p>{_what(scopes)}"
        "<p><strong>Did you start this login yourself, just now?</strong> If not, deny it.</p>"
        f'<form method="post" action="device">{_hidden(csrf=csrf, user_code=user_code)}'
        '<button class="main" name="decision" value="approve">Yes, let it in</button>'
        '<button name="decision" value="deny">No, deny it</button></form>'
    )
    return page("Did you start this?", body)


def account(*, csrf: str, email: str, identities: Sequence[IdentityView], github: str | None) -> HTMLResponse:
    """How to log in to the account, and the button that adds GitHub; ``github`` is GitHub's address, None without one."""
    linked = "".join(f"<li>GitHub account {escape(one.login)}</li>" for one in identities)
    known = f"<p>You can also log in with:</p><ul>{linked}</ul>" if linked else ""
    offer = ""
    if github is not None and not linked:
        button = '<button class="main">Link a GitHub account</button>'
        offer = f'<form method="post" action="account">{_hidden(csrf=csrf)}{button}</form>'
    leave = f'<form method="post" action="logout">{_hidden(csrf=csrf)}<button>Log out</button></form>'
    body = f"<p>You are logged in as <strong>{escape(email)}</strong>.</p>{known}{offer}{leave}"
    return page("Your account", body, form_targets=[github] if github else [])


def message(title: str, text: str, *, status: int = 200) -> HTMLResponse:
    """A page that only says something."""
    return page(title, f'<p role="{"alert" if status >= 400 else "status"}">{escape(text)}</p>', status=status)


def _hidden(**fields: str) -> str:
    return "".join(f'<input type="hidden" name="{name}" value="{escape(value)}">' for name, value in fields.items())


def _problem(text: str) -> str:
    return f'<p class="problem" role="alert">{escape(text)}</p>' if text else ""


def _what(scopes: frozenset[Scope] | None) -> str:
    return "<ul>" + "".join(f"<li>{what}</li>" for scope, what in _SCOPES.items() if scopes is None or scope in scopes) + "</ul>"


def _age(age_s: int) -> str:
    return "less than a minute ago" if age_s < 60 else f"{age_s // 60} minute{'s' if age_s >= 120 else ''} ago"
