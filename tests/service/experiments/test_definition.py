"""Definitions: what cannot be meant, which changes each state allows, and how a layer's buckets are given out."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ChangeRefused, InvalidRequest
from service.experiments.definition import (
    BUCKETS,
    Blend,
    Experiment,
    Policy,
    Variant,
    as_json,
    buckets_of,
    changed,
    check,
    read_experiment,
    removable,
)

NOW = 1_790_000_000
DAY_S = 86_400
AB = (Variant("a"), Variant("b", policy=Policy(model_version="m2")))


def draft(key="one", **fields):
    return Experiment(key=key, **({"variants": AB, "salt": "s"} | fields))


def with_(experiment, **fields):
    return msgspec.structs.replace(experiment, **fields)


def started(key="one", others=(), **fields):
    return changed(None, draft(key, state="running", **fields), others, NOW)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"key": ":version"}, "key"),
        ({"key": ""}, "key"),
        ({"layer": "a b"}, "layer"),
        ({"variants": AB[:1]}, "variants"),
        ({"variants": ()}, "variants"),
        ({"variants": (Variant("a"), Variant("a"))}, r"variants\[1\].name"),
        ({"variants": (Variant("a"), Variant(""))}, r"variants\[1\].name"),
        ({"variants": (Variant("a", weight=0), Variant("b"))}, r"variants\[0\].weight"),
        ({"variants": (Variant("a", weight=float("nan")), Variant("b"))}, r"variants\[0\].weight"),
        ({"variants": (Variant("a", weight=1e8), Variant("b"))}, "variants: a weight is less than 1 of 10,000"),
        ({"variants": (Variant("a", policy=Policy(model_version="m", popularity=True)), Variant("b"))}, "policy"),
        ({"variants": (*AB, Variant("c")), "kind": "interleaving"}, "interleaving compares two"),
        ({"overrides": {"u1": "nobody"}}, "no variant is called 'nobody'"),
        ({"planned_end": "soon"}, "planned_end"),
        ({"planned_start": "2026-12-02", "planned_end": "2026-12-01"}, "planned_end: is not after"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(fields, named):
    with pytest.raises(InvalidRequest, match=named):
        check(with_(draft(), **fields))


def test_json_goes_there_and_back_and_says_which_field_is_wrong():
    variants = (Variant("a", policy=Policy(blend=Blend(share=0.2))), Variant("b", 3.0, Policy(popularity=True)))
    experiment = started(overrides={"u": "b"}, variants=variants, domains=("Books",), k=10)
    assert read_experiment(as_json(experiment)) == experiment
    assert b'"with":"popularity"' in as_json(experiment)
    for raw, named in (
        (b'{"key": 3, "variants": []}', "key"),
        (b'{"key": "k", "variants": [], "trafic": 1}', "trafic"),
    ):
        with pytest.raises(InvalidRequest, match=named):
            read_experiment(raw)
    with pytest.raises(InvalidRequest):
        read_experiment(b"\xff")


def test_a_draft_may_change_in_everything_and_keeps_its_salt():
    first = changed(None, draft(salt=""), (), NOW)
    assert len(first.salt) >= 16
    assert first.salt != changed(None, draft(salt=""), (), NOW).salt
    second = changed(first, draft(salt="", layer="other", traffic=0.1, kind="interleaving", k=3), (), NOW)
    assert (second.salt, second.layer, second.traffic, second.segments) == (first.salt, "other", 0.1, ())


def test_what_the_service_keeps_is_not_taken_from_the_caller():
    given = draft(started_at="2020-01-01", segments=((0, 5),), former_salts=("x",))
    made = changed(None, given, (), NOW)
    assert (made.started_at, made.segments, made.former_salts) == (None, (), ())
    running = started(traffic=0.5)
    again = changed(running, with_(running, segments=((0, BUCKETS),), started_at=None), (), NOW + 5)
    assert again == running


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"variants": (Variant("a", 2.0), AB[1])}, "variants .users would change arms"),
        ({"variants": (*AB, Variant("c"))}, "variants"),
        ({"salt": "t"}, "salt"),
        ({"layer": "other"}, "layer"),
        ({"kind": "interleaving"}, "kind"),
        ({"click_window_s": 5}, "click_window_s .what is measured"),
        ({"k": 5}, "k "),
        ({"domains": ("Books",)}, "domains"),
        ({"traffic": 0.4}, "only grow"),
        ({"state": "draft"}, "stop it"),
    ],
)
def test_while_running_what_decides_or_measures_may_not_change(fields, named):
    running = started(traffic=0.5)
    with pytest.raises(ChangeRefused, match=named):
        changed(running, with_(running, **fields), (), NOW)


def test_while_running_the_rest_may_change_and_each_change_is_noted():
    running = started(traffic=0.1)
    assert running.changes[-1].what == "started at 0.1"
    grown = changed(running, with_(running, traffic=0.5, planned_end="2026-12-01", overrides={"q": "b"}), (), NOW + 60)
    assert [change.what for change in grown.changes[1:]] == [
        "planned_end changed",
        "overrides changed",
        "traffic 0.1 to 0.5",
    ]
    assert grown.changes[-1].at == "2026-09-21T14:14:20+00:00"
    assert grown.started_at == running.started_at
    stopped = changed(grown, with_(grown, state="stopped"), (), NOW + 120)
    assert (stopped.stopped_at, stopped.segments) == ("2026-09-21T14:15:20+00:00", ())


def test_a_stopped_one_does_not_start_again_but_with_another_salt_on_a_later_day():
    running = started()
    stopped = changed(running, with_(running, state="stopped"), (), NOW)
    assert changed(stopped, stopped, (), NOW + 5) == stopped
    for fields in ({"state": "running"}, {"state": "draft"}, {"traffic": 0.5}):
        with pytest.raises(ChangeRefused, match="never started again"):
            changed(stopped, with_(stopped, **fields), (), NOW + 9 * DAY_S)
    with pytest.raises(ChangeRefused, match="tomorrow"):
        changed(stopped, with_(stopped, state="running", salt="t"), (), NOW)
    drafted = changed(stopped, with_(stopped, state="draft", salt="t"), (), NOW)
    with pytest.raises(ChangeRefused, match="tomorrow"):
        changed(drafted, with_(drafted, state="running"), (), NOW)
    with pytest.raises(ChangeRefused, match="ran with this salt before"):
        changed(drafted, with_(drafted, state="running", salt="s"), (), NOW + DAY_S)
    again = changed(drafted, with_(drafted, state="running"), (), NOW + DAY_S)
    assert (again.stopped_at, again.former_salts, again.salt) == (None, ("s",), "t")
    assert len(again.changes) > len(running.changes)


def test_only_a_started_one_can_be_stopped_and_only_a_running_one_must_be_before_it_is_removed():
    with pytest.raises(ChangeRefused, match="not been started"):
        changed(None, draft(state="stopped"), (), NOW)
    removable(draft())
    with pytest.raises(ChangeRefused, match="stop it first"):
        removable(started())


def buckets(experiment):
    return [bucket for first, end in experiment.segments for bucket in range(first, end)]


def test_experiments_of_a_layer_share_no_bucket_and_a_full_layer_says_how_much_is_left():
    one = started("one", traffic=0.3)
    two = started("two", [one], traffic=0.5)
    elsewhere = started("three", [one, two], traffic=1.0, layer="other", variants=(Variant("a"), Variant("b")))
    assert not set(buckets(one)) & set(buckets(two))
    assert (len(buckets(one)), len(buckets(two)), len(buckets(elsewhere))) == (3000, 5000, BUCKETS)
    with pytest.raises(
        ChangeRefused, match=r"layer 'default' has 20.00% of its users left, and 'four' needs 21.00% more"
    ):
        started("four", [one, two, elsewhere], traffic=0.21)
    with pytest.raises(ChangeRefused, match=r"20.00% of its users left, and 'one' needs 30.00% more"):
        changed(one, with_(one, traffic=0.6), [one, two], NOW)
    stopped = changed(two, with_(two, state="stopped"), [one, two], NOW)
    grown = changed(one, with_(one, traffic=1.0), [one, stopped], NOW)
    assert grown.segments == ((0, BUCKETS),)


def test_two_experiments_that_say_what_answers_share_a_layer_or_do_not_run_at_once():
    one = started("one", traffic=0.3)
    with pytest.raises(ChangeRefused, match="'one' of layer 'default' says what answers too"):
        started("two", [one], traffic=0.3, layer="other")
    started("two", [one], traffic=0.3)
    started("two", [one], traffic=0.3, layer="other", variants=(Variant("a"), Variant("b")))
    started("two", [changed(one, with_(one, state="stopped"), [one], NOW)], layer="other")


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 4000), st.booleans()), max_size=20))
def test_whatever_starts_grows_and_stops_buckets_have_one_owner_and_are_as_many_as_the_traffic(steps):
    known = {}
    for turn, (key, more, stops) in enumerate(steps):
        now = NOW + turn * DAY_S
        before = known.get(key)
        if before is None or before.state == "stopped":
            wanted = draft(key, state="running", salt=f"s{turn}", traffic=more / BUCKETS)
        elif stops:
            wanted = with_(before, state="stopped")
        else:
            wanted = with_(before, traffic=min(1.0, before.traffic + more / BUCKETS))
        try:
            after = changed(before, wanted, known.values(), now)
        except ChangeRefused:
            continue
        if before is not None and before.state == after.state == "running":
            assert set(buckets(before)) <= set(buckets(after))
        known[key] = after
        held = [bucket for one in known.values() for bucket in buckets(one)]
        assert len(held) == len(set(held))
        for one in known.values():
            assert len(buckets(one)) == (buckets_of(one) if one.state == "running" else 0)
