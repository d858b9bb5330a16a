"""SYNCREC_REDIS_URL: where Redis is, in which form, and who we are to it.

    redis://[user:password@]host[:6379][/db]
    unix://[user@]/path/to/socket[?db=0&password=...]
    redis+sentinel://[user:password@]host[:26379],host.../service_name[/db]
    redis+cluster://[user:password@]host[:6379],host...

`rediss`, `rediss+sentinel` and `rediss+cluster` are the same over TLS. A URL that cannot be meant is refused at start. No message
quotes it: whoever forgot to encode a character of a password would find a part of that in the log.
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote

from formats.errors import WrongUse

Form = Literal["single", "unix", "sentinel", "cluster"]

SETTING = "SYNCREC_REDIS_URL (--redis)"
FORMS: Mapping[str, tuple[Form, bool]] = {
    "redis": ("single", False),
    "rediss": ("single", True),
    "unix": ("unix", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
REDIS_PORT, SENTINEL_PORT = 6379, 26379

TLS_PARAMETERS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
PARAMETERS: Mapping[Form, tuple[str, ...]] = {
    "single": ("db",),
    "unix": ("db", "password"),
    "sentinel": ("db", "sentinel_username", "sentinel_password"),
    "cluster": (),
}
CHECKS = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}
SWITCH = {"true": True, "false": False}

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)]|([^\[\]:\s]+))(?::(\d{1,5}))?")


@dataclass(frozen=True)
class Address:
    """Where Redis is.

    hosts: (host, port) of the server, of the sentinels, or of some nodes of the cluster; none with a unix socket.
    path: of the unix socket. service: the master's name among sentinels.
    login: username and password, those that are given. db: 0 in a cluster. tls: options of redis-py, None without TLS.
    sentinel_login: username and password for the sentinels themselves.
    """

    form: Form
    hosts: tuple[tuple[str, int], ...] = ()
    path: str | None = None
    service: str | None = None
    login: Mapping[str, str] = field(default_factory=dict, repr=False)
    db: int = 0
    tls: Mapping[str, Any] | None = None
    sentinel_login: Mapping[str, str] = field(default_factory=dict, repr=False)


def parse_address(url: str) -> Address:
    """Read the URL.

    Raises:
        WrongUse: it cannot be meant, or a file of certificates that it names cannot be used.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in FORMS:
        raise _wrong(f"begin it with one of {', '.join(f'{scheme}://' for scheme in FORMS)}, or write embedded")
    form, has_tls = FORMS[scheme]
    # Not urlsplit, which in newer versions of Python refuses an IPv6 address among several hosts.
    rest, number_sign, _ = rest.partition("#")
    rest, _, query = rest.partition("?")
    netloc, slash, path = rest.partition("/")
    if number_sign or (form != "unix" and "@" in path + query):
        raise _wrong("a password's / ? # @ are written %2F %3F %23 %40, and so is an @ elsewhere")
    parameters = _parameters(query, form, has_tls)
    userinfo, _, hosts = netloc.rpartition("@")
    username, _, password = userinfo.partition(":")
    login = _login(unquote(username), unquote(password) or parameters.get("password"))
    tls = _tls(parameters) if has_tls else None
    path = unquote(slash + path)
    if form == "unix":
        if hosts or not path.strip("/"):
            raise _wrong("a unix socket is named like this: unix:///run/redis/redis.sock")
        return Address(form, path=path, login=login, db=_db(parameters.get("db", "")))
    service, db = _service_and_db(form, path, parameters)
    sentinel_login = _login(parameters.get("sentinel_username"), parameters.get("sentinel_password"))
    return Address(form, _hosts(form, hosts), None, service, login, db, tls, sentinel_login)


def _wrong(text: str) -> WrongUse:
    return WrongUse(f"{SETTING}: {text}")


def _login(username: str | None, password: str | None) -> dict[str, str]:
    return {name: value for name, value in (("username", username), ("password", password)) if value}


def _parameters(query: str, form: Form, has_tls: bool) -> dict[str, str]:
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    # Others, such as time-outs and connection counts, have settings of their own; a URL must not change them unseen.
    known = [*PARAMETERS[form], *(TLS_PARAMETERS if has_tls else ())]
    for name in parameters:
        if name in TLS_PARAMETERS and not has_tls:
            raise _wrong(f"{name} is for TLS: begin the URL with rediss")
        if name not in known:
            raise _wrong(f"a parameter is unknown; those of this form are {', '.join(known) or 'none'}")
    return parameters


def _hosts(form: Form, text: str) -> tuple[tuple[str, int], ...]:
    found = []
    for host in (text or "localhost").split(",") if form == "single" else text.split(","):
        match = _HOST.fullmatch(host)
        port = int(match[3] or (SENTINEL_PORT if form == "sentinel" else REDIS_PORT)) if match else 0
        if match is None or not 0 < port < 65_536:
            raise _wrong("a host is written host, host:port or [IPv6]:port; several are separated by commas")
        found.append((unquote(match[1] or match[2]), port))
    if form == "single" and len(found) > 1:
        raise _wrong("several hosts are either sentinels, redis+sentinel://, or nodes of a cluster, redis+cluster://")
    return tuple(found)


def _service_and_db(form: Form, path: str, parameters: Mapping[str, str]) -> tuple[str | None, int]:
    words = path.strip("/").split("/") if path.strip("/") else []
    service = None
    if form == "sentinel":
        if not words:
            raise _wrong("name the master as the sentinels do: redis+sentinel://host/service_name")
        service = words.pop(0)
    if len(words) > 1 or (words and "db" in parameters):
        raise _wrong("after the hosts there is more than one database")
    db = _db(words[0] if words else parameters.get("db", ""))
    if form == "cluster" and db:
        raise _wrong("a cluster has only database 0")
    return service, db


def _db(text: str) -> int:
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise _wrong("the database is a number")
    return int(text or 0)


def _tls(parameters: Mapping[str, str]) -> dict[str, Any]:
    """Options of redis-py, after trying whether they can be used: it would only find out at the first connection."""
    checks, verifies = parameters.get("ssl_cert_reqs", "required"), parameters.get("ssl_check_hostname", "true")
    if checks not in CHECKS:
        raise _wrong(f"ssl_cert_reqs is one of {', '.join(CHECKS)}")
    if verifies not in SWITCH:
        raise _wrong(f"ssl_check_hostname is one of {', '.join(SWITCH)}")
    files = {name: parameters[name] for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile") if name in parameters}
    if "ssl_keyfile" in files and "ssl_certfile" not in files:
        raise _wrong("ssl_keyfile needs ssl_certfile")
    try:
        context = ssl.create_default_context(cafile=files.get("ssl_ca_certs"))
        if "ssl_certfile" in files:
            # A key behind a passphrase must fail here, not ask for it on a terminal.
            context.load_cert_chain(files["ssl_certfile"], files.get("ssl_keyfile"), password="")
    except (OSError, ValueError) as error:
        raise _wrong(f"{', '.join(files) or 'TLS'}: {getattr(error, 'strerror', None) or error}") from error
    return {"ssl_cert_reqs": checks, "ssl_check_hostname": SWITCH[verifies] and checks != "none", **files}
