"""The loss of a global batch the slow and obvious way: one target after the other, formulas as in the paper."""

import math

import torch


def pairwise(user, positive, negative):
    """-log sigmoid(s+ - s-) of one target."""
    return -torch.log(torch.sigmoid(user @ positive - user @ negative))


def info_nce(single, cross, matrix, dim):
    """SC-MIM of one domain: lists of the same users' vectors.

    Minus the mean over users of rho(single_u, cross_u) - log sum_v exp rho(single_v, cross_u).
    """
    users = len(single)
    bounds = []
    for u in range(users):
        rho = [single[v] @ matrix @ cross[u] / math.sqrt(dim) for v in range(users)]
        bounds.append(rho[u] - torch.log(sum(torch.exp(value) for value in rho)))
    return -sum(bounds) / users


def mutual_information(single, cross, matrix, dim):
    """SC-MIM over domains; {domain: {user: vector}} for each task. Only domains with two users count."""
    counted = [
        info_nce(list(single[d].values()), [cross[d][u] for u in single[d]], matrix, dim)
        for d in single
        if len(single[d]) >= 2
    ]
    return sum(counted) / len(counted) if counted else torch.zeros((), dtype=matrix.dtype)


def gap_weights(average, temperature, floor):
    """w_d = D ((1 - floor) softmax(lambda / temperature)_d + floor / D), in plain Python."""
    raised = [math.exp(value / temperature) for value in average]
    return [len(raised) * ((1 - floor) * value / sum(raised) + floor / len(raised)) for value in raised]


def step_loss(targets, average, momentum, temperature, floor, eta, matrix, dim):
    """L, the gaps phi and the new lambda of a global batch.

    Args:
        targets: (user, domain, single vector, cross vector, positive vector, negative vector) of every target.
        average: lambda before the batch, one number per domain.
    """
    losses = [
        (user, domain, pairwise(single, positive, negative), pairwise(cross, positive, negative))
        for user, domain, single, cross, positive, negative in targets
    ]
    phi, average = [0.0] * len(average), list(average)
    for d in range(len(average)):
        gaps = [float((single - cross).detach()) for _, domain, single, cross in losses if domain == d]
        if gaps:
            phi[d] = sum(gaps) / len(gaps)
            average[d] = momentum * average[d] + (1 - momentum) * phi[d]
    weight = gap_weights(average, temperature, floor)
    total = sum(single + weight[domain] * cross for _, domain, single, cross in losses) / len(losses)
    means = []
    for place in (2, 3):  # single, cross
        vectors = {}
        for target in targets:
            vectors.setdefault(target[1], {}).setdefault(target[0], []).append(target[place])
        means.append({d: {u: sum(v) / len(v) for u, v in users.items()} for d, users in vectors.items()})
    return total + eta * mutual_information(means[0], means[1], matrix, dim), phi, average
