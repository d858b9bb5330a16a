"""API keys in the settings: what is read, what is refused, and that no message repeats a key."""

import hashlib
import re
import traceback

import pytest

from formats.errors import WrongUse
from service.access.keys import GRANTED, hash_key, new_key, read_keys, setting_entry

KEY, OTHER = new_key(), new_key()


def test_a_key_is_hashed_by_sha256_and_no_two_are_alike():
    assert hash_key(KEY) == hashlib.sha256(KEY.encode()).hexdigest()
    assert len({new_key() for _ in range(100)}) == 100
    assert re.fullmatch(r"syncrec_[A-Za-z0-9_-]{43}", KEY)


@pytest.mark.parametrize("role", GRANTED)
def test_an_entry_is_read_back_with_its_name_its_roles_and_its_hash(role):
    variable, entry = setting_entry("web-1", role, KEY)
    settings = {"SYNCREC_API_KEYS": "", "SYNCREC_ADMIN_KEYS": "", variable: entry}
    (key,) = read_keys(*settings.values())
    assert (key.name, key.roles) == ("web-1", GRANTED[role])
    assert key.digest == hashlib.sha256(KEY.encode()).digest()
    assert KEY not in entry


def test_several_keys_stand_beside_each_other_with_space_around_and_hashes_in_capitals():
    keys = read_keys(f" a:read:{hash_key(KEY).upper()} ,\n b:write:{hash_key(OTHER)}\n", "  ")
    assert [(key.name, key.roles) for key in keys] == [("a", {"read"}), ("b", {"write"})]
    assert keys[0].digest == hashlib.sha256(KEY.encode()).digest()


@pytest.mark.parametrize(
    ("api_keys", "admin_keys", "place"),
    [
        (KEY, "", "SYNCREC_API_KEYS: entry 1 "),
        (f"a:read:{hash_key(OTHER)},{KEY}", "", "SYNCREC_API_KEYS: entry 2 "),
        (f"a:read:{KEY}", "", "SYNCREC_API_KEYS: entry 1 "),
        (f"a:admin:{hash_key(KEY)}", "", "SYNCREC_API_KEYS: entry 1 "),
        (f"a:read:{hash_key(KEY)},", "", "SYNCREC_API_KEYS: entry 2 "),
        (f":read:{hash_key(KEY)}", "", "SYNCREC_API_KEYS: entry 1 "),
        (f"ä:read:{hash_key(KEY)}", "", "SYNCREC_API_KEYS: entry 1 "),
        (f"a:read:{hash_key(KEY)}0", "", "SYNCREC_API_KEYS: entry 1 "),
        ("", KEY, "SYNCREC_ADMIN_KEYS: entry 1 "),
        ("", hash_key(KEY), "SYNCREC_ADMIN_KEYS: entry 1 "),
        (
            f"a:read:{hash_key(KEY)}",
            f"a:{hash_key(OTHER)}",
            "SYNCREC_API_KEYS, SYNCREC_ADMIN_KEYS: two keys are named a",
        ),
        (f"a:read:{hash_key(KEY)}", f"b:{hash_key(KEY)}", "SYNCREC_API_KEYS, SYNCREC_ADMIN_KEYS: the key a stands"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line_that_repeats_no_secret(api_keys, admin_keys, place):
    with pytest.raises(WrongUse) as refused:
        read_keys(api_keys, admin_keys)
    assert str(refused.value).startswith(place)
    told = "".join(traceback.format_exception(refused.value))
    assert "\n" not in str(refused.value)
    assert KEY not in told
    assert hash_key(KEY) not in told


def test_a_pasted_key_is_answered_with_the_cure():
    with pytest.raises(WrongUse, match="syncrec api-key --hash"):
        read_keys(KEY, "")


@pytest.mark.parametrize("key", ["", "guess me", "x" * 31, "ä" * 40, "with a blank " * 4])
def test_what_could_be_guessed_or_not_be_sent_is_no_key(key):
    with pytest.raises(WrongUse, match=r"^the key ") as refused:
        hash_key(key)
    assert not key or key not in str(refused.value)


def test_a_hash_is_not_shown():
    (key,) = read_keys(f"a:read:{hash_key(KEY)}", "")
    assert repr(key.digest) not in repr(key)
