"""Many simulated experiments at once, as the tests of the analysis need them."""

import numpy as np

from service.experiments.analysis.sums import Sums
from service.experiments.population import Population

MANY_DIFFERENT = Population(kappa=20)


def before_and_during(population, users, lift, rng, share_new=0.0):
    """One arm with the same users before exposure, as columns; those who did not come are not in it."""
    people = population.draw(users, rng)
    old = rng.random(users) >= share_new
    past, now = people.act(rng, time=old), people.act(rng, lift=lift)
    came = now["users"] > 0
    columns = now | {f"pre_{name}": values for name, values in past.items()}
    return {name: values[came] for name, values in columns.items()}


def arm(population, users, lift, rng, share_new=0.0):
    return Sums.of(before_and_during(population, users, lift, rng, share_new))


def rejected(effects, level=0.05):
    """Share of these that a test calls different."""
    return np.mean([effect.p < level for effect in effects])
