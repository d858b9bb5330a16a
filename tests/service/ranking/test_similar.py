"""Similar items by exact search, beside a slow loop over all items."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.bundle import read_bundle
from service.ranking.catalog import NO_ITEMS, read_catalog
from service.ranking.similar import OF_PLACE, open_similar
from tests.service.small_bundle import DIM, DOMAINS, ITEMS_IN_ALL, all_items, make_bundle, neighbours, unit_vectors

# Products of these are exact in float32, whatever the order of summing, so that ties are ties.
EXACT = [
    [0.0] * DIM,
    *np.eye(DIM).tolist(),
    *(-np.eye(DIM)).tolist(),
    [0.5, 0.5, 0.5, 0.5, 0.0, 0.0],
    [0.5, -0.5, 0.5, -0.5, 0.0, 0.0],
    [0.0, 0.0, 0.5, 0.5, 0.5, 0.5],
]


def opened(models, **options):
    bundle = read_bundle(make_bundle(models, **options).path)
    return open_similar(bundle, read_catalog(bundle))


@pytest.fixture(scope="module")
def similar(tmp_path_factory):
    return opened(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """Few different vectors: nearly everything ties; about one item in sixteen has none."""
    drawn = np.random.default_rng(3).integers(0, len(EXACT), ITEMS_IN_ALL)
    drawn[:2] = 0, 1
    return opened(tmp_path_factory.mktemp("models"), vectors=np.array(EXACT, dtype=np.float32)[drawn])


def array(*item_index):
    return np.array(item_index, dtype=np.int32)


def reference(vectors, item_index, domain, k, exclude=()):
    """Item indices and scores, best first: one item after the other."""
    own, near = vectors[item_index - 1], neighbours()[item_index - 1].tolist()
    found = []
    for index, (name, _) in enumerate(all_items(), start=1):
        if name == domain and index != item_index and index not in exclude:
            score = np.float32(own @ vectors[index - 1])
            for row in near:
                if index in row:
                    score += np.float32(1 - row.index(index) / len(row))
            found.append((-score, index))
    return [(index, -score) for score, index in sorted(found)[:k]]


@pytest.mark.parametrize("item_index", [1, 4, 40, 41, 65, 66, 70])
def test_the_nearest_items_of_every_domain_are_those_of_a_loop_over_all_items(similar, item_index):
    lists = similar.to(item_index, list(DOMAINS), 10, NO_ITEMS)
    for domain, answer in zip(DOMAINS, lists, strict=True):
        wanted = reference(unit_vectors(), item_index, domain, 10)
        assert answer.item_index == [index for index, _ in wanted]
        np.testing.assert_allclose(answer.scores, [score for _, score in wanted], atol=1e-6)
        assert answer.scores.dtype == np.float32


def test_domains_are_answered_in_the_order_asked(similar):
    turned = similar.to(5, ["Games", "Books"], 3, NO_ITEMS)
    [books], [games] = similar.to(5, ["Books"], 3, NO_ITEMS), similar.to(5, ["Games"], 3, NO_ITEMS)
    assert [answer.item_index for answer in turned] == [games.item_index, books.item_index]
    assert similar.to(5, [], 3, NO_ITEMS) == []


def test_an_item_of_the_same_id_in_another_domain_is_another_item(similar):
    catalog = similar.catalog
    books, toys = catalog.item_index("Books", "both"), catalog.item_index("Toys", "both")
    [found] = similar.to(books, ["Toys"], 100, NO_ITEMS)
    assert toys in found.item_index


def test_excluding_the_first_items_brings_the_next_ones(similar):
    [whole] = similar.to(7, ["Books"], 20, NO_ITEMS)
    [rest] = similar.to(7, ["Books"], 10, array(*whole.item_index[:10]))
    assert rest.item_index == whole.item_index[10:]


def test_a_list_is_as_long_as_the_domain_allows_and_no_longer(similar):
    [games] = similar.to(66, ["Games"], 100, NO_ITEMS)
    assert sorted(games.item_index) == [67, 68, 69, 70]
    [none] = similar.to(66, ["Games"], 100, array(67, 68, 69, 70, 67, 0, 1))
    assert none.item_index == []
    assert len(none.scores) == 0


def test_neighbours_come_before_what_is_as_near_by_its_vector_and_equal_items_in_order_of_index(tmp_path):
    one = opened(tmp_path, vectors=np.tile(np.eye(DIM, dtype=np.float32)[0], (ITEMS_IN_ALL, 1)))
    near = [index for index in neighbours()[2, 0].tolist() if index not in {0, 3}]
    assert len(near) > 1
    assert near != sorted(near)
    [books] = one.to(3, ["Books"], 100, array(near[0]))
    assert books.item_index == near[1:] + [index for index in range(1, 41) if index not in {*near, 3}]
    assert books.scores[-1] == 1
    assert books.scores[0] == 1 + OF_PLACE[neighbours()[2, 0].tolist().index(near[1])]


def test_equal_vectors_have_equal_scores_wherever_they_stand(tmp_path):
    """Whatever the last bit of a sum is, it is the same for both."""
    drawn = np.random.default_rng(5).integers(0, 4, ITEMS_IN_ALL)
    one = opened(tmp_path, vectors=unit_vectors()[drawn])
    near = {*neighbours()[0].flatten().tolist(), 1}
    for answer in one.to(1, list(DOMAINS), 100, NO_ITEMS):
        groups = {}
        for index, score in zip(answer.item_index, answer.scores.tolist(), strict=True):
            if index not in near:
                groups.setdefault(score, []).append(index)
        assert len(groups) <= 4
        assert all(indices == sorted(indices) for indices in groups.values())


def test_an_item_without_a_vector_is_neither_like_nor_unlike_another(exact):
    assert not exact.vectors[0].any()
    [toys] = exact.to(1, ["Toys"], 100, NO_ITEMS)
    near = [index for index in neighbours()[0, 1].tolist() if index]
    assert toys.item_index == near + [index for index in range(41, 66) if index not in near]
    assert not toys.scores[len(near) :].any()


@given(data=st.data())
def test_whatever_is_asked_the_answer_is_that_of_the_loop(exact, data):
    item_index = data.draw(st.integers(1, ITEMS_IN_ALL), label="item_index")
    domains = data.draw(st.lists(st.sampled_from(list(DOMAINS)), max_size=4), label="domains")
    k = data.draw(st.integers(1, 100), label="k")
    exclude = data.draw(st.lists(st.integers(0, ITEMS_IN_ALL), max_size=80), label="exclude")
    lists = exact.to(item_index, domains, k, array(*exclude))
    for domain, answer in zip(domains, lists, strict=True):
        wanted = reference(exact.vectors, item_index, domain, k, set(exclude))
        assert list(zip(answer.item_index, answer.scores.tolist(), strict=True)) == wanted


@pytest.mark.parametrize("item_index", [0, -1, ITEMS_IN_ALL + 1])
def test_an_index_outside_the_catalogue_is_a_mistake_and_no_other_items_answer(similar, item_index):
    with pytest.raises(IndexError, match="the catalogue has 1 to 70"):
        similar.to(item_index, ["Books"], 10, NO_ITEMS)


def test_asking_changes_nothing(similar):
    exclude = array(2, 3)
    first = similar.to(1, ["Books"], 5, exclude)
    again = similar.to(1, ["Books"], 5, exclude)
    assert first[0].item_index == again[0].item_index
    assert exclude.tolist() == [2, 3]


def test_a_bundle_without_vectors_knows_no_similar_items(tmp_path):
    assert opened(tmp_path, vectors=None) is None
