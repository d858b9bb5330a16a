"""Event files -> histories in Redis, in the order in which `syncrec prepare` puts them."""

import gzip
import json

import numpy as np
import polars as pl
import pytest
import redis

from formats.event_ties import item_hashes
from formats.events import EventSource, IdCodes, read_events
from service.history.keys import history_key
from service.history.ordering import order_events
from service.history.packed import unpack
from syncrec.cli import main

HEADER = "user_id,item_id,domain,timestamp,event\n"
DAY_S = 86_400


@pytest.fixture
def stored(redis_url):
    """The stored history of a user as item hashes, oldest first."""
    with redis.Redis.from_url(redis_url) as client:

        def read(user_id):
            value = client.get(history_key(user_id))
            return None if value is None else unpack(value).events

        read.client = client
        yield read


@pytest.fixture
def write(tmp_path):
    """Writes an event file of (user_id, item_id, domain, timestamp, event)."""

    def file(rows, name="events.csv"):
        path = tmp_path / name
        text = HEADER + "".join(",".join(map(str, row)) + "\n" for row in rows)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return file


def event(user_id, item_id, timestamp, domain="Books", kind="interaction"):
    return (user_id, item_id, domain, timestamp, kind)


def load(redis_url, *arguments):
    return main(["load-histories", "--redis", redis_url, *map(str, arguments)])


def same_items(events, *item_ids, domain="Books"):
    return events["item_hash"].tolist() == item_hashes((domain, item_id) for item_id in item_ids).tolist()


def test_each_user_gets_their_events_oldest_first(redis_url, stored, write, capsys):
    one = write([event("u1", "b", 200), event("u2", "c", 150.9), event("u1", "a", "1970-01-01T00:01:40Z")])
    two = write([event("u1", "d", 300)], "more.csv.gz")
    assert load(redis_url, one, two) == 0
    assert same_items(stored("u1"), "a", "b", "d")
    assert stored("u1")["timestamp"].tolist() == [100, 200, 300]
    assert same_items(stored("u2"), "c")
    assert stored("u2")["timestamp"].tolist() == [150]
    assert "2 users, 4 events, 0 malformed rows skipped" in capsys.readouterr().out


def test_a_user_is_forgotten_90_days_after_loading(redis_url, stored, write):
    load(redis_url, write([event("u1", "a", 100)]))
    assert 90 * DAY_S - 60 <= stored.client.ttl(history_key("u1")) <= 90 * DAY_S


def test_days_and_events_kept_are_settings(redis_url, stored, write, monkeypatch):
    monkeypatch.setenv("SYNCREC_HISTORY_DAYS", "2")
    monkeypatch.setenv("SYNCREC_HISTORY_LIMIT", "3")
    load(redis_url, write([event("u1", f"i{n}", n) for n in range(10)]))
    assert same_items(stored("u1"), "i7", "i8", "i9")
    assert 2 * DAY_S - 60 <= stored.client.ttl(history_key("u1")) <= 2 * DAY_S


def test_loading_again_replaces_what_was_stored_and_leaves_others(redis_url, stored, write):
    load(redis_url, write([event("u1", "a", 1), event("u2", "b", 1)]))
    load(redis_url, write([event("u1", "c", 1)]))
    assert same_items(stored("u1"), "c")
    assert same_items(stored("u2"), "b")


def test_only_the_kinds_that_count_are_kept(redis_url, stored, write):
    rows = [event("u1", "a", 1), event("u1", "b", 2, kind="impression"), event("u1", "c", 3, kind="click")]
    load(redis_url, write(rows))
    assert same_items(stored("u1"), "a")
    load(redis_url, write(rows), "--events", "interaction,click")
    assert same_items(stored("u1"), "a", "c")


def test_repeats_are_dropped_but_for_the_first_or_kept_when_asked(redis_url, stored, write):
    rows = [event("u1", "a", 1), event("u1", "b", 2), event("u1", "a", 3), event("u1", "b", 2)]
    load(redis_url, write(rows))
    assert same_items(stored("u1"), "a", "b")
    load(redis_url, write(rows), "--repeats", "keep")
    assert same_items(stored("u1"), "a", "b", "a")


def test_times_that_do_not_fit_keep_their_order(redis_url, stored, write):
    load(redis_url, write([event("u1", "a", -5), event("u1", "b", -4), event("u1", "c", 2**40 // 8)]))
    assert same_items(stored("u1"), "a", "b", "c")
    assert stored("u1")["timestamp"].tolist() == [0, 0, 2**32 - 1]


def test_columns_and_a_constant_domain_can_be_named(redis_url, stored, tmp_path):
    file = tmp_path / "books.tsv"
    file.write_text("reviewer\titem_id\ttimestamp\nu1\ta\t5\n")
    assert load(redis_url, "--domain", f"Toys={file}", "--columns", "user_id=reviewer") == 0
    assert same_items(stored("u1"), "a", domain="Toys")


def test_malformed_rows_are_skipped_and_named_up_to_a_share(redis_url, stored, write, capsys):
    file = write([*(event("u1", f"i{n}", n) for n in range(9)), ("", "x", "Books", 1, "interaction")])
    assert load(redis_url, file) == 1
    assert "1 of 10 rows are malformed" in capsys.readouterr().err
    assert stored("u1") is None
    assert load(redis_url, file, "--max-bad", "0.2") == 0
    assert f"skipped {file}:11: missing user_id" in capsys.readouterr().err
    assert len(stored("u1")) == 9


def test_the_result_comes_as_json(redis_url, write, capsys):
    assert load(redis_url, write([event("u1", "a", 1)]), "--json", "-") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["users"] == result["events"] == 1
    assert result["bytes_per_user"] > 13
    assert set(result) >= {"malformed", "seconds", "events_per_second"}


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["--redis", "redis://127.0.0.1:1"], 1, "Redis does not answer"),
        (["--redis", "nonsense"], 2, "--redis"),
        (["--events", "sale"], 2, "known kinds"),
        (["--columns", "user=x"], 2, "--columns"),
        (["--domain", "Books"], 2, "--domain"),
    ],
)
def test_what_cannot_be_done_is_one_line(redis_url, write, capsys, arguments, code, line):
    assert load(redis_url, write([event("u1", "a", 1)]), *arguments) == code
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


def test_files_that_are_none_are_one_line(redis_url, tmp_path, capsys):
    empty = tmp_path / "empty.csv"
    empty.touch()
    header = tmp_path / "header.csv"
    header.write_text(HEADER)
    for given in (["nothing.csv"], [empty], [header], [tmp_path], []):
        assert load(redis_url, *given) in {1, 2}
        assert capsys.readouterr().err.count("\n") == 1


def test_the_embedded_server_is_loaded_and_keeps_it(tmp_path, write, monkeypatch):
    from service.history.embedded import embedded_redis

    monkeypatch.setenv("SYNCREC_DATA_DIR", str(tmp_path / "data"))
    assert load("embedded", write([event("u1", "a", 1)])) == 0
    with embedded_redis(tmp_path / "data") as url, redis.Redis.from_url(url) as client:
        assert same_items(unpack(client.get(history_key("u1"))).events, "a")


@pytest.mark.parametrize("keep_repeats", [True, False])
def test_stored_histories_are_in_the_order_of_prepare(tmp_path, keep_repeats):
    """Many users, many ties: the order, and which repeat stays, is that of the training data, whatever the file's order."""
    from training.encoding import encode
    from training.ordering import first_of_repeats, in_order

    chance = np.random.default_rng(7)
    size = 3000
    frame = pl.DataFrame(
        {
            "user_id": [f"u{n}" for n in chance.integers(0, 40, size)],
            "item_id": [f"i{n}" for n in chance.integers(0, 60, size)],
            "domain": chance.choice(["Books", "Toys", "B"], size).tolist(),
            "timestamp": chance.integers(0, 50, size),
        }
    )
    histories = []
    for shuffled in (frame, frame.sample(fraction=1, shuffle=True, seed=3)):
        shuffled.write_csv(tmp_path / "events.csv")
        rows = read_events(EventSource(tmp_path / "events.csv"), {}, IdCodes()).good
        ordered = order_events(rows, keep_repeats=keep_repeats)
        spans = zip(ordered.user_ids, [0, *ordered.ends.tolist()], ordered.ends.tolist(), strict=False)
        histories.append({user_id: ordered.events["item_hash"][first:end].tolist() for user_id, first, end in spans})
    prepared = in_order(encode(rows))
    prepared = prepared.take(first_of_repeats(prepared, same_time_only=keep_repeats))
    wanted = {user_id: [] for user_id in prepared.user_ids}
    for user, item in zip(prepared.user, prepared.item, strict=True):
        name = (prepared.domains[prepared.item_domain[item]], prepared.item_ids[int(item)])
        wanted[prepared.user_ids[int(user)]].append(int(item_hashes([name])[0]))
    assert histories == [wanted, wanted]
