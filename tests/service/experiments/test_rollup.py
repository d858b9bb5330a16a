"""Roll-up: equal to a slow and obvious count, whatever comes twice, late or in whichever order; one more day only."""

import random
import shutil
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from formats.errors import WorkFailed
from service.events.erased_files import erase_from_disk
from service.events.erasure import user_hash
from service.events.files import add_part, arrow_table, table_of
from service.events.served import ServedList, day_of
from service.experiments.rollup import EARLY_S, RollUpOptions, bucket_ends_ms, roll_up
from tests.service.events.rows import DAY, DAY_S, NOON, served, told

LATER = datetime.fromtimestamp(NOON, UTC) + timedelta(days=30)
OPTIONS = RollUpOptions(until=LATER, windows_s={"exp": 3600}, slow_ms=50)


def write(out, rows):
    """As several files in the order of the rows."""
    of_day = defaultdict(list)
    for row in rows:
        of_day[table_of(row), day_of(row)].append(row)
    for (table, day), of_one in of_day.items():
        middle = len(of_one) // 2
        for part in (of_one[:middle], of_one[middle:]):
            if part:
                add_part(out, table, day, arrow_table(table, part))


def table(out, name, day=DAY):
    return pq.ParquetFile(out / "rollup" / f"day={day}" / f"{name}.parquet").read().to_pylist()


def reference(rows, options):
    """users, ranks and items of all days together, counted one by one."""
    recommendations = {}
    for row in rows:
        if hasattr(row, "lists"):
            recommendations[row.recommendation_id, row.experiment] = row
    clicks = [row for row in rows if not hasattr(row, "lists") and row.event == "click"]
    users, ranks, items = defaultdict(Counter), defaultdict(Counter), defaultdict(Counter)
    for row in recommendations.values():
        made = int(row.recommendation_id.replace("-", "")[:12], 16) / 1000
        window = options.windows_s.get(row.experiment, options.default_window_s)
        if row.reason == "TARGETING_MATCH" or row.user_id == "" or made + window > options.until.timestamp():
            continue
        arm = (row.experiment, row.variant)
        all_clicked = 0
        request = Counter(
            requests=1,
            model_requests=int(row.source == "model" and not row.error),
            popularity_requests=int(row.source == "popularity" and not row.error),
            degraded_requests=int(row.source == "degraded" and not row.error),
            errors=int(row.error),
            slow_requests=int(row.latency_ms >= options.slow_ms),
            latency_sum=row.latency_ms,
        )
        for one in row.lists:
            clicked = set()
            for click in clicks:
                if click.recommendation_id != row.recommendation_id or click.domain != one.domain:
                    continue
                if not made - EARLY_S <= click.timestamp <= made + window or click.item_id not in one.item_ids:
                    continue
                place = one.item_ids.index(click.item_id) + 1
                if click.rank in {None, place}:
                    clicked.add(place)
            for place, item_id in enumerate(one.item_ids, 1):
                seen = Counter(shown=1, clicked=int(place in clicked))
                ranks[*arm, one.domain, place].update(seen)
                items[*arm, one.domain, item_id].update(seen)
            users[*arm, row.user_id, one.domain].update(
                request + Counter(impressions=len(one.item_ids), clicks=len(clicked))
            )
            all_clicked += len(clicked)
        shown = sum(len(one.item_ids) for one in row.lists)
        users[*arm, row.user_id, None].update(request + Counter(impressions=shown, clicks=all_clicked))
    return users, ranks, items


def summed(out, name, keys):
    totals = defaultdict(Counter)
    for folder in sorted((out / "rollup").glob("day=*")):
        for row in table(out, name, folder.name.removeprefix("day=")):
            place = tuple(row.pop(key) for key in keys)
            row.pop("day", None)
            totals[place].update(row)
    return totals


def without_zeros(totals):
    return {place: {name: n for name, n in counts.items() if n} for place, counts in totals.items()}


KEYS = {
    "users": ["experiment", "variant", "user_id", "domain"],
    "ranks": ["experiment", "variant", "domain", "rank"],
    "items": ["experiment", "variant", "domain", "item_id"],
}


def assert_equal_to_reference(out, rows, options):
    for (name, keys), expected in zip(KEYS.items(), reference(rows, options), strict=True):
        assert without_zeros(summed(out, name, keys)) == {
            place: pytest.approx(counts) for place, counts in without_zeros(expected).items()
        }


def log_of(seed, size):
    """Recommendations of a few users over two days, clicks of all sorts, some twice, in any order."""
    rng, rows = random.Random(seed), []
    for _ in range(size):
        lists = [
            ServedList(domain, [f"i{n}" for n in rng.sample(range(120), rng.choice([0, 1, 3, 10, 100]))])
            for domain in rng.sample(["Books", "Toys", "it's"], rng.randint(0, 2))
        ]
        variant = rng.choice([None, "a", "b"])
        row = served(
            f"u{rng.randrange(4)}",
            at=NOON - rng.randrange(2 * DAY_S),
            variant=variant,
            lists=lists,
            error=not lists and rng.random() < 0.5,
            source=rng.choice(["model", "popularity", "degraded"]),
            latency_ms=rng.choice([0.0, 0.5, 2.25, 50.0, 900.0]),
        )
        if variant and rng.random() < 0.1:
            row = served(
                row.user_id,
                recommendation_id=row.recommendation_id,
                variant=variant,
                lists=lists,
                reason="TARGETING_MATCH",
            )
        rows.append(row)
        if variant and rng.random() < 0.2:
            rows.append(
                served(
                    row.user_id, recommendation_id=row.recommendation_id, lists=lists, experiment="other", variant="x"
                )
            )
        made = int(row.recommendation_id.replace("-", "")[:12], 16) / 1000
        for one in lists:
            for _ in range(rng.randrange(4)):
                place = rng.randrange(max(1, len(one.item_ids)))
                item_id = rng.choice([*one.item_ids[place : place + 1], "never shown"])
                after = rng.choice([0, 5, 3600, 3601, 2 * DAY_S, -EARLY_S, -EARLY_S - 1])
                rank = rng.choice([None, place + 1, place + 2, 5000])
                event = rng.choice(["click", "click", "impression"])
                rows.append(
                    told(row, item_id, row.user_id, rank=rank, event=event, domain=one.domain, timestamp=made + after)
                )
        rows.append(told(None, rank=None))
    rows += rng.choices(rows, k=rng.randrange(10))
    rng.shuffle(rows)
    return rows


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(), st.integers(1, 25), st.sampled_from([LATER, datetime.fromtimestamp(NOON - 3600, UTC)]))
def test_it_is_what_counting_one_by_one_gives(tmp_path_factory, seed, size, until):
    rows = log_of(seed, size)
    out = tmp_path_factory.mktemp("log")
    write(out, rows)
    options = RollUpOptions(until=until, windows_s={"exp": 3600}, slow_ms=50)
    roll_up(out, options)
    assert_equal_to_reference(out, rows, options)
    logged = Counter((row.experiment, row.variant) for row in rows if hasattr(row, "lists"))
    arms = [row for folder in (out / "rollup").glob("day=*") for row in table(out, "arms", folder.name[4:])]
    assert sum(logged.values()) == sum(row["logged"] for row in arms)
    assert all(row["logged"] == row["recommendations"] + row["duplicates"] for row in arms)
    shutil.rmtree(out)


def a_log(seed=0, number=400):
    rng = random.Random(seed)
    rows = []
    for n in range(number):
        items = [f"i{i}" for i in rng.sample(range(50), 10)]
        row = served(
            f"u{rng.randrange(60)}",
            at=NOON + n / 10,
            variant=rng.choice("ab"),
            items=items,
            latency_ms=rng.random() * 100,
        )
        rows.append(row)
        rows += [told(row, item, row.user_id, rank=None, timestamp=NOON + n) for item in items if rng.random() < 0.1]
    return rows


def tables_of(out):
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted((out / "rollup").rglob("*.parquet"))}


def test_doubled_shuffled_and_in_other_files_the_tables_are_the_same_bytes(tmp_path):
    rows = a_log()
    write(tmp_path / "one", rows)
    again = rows * 2
    random.Random(1).shuffle(again)
    for place in range(0, len(again), 100):
        write(tmp_path / "two", again[place : place + 100])
    for name, threads in (("one", 1), ("two", 2)):
        roll_up(tmp_path / name, RollUpOptions(until=LATER, threads=threads))
    one, two = tables_of(tmp_path / "one"), tables_of(tmp_path / "two")
    arms = f"rollup/day={DAY}/arms.parquet"
    assert one.keys() == two.keys()
    assert {name for name in one if one[name] != two[name]} == {arms}  # which tells of duplicates
    for row, other in zip(table(tmp_path / "one", "arms"), table(tmp_path / "two", "arms"), strict=True):
        assert other == row | {"logged": 2 * row["logged"], "duplicates": row["recommendations"]}


def test_only_days_that_changed_are_counted_again(tmp_path):
    yesterday = served(at=NOON - DAY_S)
    write(tmp_path, [yesterday, served()])
    assert roll_up(tmp_path, OPTIONS) == ["2026-09-21", DAY]
    assert roll_up(tmp_path, OPTIONS) == []
    write(tmp_path, [served(at=NOON + DAY_S)])
    assert roll_up(tmp_path, OPTIONS) == ["2026-09-23"]
    write(tmp_path, [told(yesterday, after_s=-DAY_S + 10.0)])
    assert roll_up(tmp_path, OPTIONS) == ["2026-09-21"]
    assert [row["clicks"] for row in table(tmp_path, "users", "2026-09-21")] == [1, 1]
    assert roll_up(tmp_path, RollUpOptions(until=LATER, windows_s={"exp": 5}, slow_ms=50)) != []


def test_a_killed_roll_up_is_done_again(tmp_path):
    write(tmp_path, [served()])
    roll_up(tmp_path, OPTIONS)
    (tmp_path / "rollup" / f"day={DAY}" / "source.json").unlink()
    assert roll_up(tmp_path, OPTIONS) == [DAY]


def test_a_day_whose_files_are_gone_keeps_its_tables(tmp_path):
    write(tmp_path, [served()])
    roll_up(tmp_path, OPTIONS)
    before = tables_of(tmp_path)
    shutil.rmtree(tmp_path / "recommendations" / f"day={DAY}")
    assert roll_up(tmp_path, OPTIONS) == []
    assert tables_of(tmp_path) == before


def test_a_recommendation_counts_when_its_window_has_ended(tmp_path):
    row = served()
    write(tmp_path, [row, told(row)])
    for until, unfinished in ((NOON + 3599, 1), (NOON + 3600, 0)):
        options = RollUpOptions(until=datetime.fromtimestamp(until, UTC), windows_s={"exp": 3600})
        assert roll_up(tmp_path, options) == [DAY]
        [arm] = table(tmp_path, "arms")
        assert (arm["unfinished"], len(table(tmp_path, "users"))) == (unfinished, 2 - 2 * unfinished)


def test_clicks_that_cannot_count_are_told_by_what_is_wrong_with_them(tmp_path):
    row = served()
    write(
        tmp_path,
        [
            row,
            told(row, "i1", after_s=-EARLY_S - 1.0),
            told(row, "i1", after_s=3601.0),
            told(row, "i2", rank=3),
            told(row, "other", rank=None),
            told(row, domain="Toys"),
            told(served()),
        ],
    )
    roll_up(tmp_path, OPTIONS)
    nobodys, arm = table(tmp_path, "arms")
    assert (arm["early_clicks"], arm["late_clicks"], arm["unshown_clicks"], arm["unknown_clicks"]) == (1, 1, 2, 0)
    assert (nobodys["experiment"], nobodys["logged"], nobodys["unknown_clicks"]) == (None, 0, 2)
    assert all(not one["clicks"] for one in table(tmp_path, "users"))


def test_those_by_override_and_those_erased_are_counted_only_as_such(tmp_path):
    write(tmp_path, [served("tester", reason="TARGETING_MATCH"), served("me"), served("you")])
    erase_from_disk(tmp_path, {user_hash("me"): NOON * 1000})
    roll_up(tmp_path, OPTIONS)
    [arm] = table(tmp_path, "arms")
    assert (arm["logged"], arm["overridden"], arm["erased"]) == (3, 1, 1)
    assert {row["user_id"] for row in table(tmp_path, "users")} == {"you"}
    assert {row["shown"] for row in table(tmp_path, "ranks")} == {1}
    # An erasure reaches what was counted before it.
    erase_from_disk(tmp_path, {user_hash("you"): NOON * 1000})
    assert table(tmp_path, "users") == []


def test_the_histogram_gives_quantiles_to_a_tenth(tmp_path):
    rng = random.Random(3)
    latencies = sorted(rng.lognormvariate(2, 1) for _ in range(2000))
    write(tmp_path, [served(f"u{n}", latency_ms=latency) for n, latency in enumerate([*latencies, 0.0, 1e9])])
    roll_up(tmp_path, OPTIONS)
    histogram = dict(table(tmp_path, "arms")[0]["latency_histogram"])
    assert sum(histogram.values()) == 2002
    ends = bucket_ends_ms()
    for share in (0.5, 0.95, 0.99):
        target, seen = share * 2002, 0
        for bucket in sorted(histogram):
            seen += histogram[bucket]
            if seen >= target:
                break
        assert ends[bucket] == pytest.approx(latencies[int(target)], rel=0.1)


def test_a_broken_file_and_too_little_memory_are_one_clear_line(tmp_path):
    write(tmp_path, [served()])
    (tmp_path / "recommendations" / f"day={DAY}" / "part-x.parquet").write_bytes(b"torn")
    with pytest.raises(WorkFailed, match=rf"cannot roll up .*{DAY}: .*part-x") as error:
        roll_up(tmp_path, OPTIONS)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "rollup" / f"day={DAY}" / "source.json").exists()
