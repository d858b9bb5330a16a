"""Leave one domain out, by hand."""

import numpy as np

from training.estimators.left_out import missed


def test_what_a_domain_misses_is_summed_over_the_others():
    with_all = np.array([1.0, 2.0, 3.0])
    without = np.array([[99.0, 2.5, 3.0], [1.25, 99.0, 2.0], [0.5, 2.0, 99.0]])
    assert missed(with_all, without) == [-0.25, 0.5, -1.0]
