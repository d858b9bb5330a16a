"""SYNCREC_REDIS_URL: what can be meant is understood, anything else refused in one line that shows no password."""

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.errors import WrongUse
from service.redis_client.address import Address, parse_address
from tests.service.servers import make_certificates

LOGIN = {"username": "u", "password": "p@/"}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://", Address("single", (("localhost", 6379),))),
        ("redis://h:1/3", Address("single", (("h", 1),), db=3)),
        ("redis://h?db=3", Address("single", (("h", 6379),), db=3)),
        ("redis://u:p%40%2F@[::1]:7/", Address("single", (("::1", 7),), login=LOGIN)),
        ("redis://:p%40%2F@h", Address("single", (("h", 6379),), login={"password": "p@/"})),
        ("unix:///run/a%20b.sock", Address("unix", path="/run/a b.sock")),
        ("unix://u@/s.sock?db=2&password=p@/", Address("unix", path="/s.sock", login=LOGIN, db=2)),
        ("redis+sentinel://h/main", Address("sentinel", (("h", 26379),), service="main")),
        (
            "redis+sentinel://u:p%40%2F@a:1,[::1],c/main/2?sentinel_username=s&sentinel_password=t",
            Address(
                "sentinel",
                (("a", 1), ("::1", 26379), ("c", 26379)),
                service="main",
                login=LOGIN,
                db=2,
                sentinel_login={"username": "s", "password": "t"},
            ),
        ),
        ("redis+cluster://u:p%40%2F@a:1,b/0", Address("cluster", (("a", 1), ("b", 6379)), login=LOGIN)),
        (
            "rediss+cluster://a",
            Address("cluster", (("a", 6379),), tls={"ssl_cert_reqs": "required", "ssl_check_hostname": True}),
        ),
        (
            "rediss://a?ssl_cert_reqs=none",
            Address("single", (("a", 6379),), tls={"ssl_cert_reqs": "none", "ssl_check_hostname": False}),
        ),
    ],
)
def test_every_form_is_understood(url, address):
    assert parse_address(url) == address


def test_certificates_are_named_in_the_url(certificates):
    files = certificates.client_options
    parameters = "&".join(f"{name}={value}" for name, value in files.items())
    tls = parse_address(f"rediss+sentinel://h/main?{parameters}").tls
    assert tls == {"ssl_cert_reqs": "required", "ssl_check_hostname": True, **files}


@pytest.mark.parametrize(
    ("url", "cure"),
    [
        ("localhost:6379", "begin it with one of redis://"),
        ("http://h", "or write embedded"),
        ("redis://[::1", "[IPv6]:port"),
        ("redis://h:port", "host:port"),
        ("redis://h:70000", "host:port"),
        ("redis://a,b", "redis+cluster://"),
        ("redis+sentinel://a,,b/main", "separated by commas"),
        ("redis+sentinel://a", "redis+sentinel://host/service_name"),
        ("redis+sentinel://a/main/x", "a number"),
        ("redis+sentinel:///main", "separated by commas"),
        ("redis+cluster://", "separated by commas"),
        ("redis+cluster://a/1", "only database 0"),
        ("redis://h/1/2", "more than one database"),
        ("redis://h/1?db=2", "more than one database"),
        ("redis://h/-1", "a number"),
        ("redis://h?socket_timeout=9", "are db"),
        ("redis+cluster://h?db=0", "are none"),
        ("redis://h?ssl_ca_certs=x", "begin the URL with rediss"),
        ("unix://", "unix:///run/redis/redis.sock"),
        ("unix://run/redis.sock", "unix:///run/redis/redis.sock"),
        ("rediss://h?ssl_ca_certs=/nowhere", "ssl_ca_certs: No such file"),
        ("rediss://h?ssl_keyfile=/nowhere", "needs ssl_certfile"),
        ("rediss://h?ssl_cert_reqs=maybe", "required, optional, none"),
        ("rediss://h?ssl_check_hostname=maybe", "true, false"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_cure(url, cure):
    with pytest.raises(WrongUse) as refused:
        parse_address(url)
    assert str(refused.value).startswith("SYNCREC_REDIS_URL (--redis): ")
    assert cure in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_key_behind_a_passphrase_is_refused_instead_of_asking_for_it(certificates, tmp_path):
    import subprocess

    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "ec", "-in", certificates.client_key, "-aes256", "-passout", "pass:secret", "-out", locked],
        check=True,
        capture_output=True,
    )
    with pytest.raises(WrongUse, match="ssl_certfile, ssl_keyfile: "):
        parse_address(f"rediss://h?ssl_certfile={certificates.client}&ssl_keyfile={locked}")


@given(
    password=st.text("/?#@:%&=,[]ab2", min_size=6, max_size=12),
    form=st.sampled_from(["redis://u:{}@h:1/0", "redis+sentinel://u:{}@h:1,i:2/main", "redis+cluster://:{}@h:1,i:2"]),
)
def test_a_password_is_read_as_it_was_meant_or_refused_unseen(password, form):
    address, shown = None, ""
    try:
        address = parse_address(form.format(password))
    except WrongUse as refused:
        shown = str(refused)
    assert password not in shown + repr(address)
    assert address is None or address.login["password"] == unquote(password)
