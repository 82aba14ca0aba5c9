"""The address of an endpoint: checked, and written in one way so that equal targets have equal keys."""

import ipaddress
from typing import NamedTuple
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}
_TAIL = "/chat/completions"


class CheckedUrl(NamedTuple):
    """A base URL as it is used, or what is wrong with it."""

    url: str | None
    """Normalised; None when refused."""
    problem: str | None = None
    hint: str | None = None


def check_base_url(text: str, *, allow_http: bool) -> CheckedUrl:
    """Return the normalised base URL: no trailing slash, host in lower case, no default port; a path is kept.

    Args:
        text: As the job has it.
        allow_http: Whether plain http:// may leave this machine.

    Returns:
        The URL, or the problem in words that never repeat a user name, a password or a query.
    """
    if text != text.strip() or any(not char.isprintable() or char.isspace() for char in text):
        return CheckedUrl(None, "holds white space or a control character")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return CheckedUrl(None, "is not a URL", "write for example https://api.openai.com/v1")
    if parts.scheme not in _DEFAULT_PORTS or not host:
        return CheckedUrl(None, "must begin with https:// (or http://) and a host", _hint_scheme(text))
    if parts.username is not None or parts.password is not None:
        return CheckedUrl(None, "holds a user name or password", "name the variable of the key: `api_key_env: NAME`")
    if parts.query or parts.fragment or "?" in text or "#" in text:
        hint = "put secrets into `header_env`, other settings into `params`"
        return CheckedUrl(None, "holds a query or a fragment, to which nothing can be added", hint)
    if parts.scheme == "http" and not allow_http and not is_loopback(host):
        hint = "use https://, or write `allow_http: true` beside it if that network is safe"
        return CheckedUrl(None, f"sends the key in the clear to {host}", hint)
    shown_host = f"[{host}]" if ":" in host else host
    shown_port = f":{port}" if port is not None and port != _DEFAULT_PORTS[parts.scheme] else ""
    url = f"{parts.scheme}://{shown_host}{shown_port}{parts.path.rstrip('/')}"
    if url.endswith(_TAIL):
        return CheckedUrl(None, f"ends in {_TAIL}, which is added", f"write base_url: {url.removesuffix(_TAIL)}")
    return CheckedUrl(url)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hint_scheme(text: str) -> str:
    return f"write https://{text}" if "://" not in text and "@" not in text and "?" not in text else "write https://…"
