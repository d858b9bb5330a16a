"""Assignment: the same for ever, in the shares asked for, independent where it must be, and unmoved by more traffic."""

import json
import random
import time
from collections import Counter
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from service.experiments.assignment import Assigner, Assignment
from service.experiments.definition import Experiment, Variant, changed

GOLDEN = Path(__file__).with_name("assignments.json")
NOW = 1_790_000_000


def running(key="one", others=(), **fields):
    variants = fields.pop("variants", (Variant("a"), Variant("b")))
    wanted = Experiment(key=key, variants=variants, state="running", **({"salt": f"salt of {key}"} | fields))
    return changed(None, wanted, others, NOW)


def assigner(*experiments, broken=()):
    return Assigner({one.key: one for one in experiments}, broken)


def variants_of(users, assign, key="one"):
    return [assign.assignment(key, user).variant for user in users]


def golden():
    """What is compared with the file: two layers, three arms, uneven weights, odd ids."""
    wide = running("wide", layer="search", variants=(Variant("a", 1), Variant("b", 2), Variant("c", 7)), salt="s-2026")
    half = running("half", traffic=0.5)
    third = running("third", [half], traffic=0.3, salt="ü\0")
    assign = assigner(wide, half, third)
    users = [*(f"u{n}" for n in range(200)), "", "ü", "\U0001f600", "\ud800", "a" * 256, "u\0", "0"]
    return {user: [[one.experiment, one.variant] for one in assign.assignments(user)] for user in users}


def test_users_stay_where_every_version_had_them():
    # The file is never made anew: a difference here moves people between arms of experiments that are running.
    assert golden() == json.loads(GOLDEN.read_text())


def test_reasons():
    one = running(traffic=0.5, overrides={"tester": "b"})
    stopped = changed(one, msgspec.structs.replace(one, state="stopped"), (), NOW)
    assign = assigner(one, broken=["torn"])
    reasons = Counter(assign.assignment("one", f"u{n}").reason for n in range(1000))
    assert reasons.keys() == {"SPLIT", "DISABLED"}
    assert assign.assignment("one", "tester") == Assignment("one", "b", "TARGETING_MATCH")
    assert assigner(stopped).assignment("one", "tester") == Assignment("one", None, "DISABLED")
    for key in ("torn", "nothing"):
        assert assign.assignment(key, "u1") == Assignment(key, None, "ERROR")
    assert assigner().assignments("u1") == []


def test_an_override_holds_in_its_layer_whatever_else_has_the_user():
    one = running("one", traffic=0.5)
    two = running("two", [one], traffic=0.5, overrides={f"u{n}": "a" for n in range(100)})
    for n in range(100):
        assert assigner(one, two).assignments(f"u{n}") == [Assignment("two", "a", "TARGETING_MATCH")]


def test_shares_of_a_million_users_are_those_of_the_weights_and_of_the_traffic():
    weights = (1, 2, 7)
    one = running(traffic=0.4, variants=tuple(Variant(f"v{w}", w) for w in weights))
    found = Counter(variants_of((f"user-{n}" for n in range(1_000_000)), assigner(one)))
    observed = [found[None], *(found[f"v{w}"] for w in weights)]
    expected = [600_000, *(40_000 * w for w in weights)]
    assert chisquare(observed, expected).pvalue > 0.001


def test_layers_and_salts_are_independent_and_a_salt_that_is_the_layers_name_too():
    users = [f"user-{n}" for n in range(100_000)]
    half = [running("x", traffic=0.5, layer="one"), running("y", traffic=0.5, layer="two")]
    pairs = [
        (variants_of(users, assigner(half[0]), "x"), variants_of(users, assigner(half[1]), "y")),
        (variants_of(users, assigner(running(salt="s"))), variants_of(users, assigner(running(salt="t")))),
        (
            [one is None for one in variants_of(users, assigner(running(traffic=0.5)))],
            variants_of(users, assigner(running(salt="default"))),
        ),
    ]
    for one, other in pairs:
        table = Counter(zip(one, other, strict=True))
        rows, columns = sorted(set(one), key=str), sorted(set(other), key=str)
        assert len(table) == len(rows) * len(columns)
        assert chi2_contingency([[table[row, column] for column in columns] for row in rows]).pvalue > 0.001


def test_more_traffic_moves_nobody_who_is_in():
    users = [f"user-{n}" for n in range(50_000)]
    other = running("other", traffic=0.3)
    before = running(traffic=0.1)
    after = changed(before, msgspec.structs.replace(before, traffic=0.5), [other], NOW)
    was, now = (variants_of(users, assigner(one)) for one in (before, after))
    assert all(new == old for old, new in zip(was, now, strict=True) if old is not None)
    assert sum(new is not None for new in now) / len(users) > 0.48


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from(["l1", "l2"]), st.integers(1, 2500)), min_size=1, max_size=4),
    st.lists(st.text(max_size=20), min_size=1, max_size=100),
)
def test_nobody_is_in_two_experiments_of_a_layer_and_all_ways_to_ask_agree(parts, users):
    experiments = []
    for number, (layer, size) in enumerate(parts):
        experiments.append(running(f"e{number}", experiments, layer=layer, traffic=size / 10_000))
    assign = assigner(*experiments)
    layer_of = {one.key: one.layer for one in experiments}
    for user in users:
        found = assign.assignments(user)
        layers = [layer_of[one.experiment] for one in found]
        assert len(layers) == len(set(layers))
        each = [assign.assignment(one.key, user) for one in experiments]
        assert {one.experiment: one for one in found} == {
            one.experiment: one for one in each if one.variant is not None
        }


def test_time_of_one_assignment_is_printed():
    assign = assigner(running(traffic=0.5), running("two", [running(traffic=0.5)], traffic=0.5))
    users = [f"user-{random.random()}" for _ in range(20_000)]
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for user in users:
            assign.assignments(user)
        best = min(best, time.perf_counter() - start)
    print(f"one assignment: {best / len(users) * 1e6:.2f} µs")
