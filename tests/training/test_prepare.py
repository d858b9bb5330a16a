"""Rules of `prepare` on small files made by hand, and what must not change its bytes."""

import random

import pytest

from formats.errors import WorkFailed, WrongUse
from formats.events import EventSource
from training.dataset import open_dataset
from training.manifest import PARTS
from training.prepare import PrepareOptions, prepare

SECOND = 1_000_000
HEADER = "user_id,item_id,domain,timestamp,event"
CUTS = {"validation_from": 100 * SECOND, "test_from": 200 * SECOND}


def write(path, rows, header=HEADER):
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return EventSource(path)


def run(folder, rows, item_table=None, **options):
    """Prepare (user, item, domain, seconds[, event]) rows with cuts at 100 and 200 seconds unless told otherwise."""
    folder.mkdir(exist_ok=True)
    rows = [row if len(row) == 5 else (*row, "interaction") for row in rows]
    source = write(folder / "events.csv", rows)
    if "split" not in options:
        options = CUTS | options
    prepared = prepare([source], folder / "dataset", PrepareOptions(**options), item_table)
    return prepared, open_dataset(folder / "dataset")


def dropped(prepared):
    return {
        (row.domain, reason): count for row in prepared.manifest.report.rows for reason, count in row.dropped.items()
    }


def events_of(dataset, part):
    """user_id -> [(item_id or None, domain, seconds)] of one part."""
    catalogue = dataset.catalogue()["item_id"].to_list()
    table = dataset.part(part)
    found = {}
    for user in range(table.users):
        rows = table.of_user(user)
        events = [
            (catalogue[item - 1] if item else None, dataset.domains[domain - 1], int(time) // SECOND)
            for item, domain, time in zip(
                table.item_index[rows], table.domain[rows], table.timestamp[rows], strict=True
            )
        ]
        if events:
            found[dataset.all_user_ids[user]] = events
    return found


def files_of(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def training_files(folder):
    return {name: content for name, content in files_of(folder).items() if name.startswith(("train/", "items"))}


TWO_USERS = [("a", "x", "D", 1), ("a", "y", "D", 2), ("b", "x", "D", 1), ("b", "y", "E", 3)]


def test_events_before_between_and_after_the_cuts_go_to_train_validation_and_test(tmp_path):
    _, dataset = run(tmp_path, [*TWO_USERS, ("a", "z", "D", 99), ("b", "z", "D", 100), ("a", "w", "D", 200)])
    assert events_of(dataset, "train") == {
        "a": [("x", "D", 1), ("y", "D", 2), ("z", "D", 99)],
        "b": [("x", "D", 1), ("y", "E", 3)],
    }
    assert events_of(dataset, "validation") == {"b": [("z", "D", 100)]}
    assert events_of(dataset, "test") == {"a": [(None, "D", 200)]}
    assert dataset.manifest.parts["test"].domains["D"].cold == 1


def test_items_are_numbered_by_domain_then_popularity_then_id_and_the_same_id_twice_is_two_items(tmp_path):
    rows = [("a", "y", "E", 1), ("a", "x", "D", 1), ("a", "q", "D", 1), ("b", "q", "D", 1), ("b", "y", "D", 1)]
    _, dataset = run(tmp_path, rows)
    assert dataset.catalogue().select("item_index", "domain", "item_id", "popularity").rows() == [
        (1, "D", "q", 2),
        (2, "D", "x", 1),
        (3, "D", "y", 1),
        (4, "E", "y", 1),
    ]
    assert dataset.domains == ("D", "E")
    assert dataset.items_per_domain == (3, 1)


def test_users_of_training_come_first_then_those_of_context_validation_and_test(tmp_path):
    rows = [*TWO_USERS, ("0", "x", "D", 250), ("1", "x", "D", 150), ("1", "y", "D", 250), ("2", "y", "D", 5)]
    _, dataset = run(tmp_path, [*rows, ("2", "x", "D", 250)])
    assert dataset.all_user_ids.to_list() == ["a", "b", "2", "1", "0"]
    assert [dataset.part(part).users for part in PARTS] == [2, 3, 4, 5]
    assert [dataset.user_ids(part).to_list() for part in PARTS] == [["a", "b"], ["2"], ["1"], ["0"]]


def test_dropping_repeats_keeps_the_first_event_of_an_item_whatever_follows(tmp_path):
    prepared, dataset = run(tmp_path, [*TWO_USERS, ("a", "x", "D", 7), ("a", "x", "D", 150)])
    assert events_of(dataset, "train")["a"] == [("x", "D", 1), ("y", "D", 2)]
    assert events_of(dataset, "validation") == {}
    assert dropped(prepared) == {("D", "repeat"): 2}


def test_keeping_repeats_drops_only_what_happened_at_the_same_time(tmp_path):
    rows = [*TWO_USERS, ("a", "x", "D", 7), ("a", "x", "D", 7), ("a", "x", "E", 7)]
    prepared, dataset = run(tmp_path, rows, repeats="keep")
    assert sorted(events_of(dataset, "train")["a"]) == [("x", "D", 1), ("x", "D", 7), ("x", "E", 7), ("y", "D", 2)]
    assert dropped(prepared) == {("D", "repeat"): 1}


def test_unknown_domains_and_kinds_that_do_not_count_are_dropped_each_with_its_reason(tmp_path):
    rows = [*TWO_USERS, ("a", "z", "F", 5), ("a", "v", "D", 6, "click"), ("a", "u", "D", 6, "impression")]
    prepared, dataset = run(tmp_path, rows, domains=("D", "E"), events=("click", "interaction"))
    assert dropped(prepared) == {("F", "unknown domain"): 1, ("D", "event not counted"): 1}
    assert events_of(dataset, "train")["a"][-1] == ("v", "D", 6)


def test_later_events_of_a_domain_that_training_does_not_know_are_dropped(tmp_path):
    prepared, dataset = run(tmp_path, [*TWO_USERS, ("a", "n", "New", 150)])
    assert dataset.domains == ("D", "E")
    assert dropped(prepared) == {("New", "domain without training items"): 1}


def test_thresholds_are_repeated_until_nothing_changes_and_count_training_only(tmp_path):
    rows = [(user, item, "D", 1) for user in "abc" for item in "xyz"]
    # e lives on the item r, which only d and e have; d has r and x. Without e, r is rare; without r, d is too short.
    rows += [("d", "r", "D", 1), ("d", "x", "D", 2), ("e", "r", "D", 1), ("e", "r", "D", 150), ("f", "r", "D", 150)]
    prepared, dataset = run(tmp_path, rows, min_item_events=2, min_user_events=2)
    rounds = prepared.manifest.report.threshold_rounds
    assert [(one.items, one.item_events, one.users, one.user_events) for one in rounds] == [(0, 0, 1, 1), (1, 1, 1, 1)]
    assert set(events_of(dataset, "train")) == {"a", "b", "c"}
    assert dataset.catalogue()["item_id"].to_list() == ["x", "y", "z"]
    assert events_of(dataset, "validation") == {"f": [(None, "D", 150)]}
    assert dropped(prepared) == {
        ("D", "repeat"): 1,
        ("D", "user below threshold"): 2,
        ("D", "item below threshold"): 1,
    }


def test_a_user_below_the_threshold_who_returns_keeps_the_earlier_events_as_context(tmp_path):
    rows = [*TWO_USERS, ("c", "x", "D", 50), ("c", "y", "D", 250), ("d", "x", "D", 50)]
    prepared, dataset = run(tmp_path, rows)
    assert set(events_of(dataset, "train")) == {"a", "b"}
    assert events_of(dataset, "context") == {"c": [("x", "D", 50)]}
    assert dataset.catalogue().filter(item_id="x")["popularity"].to_list() == [2]
    assert dropped(prepared) == {("D", "user below threshold"): 1}


def test_read_is_kept_plus_dropped_in_every_domain(tmp_path):
    rows = [*TWO_USERS, ("", "x", "D", 1), ("a", "x", "E", "never"), ("c", "x", "D", 1), ("a", "x", "D", 9)]
    prepared, dataset = run(tmp_path, rows, max_bad=1.0)
    for row in prepared.manifest.report.rows:
        assert row.read == row.kept + sum(row.dropped.values())
    assert sum(row.read for row in prepared.manifest.report.rows) == len(rows)
    assert sum(row.kept for row in prepared.manifest.report.rows) == sum(dataset.part(part).events for part in PARTS)


def test_more_malformed_rows_than_allowed_are_an_error_that_shows_the_first_five(tmp_path):
    rows = [*TWO_USERS * 4, *[("", "x", "D", 1)] * 7]
    with pytest.raises(WorkFailed, match=r"7 of 23 rows are malformed") as failure:
        run(tmp_path, rows, max_bad=6 / 23)
    for line in range(18, 23):
        assert f"events.csv:{line}: missing user_id" in str(failure.value)
    assert "events.csv:23:" not in str(failure.value)
    prepared, _ = run(tmp_path, rows, max_bad=7 / 23)
    assert prepared.malformed == 7
    assert len(prepared.examples) == 5


def test_leave_one_out_tests_the_newest_event_of_each_user_and_validates_the_one_before(tmp_path):
    rows = [("a", "x", "D", 1), ("a", "y", "D", 2), ("a", "z", "D", 3), ("a", "w", "D", 4), ("b", "x", "D", 1)]
    _, dataset = run(tmp_path, [*rows, ("b", "y", "D", 9), ("c", "y", "D", 9)], split="leave-one-out")
    assert events_of(dataset, "train") == {"a": [("x", "D", 1), ("y", "D", 2)]}
    assert events_of(dataset, "validation") == {"a": [(None, "D", 3)], "b": [("x", "D", 1)]}
    assert events_of(dataset, "test") == {"a": [(None, "D", 4)], "b": [("y", "D", 9)], "c": [("y", "D", 9)]}


def test_the_default_cuts_are_event_times_at_the_quantiles(tmp_path):
    rows = [("a", f"i{second}", "D", second) for second in range(10)]
    prepared, dataset = run(tmp_path, rows, split="temporal")
    assert prepared.manifest.split.validation_from == "1970-01-01T00:00:08Z"
    assert [dataset.part(part).events for part in ("train", "validation", "test")] == [8, 1, 1]


def test_the_share_of_tied_events_is_of_the_kept_ones(tmp_path):
    rows = [("a", "x", "D", 1), ("a", "y", "D", 1), ("a", "y", "D", 1), ("a", "z", "D", 2), ("b", "z", "D", 2)]
    prepared, _ = run(tmp_path, rows)
    assert prepared.manifest.report.tied_share == 2 / 4


def test_the_order_within_a_tie_follows_neither_the_file_nor_the_ids(tmp_path):
    rows = [(f"u{user}", f"i{item}", "D", 1) for user in range(100) for item in range(2)]
    _, dataset = run(tmp_path, rows)
    low_first = sum(events[0][0] == "i0" for events in events_of(dataset, "train").values())
    assert 30 < low_first < 70
    _, turned = run(tmp_path / "turned", rows[::-1])
    assert events_of(turned, "train") == events_of(dataset, "train")


def random_rows(seed, count=400):
    random.seed(seed)
    users, items, domains = [f"u{n}" for n in range(30)], [f"i{n}" for n in range(12)], ["D", "E", "F"]
    return [
        (random.choice(users), random.choice(items), random.choice(domains), random.randrange(300))
        for _ in range(count)
    ]


@pytest.mark.parametrize("options", [CUTS, {"split": "leave-one-out"}, {"repeats": "keep"} | CUTS])
def test_the_same_events_give_the_same_bytes_however_they_are_cut_ordered_and_stored(tmp_path, options):
    rows = [(*row, "interaction") for row in random_rows(1)]
    whole = [write(tmp_path / "whole.csv", rows)]
    random.shuffle(rows)
    (tmp_path / "elsewhere").mkdir()
    pieces = [write(tmp_path / f"elsewhere/{part}.csv", rows[part::3]) for part in (2, 0, 1)]
    for name, sources in (("one", whole), ("other", pieces), ("again", whole)):
        prepare(sources, tmp_path / name, PrepareOptions(min_item_events=3, **options))
    assert files_of(tmp_path / "one") == files_of(tmp_path / "other") == files_of(tmp_path / "again")


def test_nothing_after_the_cut_changes_a_byte_of_training(tmp_path):
    rows = random_rows(2)
    past = [row for row in rows if row[3] < 100]
    random.seed(3)
    future = [
        (random.choice(["u1", "u5", "aa", "zz"]), f"new{number % 7}", random.choice("ADZ"), 100 + number / 1000)
        for number in range(300)
    ]
    options = {"min_item_events": 2, "min_user_events": 3}
    run(tmp_path / "as-it-was", rows, **options)
    run(tmp_path / "other-future", [*future, *past], **options)
    run(tmp_path / "no-future", past, **options)
    before = training_files(tmp_path / "as-it-was/dataset")
    assert len(before) == 6
    assert before == training_files(tmp_path / "other-future/dataset") == training_files(tmp_path / "no-future/dataset")
    fingerprints = {
        open_dataset(tmp_path / name / "dataset").manifest.training_fingerprint
        for name in ("as-it-was", "other-future", "no-future")
    }
    assert len(fingerprints) == 1


def test_the_two_newest_events_of_each_user_change_no_byte_of_training_under_leave_one_out(tmp_path):
    rows = sorted(set(random_rows(4)), key=lambda row: (row[0], row[3]))
    seen, first = set(), []
    for user, item, domain, second in rows:
        if (user, item, domain) not in seen:
            first.append((user, item, domain, second))
            seen.add((user, item, domain))
    newest_last = {}
    for place, row in enumerate(first):
        # Distinct times, so that the newest two are the same two whatever the hash of their ids.
        newest_last.setdefault(row[0], []).append((*row[:3], place))
    changed = [
        event if place < len(history) - 2 else (event[0], f"new{place}", "Z", 10_000 + place)
        for history in newest_last.values()
        for place, event in enumerate(history)
    ]
    original = [event for history in newest_last.values() for event in history]
    run(tmp_path / "one", original, split="leave-one-out", min_item_events=2)
    run(tmp_path / "other", changed, split="leave-one-out", min_item_events=2)
    assert training_files(tmp_path / "one/dataset") == training_files(tmp_path / "other/dataset")
    assert files_of(tmp_path / "one/dataset") != files_of(tmp_path / "other/dataset")


def test_titles_and_categories_come_from_the_item_table_and_may_be_missing(tmp_path):
    table = tmp_path / "items.csv"
    table.write_text("item_id,domain,title,category,brand\nx,D,A title,Cat,B\nx,E,Other,,B\ny,D,,Cat,B\n")
    _, dataset = run(tmp_path, TWO_USERS, table)
    assert dataset.catalogue().select("item_id", "domain", "title", "category").rows() == [
        ("x", "D", "A title", "Cat"),
        ("y", "D", None, "Cat"),
        ("y", "E", None, None),
    ]


def test_an_item_table_without_a_required_column_is_refused(tmp_path):
    table = tmp_path / "items.csv"
    table.write_text("item_id,title\nx,A title\n")
    with pytest.raises(WorkFailed, match=r"items\.csv: no column domain"):
        run(tmp_path, TWO_USERS, table)
    assert not (tmp_path / "dataset").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows below the header"),
        ([("a", "x", "D", 1, "click")], "no event is left"),
        ([("a", "x", "D", 150)], "no training events are left"),
    ],
)
def test_events_that_leave_nothing_to_train_on_are_an_error(tmp_path, rows, message):
    with pytest.raises(WorkFailed, match=message):
        run(tmp_path, rows)
    assert not (tmp_path / "dataset").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"min_item_events": 0},
        {"validation_from": 1},
        {"validation_from": 2, "test_from": 1},
        {"split": "leave-one-out", **CUTS},
    ],
)
def test_options_that_cannot_be_meant_are_wrong_use(options):
    with pytest.raises(WrongUse):
        PrepareOptions(**options)
