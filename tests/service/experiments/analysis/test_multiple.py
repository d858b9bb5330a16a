import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from service.experiments.analysis.multiple import holm
from service.experiments.analysis.ratio import CTR, compare
from tests.service.experiments.analysis.simulated import MANY_DIFFERENT, arm


def test_it_is_holms_procedure():
    rng = np.random.default_rng(0)
    for size in (1, 2, 10):
        p = {f"domain {i}": float(value) for i, value in enumerate(rng.beta(0.3, 1, size))}
        expected = multipletests(list(p.values()), method="holm")[1]
        assert list(holm(p).values()) == pytest.approx(list(expected))
    assert holm({}) == {}


def test_ten_domains_without_effect_seldom_alarm():
    """In about 40 % of experiments without adjustment, 5 % with it."""
    rng = np.random.default_rng(1)
    raw, kept = [], []
    for _ in range(150):
        p = {
            str(domain): compare(arm(MANY_DIFFERENT, 700, 0, rng), arm(MANY_DIFFERENT, 700, 0, rng), CTR).p
            for domain in range(10)
        }
        raw.append(min(p.values()) < 0.05)
        kept.append(min(holm(p).values()) < 0.05)
    assert np.mean(raw) > 0.25
    assert np.mean(kept) <= 0.06 + 0.02  # one standard error of 150 runs
