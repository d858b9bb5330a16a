import numpy as np
import polars as pl

from tests.reference.cases import CATALOGUE, SIZES, cases_of
from training.id_neighbours import id_neighbours

# By item index; in the order of ids the second domain is 6 8 7 9 10 … 17.
IDS = ["e", "d", "c", "b", "a", "9", "11", "10", *(str(number) for number in range(20, 29)), "x", "y", "z"]


def order(scorer, history, domain):
    """Items of the domain, best first."""
    (scores,) = scorer(cases_of((history, CATALOGUE.columns(domain).start)), domain)
    return (np.argsort(-scores, kind="stable") + CATALOGUE.columns(domain).start).tolist()


def test_the_next_higher_id_is_first_and_behind_the_highest_comes_the_lowest():
    neighbours = id_neighbours(pl.Series(IDS), CATALOGUE)
    assert order(neighbours.after, [4, 18], 0) == [3, 2, 1, 5, 4]  # the last of the domain is item 4, id b
    assert order(neighbours.before, [4, 18], 0) == [5, 1, 2, 3, 4]


def test_shorter_ids_are_lower_as_numbers_are():
    neighbours = id_neighbours(pl.Series(IDS), CATALOGUE)
    assert order(neighbours.after, [6], 1)[:3] == [8, 7, 9]  # 9, then 10, 11, 20
    assert order(neighbours.before, [6], 1)[:2] == [17, 16]


def test_without_an_event_of_the_domain_all_are_equal():
    neighbours = id_neighbours(pl.Series(IDS), CATALOGUE)
    scores = neighbours.after(cases_of(([1, 0], 7), ([1, 6], 7)), 1)
    assert (scores[0] == 0).all()
    assert len(np.unique(scores[1])) == SIZES[1]
