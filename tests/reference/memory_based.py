"""Recommenders without training, the slow and obvious way: loops over users, events and items."""

import math
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np

from tests.reference.datasets import write_dataset
from training.manifest import PARTS

DAY = 86_400 * 10**6
FIRST_DAY = 16_000  # since 1970


def write_timed_dataset(folder, items_per_domain, train, validation=(), test=(), context=()):
    """Like `write_dataset`, of (event, days since FIRST_DAY) in place of events."""
    given = {"train": train, "context": context, "validation": validation, "test": test}
    events = {name: [[event for event, _ in row] for row in rows] for name, rows in given.items()}
    dataset = write_dataset(folder, items_per_domain, **events)
    tables = {}
    for name in PARTS:
        days = np.array([days for row in given[name] for _, days in row], dtype=np.float64)
        timestamp = FIRST_DAY * DAY + np.round(days * DAY).astype(np.int64)
        tables[name] = replace(dataset.part(name), timestamp=timestamp)
    return replace(dataset, **tables)


def random_timed_dataset(folder, seed):
    """Three domains, one of a single item; ties in time; every kind of user and event that there is.

    User 0 is without training events, user 1 has events of one domain only, the last two are new in validation and in test.
    The last item of the second domain is in no training event. Days are whole numbers, so that sums of weights that halve
    every day are exact.
    """
    random = np.random.default_rng(seed)
    sizes = {"Books": 9, "Games": 6, "Toys": 1}
    unknown = [(0, 1), (0, 2), (0, 3)]

    def rows(users, longest, first, last, items):
        def row():
            days = np.sort(random.integers(first, last, random.integers(0, longest + 1)))
            return [(items[random.integers(len(items))], int(day)) for day in days]

        return [row() for _ in range(users)]

    known = [item for item in range(1, 17) if item != 15]
    train = [[], *rows(1, 8, 0, 20, [1, 2, 3]), *rows(10, 8, 0, 20, known)]
    later = [*known, 15, *unknown]
    return write_timed_dataset(
        folder,
        sizes,
        train=train,
        context=[*([] for _ in range(12)), [(3, 4), ((0, 1), 5), (11, 5)]],
        validation=[*rows(12, 4, 20, 25, later), [], [((0, 2), 21), (4, 22), (4, 23)]],
        test=[*rows(14, 3, 25, 30, later), [((0, 3), 26), (16, 27), (1, 27)]],
    )


def days_of(dataset, part):
    """Per user, (item index, days since FIRST_DAY) of one part, oldest first."""
    table = dataset.part(part)
    return [
        [
            (int(item), (int(time) - FIRST_DAY * DAY) / DAY)
            for item, time in zip(table.item_index[table.of_user(u)], table.timestamp[table.of_user(u)], strict=True)
        ]
        for u in range(table.users)
    ]


def items_of(dataset, domain):
    """Item indices of a domain, 0-based."""
    return range(dataset.first_item(domain + 1), dataset.first_item(domain + 2))


def domain_of(dataset, item):
    """0-based."""
    return int(dataset.item_domain()[item]) - 1


def day_of(cases, case):
    """When a case happened, in days since FIRST_DAY."""
    return (int(cases.timestamp[cases.position[case]]) - FIRST_DAY * DAY) / DAY


def newest(cases, case, readable, longest):
    """(item, age in days) of the events of a history with these items, newest first."""
    places = range(cases.start[case], cases.position[case])
    now = int(cases.timestamp[cases.position[case]])
    events = [(int(cases.item_index[place]), (now - int(cases.timestamp[place])) / DAY) for place in places]
    return [(item, age) for item, age in reversed(events) if item in readable][:longest]


def recent_popularity(dataset, cases, case, domain, weight):
    """Scores of one case; `weight` says what an event of so many whole days ago counts."""
    today = day_of(cases, case) // 1
    scores = Counter()
    for part in PARTS:
        for row in days_of(dataset, part):
            for item, day in row:
                if day // 1 < today:
                    scores[item] += weight(today - day // 1)
    return [scores[item] for item in items_of(dataset, domain)]


def neighbours(dataset, config, places=50):
    """item -> {neighbour: weight}, the strongest of every domain."""
    weights, counts = defaultdict(Counter), Counter()
    for row in days_of(dataset, "train"):
        counts.update(item for item, _ in row)
        for i in range(len(row)):
            for j in range(len(row)):
                (a, day), (b, other_day) = row[i], row[j]
                related = config.cross_domain or domain_of(dataset, a) == domain_of(dataset, b)
                if a != b and abs(i - j) <= places and related:
                    decay = config.pair_decay
                    fading = (1 - decay.floor) * 0.5 ** (abs(day - other_day) / decay.half_life_days)
                    weights[a][b] += decay.floor + fading
    kept = defaultdict(dict)
    for a, row in weights.items():
        damped = {b: weight / (counts[a] ** config.damping * counts[b] ** config.damping) for b, weight in row.items()}
        for domain in range(len(dataset.domains)):
            own = sorted((-weight, b) for b, weight in damped.items() if b in items_of(dataset, domain))
            kept[a].update({b: -weight for weight, b in own[: config.neighbours]})
    return kept


def item_knn(dataset, config, kept, cases, case, domain, history_weight):
    """Scores of one case from the kept neighbours; `history_weight(age in days, place)` says what an event of the history counts."""
    readable = range(1, dataset.items + 1) if config.cross_domain else items_of(dataset, domain)
    scores = Counter()
    for place, (item, age) in enumerate(newest(cases, case, readable, config.history)):
        for neighbour, weight in kept[item].items():
            scores[neighbour] += history_weight(age, place) * weight
    return [scores[item] for item in items_of(dataset, domain)]


def ease(dataset, config, cases, case, domain):
    """Scores of one case by the algorithm as printed (Steck 2019, figure 1), on the items that max_items leaves."""
    users = [{item for item, _ in row} & set(items_of(dataset, domain)) for row in days_of(dataset, "train")]
    popularity = Counter(item for user in users for item in user)
    modelled = list(items_of(dataset, domain))
    if len(modelled) > config.max_items and sum(map(bool, users)) > config.max_items:
        modelled = sorted(modelled, key=lambda item: (-popularity[item], item))[: config.max_items]
    x = np.array([[float(item in user) for item in modelled] for user in users])
    p = np.linalg.inv(x.T @ x + config.regularization * np.eye(len(modelled)))
    b = p / -np.diag(p)
    np.fill_diagonal(b, 0)
    history = {item for item, _ in newest(cases, case, items_of(dataset, domain), None)}
    scores = np.array([float(item in history) for item in modelled]) @ b
    found = dict(zip(modelled, scores, strict=True))
    most = max(popularity.values(), default=0)
    below = {item: min(scores) - 1 + popularity[item] / (most + 1) for item in items_of(dataset, domain)}
    return [found.get(item, below[item]) for item in items_of(dataset, domain)]


def sessions_of(dataset, config, readable):
    """Training sessions, the most recent first, of equally recent ones those of the later user and then the newer first."""
    found = []
    for user, row in enumerate(days_of(dataset, "train")):
        events = [(item, day) for item, day in row if item in readable]
        while events:
            found.append((events[-1][1], user, len(events), {item for item, _ in events[-config.session :]}))
            events = events[: -config.session]
    return [items for _, _, _, items in sorted(found, key=lambda session: session[:3], reverse=True)]


def v_sknn(dataset, config, cases, case, domain):
    """Scores of one case."""
    readable = range(1, dataset.items + 1) if config.cross_domain else items_of(dataset, domain)
    sessions = sessions_of(dataset, config, readable)
    own = [item for item, _ in newest(cases, case, readable, config.session)]  # newest first
    position = {}
    for place, item in reversed(list(enumerate(own, start=1))):
        position[item] = len(own) + 1 - place  # the newest of an item counts
    compared = [session for session in sessions if session & set(own)][: config.sample]
    # One division, so that what is equal is equal to the bit.
    similar = [sum(position[item] for item in session & set(own)) / (len(own) * len(position)) for session in compared]
    nearest = sorted(range(len(compared)), key=lambda number: (-similar[number], number))[: config.neighbours]
    scores = Counter()
    for number in nearest:
        step = min(place for place, item in enumerate(own, start=1) if item in compared[number])
        for item in compared[number]:
            idf = math.log(len(sessions) / sum(item in session for session in sessions))
            scores[item] += similar[number] / step * (1 + config.idf_weight * idf)
    return [scores[item] for item in items_of(dataset, domain)]
