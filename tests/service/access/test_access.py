"""Access as the door uses it: raw headers in, a caller or an error out."""

import pytest

from formats.errors import WrongUse
from service.access.access import Access, access_of
from service.access.keys import new_key, read_keys, setting_entry
from service.errors import Forbidden, RateLimited, Unauthenticated
from service.http.problems import headers_of, status_of
from service.settings import Settings

KEYS = {role: new_key() for role in ("read", "write", "read+write", "admin")}
API_KEYS = ",".join(setting_entry(f"the-{role[:5]}", role, KEYS[role])[1] for role in ("read", "write"))
API_KEYS += "," + setting_entry("both", "read+write", KEYS["read+write"])[1]
ADMIN_KEYS = setting_entry("root", "admin", KEYS["admin"])[1]
NAMES = {"read": "the-read", "write": "the-write", "read+write": "both", "admin": "root"}


def bearer(key):
    return [(b"host", b"x"), (b"authorization", b"Bearer " + key.encode()), (b"accept", b"*/*")]


def x_api_key(key):
    return [(b"x-api-key", key.encode())]


@pytest.fixture
def access():
    return Access(read_keys(API_KEYS, ADMIN_KEYS))


@pytest.mark.parametrize("send", [bearer, x_api_key])
@pytest.mark.parametrize("role", ["read", "write", "admin"])
@pytest.mark.parametrize("key", KEYS)
def test_a_key_opens_what_its_role_names_and_admin_opens_everything(access, send, role, key):
    if role in key or key == "admin":
        assert access.check(send(KEYS[key]), role, 0.0).name == NAMES[key]
    else:
        with pytest.raises(Forbidden, match=f"the role {role}"):
            access.check(send(KEYS[key]), role, 0.0)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Bearer")],
        [(b"x-api-key", b"")],
        [(b"authorization", KEYS["read"].encode())],
        [(b"authorization", b"Basic " + KEYS["read"].encode())],
        bearer(KEYS["read"] + "x"),
        bearer(KEYS["read"][:-1]),
        bearer(KEYS["read"].upper()),
        bearer(setting_entry("n", "read", KEYS["read"])[1]),
        [(b"x-api-key", b"\xff\xfe")],
        [*bearer(KEYS["read"]), *x_api_key(KEYS["admin"])],
        [*x_api_key(KEYS["read"]), (b"x-api-key", b"")],
    ],
)
@pytest.mark.parametrize("role", ["read", "write", "admin"])
def test_no_key_an_unknown_one_or_two_are_no_caller(access, headers, role):
    with pytest.raises(Unauthenticated) as refused:
        access.check(headers, role, 0.0)
    assert status_of(refused.value) == 401
    assert headers_of(refused.value) == ((b"www-authenticate", b"Bearer"),)
    assert not any(value and value.decode("latin1") in str(refused.value) for _, value in headers if len(value) > 8)


def test_the_scheme_has_no_case_and_that_of_a_proxy_is_not_ours(access):
    assert access.check([(b"authorization", b"bearer " + KEYS["read"].encode())], "read", 0.0).name == "the-read"
    both = [(b"authorization", b"Basic eDp5"), *x_api_key(KEYS["read"])]
    assert access.check(both, "read", 0.0).name == "the-read"
    assert access.check([*bearer(KEYS["read"]), *x_api_key(KEYS["read"])], "read", 0.0).name == "the-read"


@pytest.mark.parametrize("role", ["read", "write", "admin"])
def test_without_any_key_everything_is_open(role):
    access = Access([])
    assert access.is_open
    assert access.check([], role, 0.0).name == ""
    assert access.check(bearer("whatever"), role, 0.0).name == ""


def test_without_a_key_of_an_administrator_nobody_is_one_and_the_setting_is_named():
    access = Access(read_keys(API_KEYS, ""))
    assert not access.is_open
    for headers in (bearer(KEYS["read+write"]), bearer(KEYS["admin"]), []):
        with pytest.raises(Forbidden, match="SYNCREC_ADMIN_KEYS") as refused:
            access.check(headers, "admin", 0.0)
        assert status_of(refused.value) == 403


def test_a_key_of_an_administrator_alone_closes_the_other_routes_too():
    access = Access(read_keys("", ADMIN_KEYS))
    with pytest.raises(Unauthenticated):
        access.check([], "read", 0.0)
    assert access.check(bearer(KEYS["admin"]), "read", 0.0).name == "root"


def test_each_key_has_its_own_rate():
    access = Access(read_keys(API_KEYS, ADMIN_KEYS), rate_per_s=0.5, burst=2)
    for _ in range(2):
        access.check(bearer(KEYS["read"]), "read", 10.0)
    with pytest.raises(RateLimited) as refused:
        access.check(x_api_key(KEYS["read"]), "read", 10.0)
    assert refused.value.retry_after_s == 2
    assert status_of(refused.value) == 429
    assert headers_of(refused.value) == ((b"retry-after", b"2"),)
    assert access.check(bearer(KEYS["write"]), "write", 10.0).name == "the-write"
    assert access.check(bearer(KEYS["read"]), "read", 12.0).name == "the-read"


def test_what_is_refused_for_its_role_costs_no_token():
    access = Access(read_keys(API_KEYS, ADMIN_KEYS), rate_per_s=0.5, burst=1)
    for _ in range(5):
        with pytest.raises(Forbidden):
            access.check(bearer(KEYS["read"]), "write", 0.0)
    assert access.check(bearer(KEYS["read"]), "read", 0.0).name == "the-read"


def test_during_a_rotation_the_old_key_and_the_new_one_both_work():
    old, new = new_key(), new_key()
    entries = [setting_entry(name, "read", key)[1] for name, key in (("web", old), ("web-2", new))]
    both = Access(read_keys(",".join(entries), ""))
    assert [both.check(bearer(key), "read", 0.0).name for key in (old, new)] == ["web", "web-2"]
    after = Access(read_keys(entries[1], ""))
    assert after.check(bearer(new), "read", 0.0).name == "web-2"
    with pytest.raises(Unauthenticated):
        after.check(bearer(old), "read", 0.0)


def test_the_settings_make_it():
    settings = Settings(api_keys=API_KEYS, admin_keys=ADMIN_KEYS, rate_limit_per_s=1, rate_burst=1)
    access = access_of(settings)
    assert access.check(bearer(KEYS["admin"]), "admin", 0.0).name == "root"
    with pytest.raises(RateLimited):
        access.check(bearer(KEYS["admin"]), "admin", 0.0)
    with pytest.raises(WrongUse, match="SYNCREC_API_KEYS: entry 1"):
        access_of(Settings(api_keys="k"))


def test_neither_a_key_nor_its_hash_is_shown(access):
    caller = access.check(bearer(KEYS["read"]), "read", 0.0)
    assert repr(caller) == "Caller(name='the-read')"
