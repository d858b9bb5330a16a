"""POST /recommend over real HTTP, a real Redis and the real ONNX Runtime, against a slow reference."""

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.service.small_bundle import CATEGORIES, DOMAINS, MAX_HISTORY, all_items, ids, make_bundle, reference_list

HISTORY = [("Books", "B4"), ("Toys", "T9"), ("Games", "G1"), ("Books", "B20")]


def index_of(item):
    return all_items().index(item) + 1


def category_of(item):
    return CATEGORIES[(index_of(item) - 1) % 3]


def expected(history, domain, k=10, excluded=(), allowed=None):
    """What the reference answers in one domain: (item_id, score), best first."""
    return reference_list([index_of(item) for item in history], domain, k, excluded, allowed)


def popular(domain, k=10, excluded=(), allowed=None):
    """The most popular items of a domain: those with the lowest index."""
    kept = [i for i in ids(domain) if i not in excluded and (allowed is None or i in allowed)]
    return kept[:k]


def listed(answer, domain):
    return [item["item_id"] for item in answer["domains"][domain]]


def seen_in(history, domain):
    return {item_id for name, item_id in history if name == domain}


def as_events(history):
    return [{"domain": domain, "item_id": item_id} for domain, item_id in history]


def test_a_stored_history_is_answered_by_the_model_as_the_reference_says(service, store):
    store("u1", HISTORY)
    response = service.recommend(user_id="u1")
    assert response.status_code == 200
    answer = response.json()
    assert answer["source"] == "model"
    assert answer["model_version"] == "small-1"
    assert answer["user_id"] == "u1"
    assert answer["experiment"] is None
    assert answer["missing_ids"] == []
    assert list(answer["domains"]) == list(DOMAINS)
    for domain in DOMAINS:
        wanted = expected(HISTORY, domain, excluded=seen_in(HISTORY, domain))
        assert listed(answer, domain) == [item_id for item_id, _ in wanted]
        scores = [item["score"] for item in answer["domains"][domain]]
        np.testing.assert_allclose(scores, [score for _, score in wanted], rtol=1e-5, atol=1e-6)
        assert [item["rank"] for item in answer["domains"][domain]] == list(range(1, len(wanted) + 1))


def test_recommendation_ids_are_uuids_of_version_7_in_order_of_time(service):
    made = [service.recommend(user_id="u").json()["recommendation_id"] for _ in range(5)]
    assert all(
        re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", one) for one in made
    )
    assert len(set(made)) == 5
    assert [one[:13] for one in made] == sorted(one[:13] for one in made)


def test_an_unknown_user_gets_the_most_popular_items_and_source_says_so(service):
    answer = service.recommend(user_id="nobody", k=3).json()
    assert answer["source"] == "popularity"
    for domain, count in DOMAINS.items():
        assert listed(answer, domain) == popular(domain, 3)
        # How often they were chosen, as seven days' half-life has it; equal ratios to begin with.
        scores = np.array([item["score"] for item in answer["domains"][domain]])
        np.testing.assert_allclose(scores / scores[0], np.array([count, count - 1, count - 2]) / count, rtol=1e-3)


def test_a_history_of_unknown_items_alone_is_answered_by_popularity(service, store):
    store("u1", [("Books", "gone"), ("Garden", "spade")])
    assert service.recommend(user_id="u1").json()["source"] == "popularity"


def test_unknown_items_in_a_stored_history_are_skipped(service, store):
    store("u1", [("Books", "gone"), *HISTORY, ("Garden", "spade")])
    answer = service.recommend(user_id="u1", domains=["Toys"]).json()
    assert answer["source"] == "model"
    assert listed(answer, "Toys") == [item_id for item_id, _ in expected(HISTORY, "Toys", excluded={"T9"})]


def test_titles_come_with_items_that_have_one(service):
    books = service.recommend(user_id="u").json()["domains"]["Books"]
    assert books[1]["title"] == 'Title "B1" é'
    assert "title" not in books[0]


def test_domains_are_answered_as_asked_for_in_that_order_and_once(service):
    answer = service.recommend(user_id="u", domains=["Toys", "Books", "Toys"]).json()
    assert list(answer["domains"]) == ["Toys", "Books"]


@pytest.mark.parametrize("k", [1, 7, 100])
def test_k_items_come_per_domain_as_far_as_there_are_any(service, store, k):
    store("u1", HISTORY)
    answer = service.recommend(user_id="u1", k=k).json()
    for domain, count in DOMAINS.items():
        assert len(answer["domains"][domain]) == min(k, count - len(seen_in(HISTORY, domain)))


def test_seen_items_come_back_only_when_asked_for(service, store):
    store("u1", HISTORY)
    answer = service.recommend(user_id="u1", k=100, exclude_seen=False).json()
    for domain in DOMAINS:
        assert sorted(listed(answer, domain)) == sorted(ids(domain))


def test_seen_items_beyond_the_window_of_the_model_are_excluded_too(service, store):
    history = [("Books", item_id) for item_id in ids("Books")[: MAX_HISTORY * 3]]
    store("u1", history)
    answer = service.recommend(user_id="u1", domains=["Books"], k=100).json()
    assert not seen_in(history, "Books") & set(listed(answer, "Books"))
    assert listed(answer, "Books") == [i for i, _ in expected(history, "Books", 100, seen_in(history, "Books"))]


def test_an_excluded_id_is_left_out_in_every_domain_that_has_it(service, store):
    store("u1", HISTORY)
    answer = service.recommend(user_id="u1", k=100, exclude_item_ids=["both", "B7", "nothing"]).json()
    assert answer["missing_ids"] == ["nothing"]
    assert not {"both", "B7"} & set(listed(answer, "Books"))
    assert "both" not in listed(answer, "Toys")


def test_a_history_in_the_request_is_used_instead_of_the_stored_one_and_not_stored(service, store):
    store("u1", HISTORY)
    given_history = [("Toys", "T1"), ("Books", "B2")]
    answer = service.recommend(user_id="u1", domains=["Books"], history=as_events(given_history)).json()
    assert answer["source"] == "model"
    assert listed(answer, "Books") == [i for i, _ in expected(given_history, "Books", excluded={"B2"})]
    again = service.recommend(user_id="u1", domains=["Books"]).json()
    assert listed(again, "Books") == [i for i, _ in expected(HISTORY, "Books", excluded={"B4", "B20"})]


def test_an_empty_history_in_the_request_is_answered_by_popularity(service, store):
    store("u1", HISTORY)
    answer = service.recommend(user_id="u1", history=[]).json()
    assert answer["source"] == "popularity"
    assert listed(answer, "Books") == popular("Books")


def test_events_of_a_given_history_are_ordered_by_their_times(service):
    newest_last = [("Books", ids("Books")[place]) for place in range(MAX_HISTORY + 3)]
    times = [1_700_000_000 + place for place in range(len(newest_last))]
    events = [dict(event, timestamp=time) for event, time in zip(as_events(newest_last), times, strict=True)]
    events[2]["timestamp"] = "2023-11-14T22:13:22Z"  # 1700000002
    events[4]["timestamp"] = "2023-11-15T00:13:24+02:00"  # 1700000004
    answer = service.recommend(user_id="u", domains=["Toys"], history=events[::-1]).json()
    assert listed(answer, "Toys") == [i for i, _ in expected(newest_last, "Toys")]


def test_events_without_times_count_in_the_order_given(service):
    newest_last = [("Books", ids("Books")[place]) for place in range(MAX_HISTORY + 3)]
    answer = service.recommend(user_id="u", domains=["Toys"], history=as_events(newest_last)).json()
    assert listed(answer, "Toys") == [i for i, _ in expected(newest_last, "Toys")]


def test_unknown_items_of_the_request_are_named_once_each(service):
    history = [*as_events(HISTORY), {"domain": "Books", "item_id": "x"}, {"domain": "Toys", "item_id": "x"}]
    answer = service.recommend(
        user_id="u", history=history, candidates={"Books": ["y", "B1"]}, exclude_item_ids=["z", "x"]
    ).json()
    assert sorted(answer["missing_ids"]) == ["x", "y", "z"]
    assert listed(answer, "Books") == ["B1"]


@pytest.mark.parametrize("user_id", ["u1", "nobody"])
def test_candidates_restrict_their_domain_alone(service, store, user_id):
    store("u1", HISTORY)
    candidates = ["B30", "B4", "B11", "both"]
    answer = service.recommend(user_id=user_id, candidates={"Books": candidates, "Games": []}).json()
    if user_id == "u1":
        assert listed(answer, "Books") == [i for i, _ in expected(HISTORY, "Books", 10, {"B4"}, candidates)]
        assert listed(answer, "Toys") == [i for i, _ in expected(HISTORY, "Toys", 10, {"T9"})]
    else:
        assert listed(answer, "Books") == popular("Books", 10, (), candidates)
        assert listed(answer, "Toys") == popular("Toys")
    assert listed(answer, "Games") == []


@pytest.mark.parametrize("user_id", ["u1", "nobody"])
def test_only_items_of_the_categories_are_answered(service, store, user_id):
    store("u1", HISTORY)
    answer = service.recommend(user_id=user_id, k=100, categories=["red", "blue", "violet"]).json()
    for domain in DOMAINS:
        allowed = {
            item_id for name, item_id in all_items() if name == domain and category_of((name, item_id)) != "green"
        }
        seen = seen_in(HISTORY, domain) if user_id == "u1" else set()
        assert set(listed(answer, domain)) == allowed - seen


def test_a_category_that_no_item_has_leaves_empty_lists(service):
    answer = service.recommend(user_id="u", categories=["violet"]).json()
    assert answer["domains"] == {domain: [] for domain in DOMAINS}


def test_categories_without_a_category_column_are_refused(tmp_path, redis_url):
    from tests.service.running import serve

    make_bundle(tmp_path, categories=False, titles=False)
    with serve(models_dir=tmp_path, redis_url=redis_url) as plain:
        refused = plain.recommend(user_id="u", categories=["red"])
        assert refused.status_code == 422
        assert refused.json()["errors"] == [
            {"field": "categories", "detail": "the served bundle has no categories to filter by"}
        ]
        assert "title" not in plain.recommend(user_id="u").text


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"domains": ["Books", "Bokos"]}, "domains[1]"),
        ({"candidates": {"Bokos": []}}, "candidates.Bokos"),
        ({"history": [{"item_id": "B1", "domain": "Bokos"}]}, "history[0].domain"),
    ],
)
def test_an_unknown_domain_is_named_with_the_known_ones(service, body, field):
    refused = service.recommend(user_id="u", **body)
    assert refused.status_code == 422
    problem = refused.json()
    assert problem["errors"] == [{"field": field, "detail": "unknown domain 'Bokos'; known: Books, Toys, Games"}]
    assert problem["type"].endswith("unknown-domain")


def test_a_time_that_is_none_is_named(service):
    refused = service.recommend(user_id="u", history=[{"item_id": "B1", "domain": "Books", "timestamp": "yesterday"}])
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "history[0].timestamp"


BIG = [item for item in all_items() if item[0] != "Games"]


@given(
    left=st.lists(st.sampled_from(BIG), max_size=6, unique=True),
    excluded=st.lists(st.sampled_from(ids("Books")), max_size=3),
    candidates=st.none() | st.lists(st.sampled_from(ids("Books")), max_size=40, unique=True),
    categories=st.lists(st.sampled_from(CATEGORIES), max_size=2, unique=True),
    k=st.integers(1, 100),
    stored=st.booleans(),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_filters_never_shorten_a_list_while_candidates_are_left(
    service, store, left, excluded, candidates, categories, k, stored
):
    """A user who has seen almost everything; brute force says what is left, for the model and for popularity alike."""
    history = [item for item in all_items() if item not in left]
    body = {"user_id": "u", "k": k, "exclude_item_ids": excluded, "categories": categories}
    if candidates is not None:
        body["candidates"] = {"Books": candidates}
    if stored:
        store("u", history)
    else:
        # By popularity: nothing seen, but all of it excluded by name.
        body |= {"user_id": "nobody", "exclude_item_ids": [*excluded, *{item_id for _, item_id in history}]}
    answer = service.recommend(**body).json()
    assert answer["source"] == ("model" if stored else "popularity")
    by_name = set(body["exclude_item_ids"])
    for domain in DOMAINS:
        seen = seen_in(history, domain) if stored else set()
        allowed = [
            item_id
            for item_id in ids(domain)
            if item_id not in seen | by_name
            and (domain != "Books" or candidates is None or item_id in candidates)
            and (not categories or category_of((domain, item_id)) in categories)
        ]
        wanted = (
            [i for i, _ in expected(history, domain, k, (), allowed)] if stored else popular(domain, k, (), allowed)
        )
        assert listed(answer, domain) == wanted
