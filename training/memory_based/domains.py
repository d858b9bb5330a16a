"""Where the items of each domain stand."""

from training.dataset import Dataset


def columns_per_domain(dataset: Dataset) -> tuple[slice, ...]:
    """Item indices of every domain, in order."""
    numbers = range(1, len(dataset.domains) + 1)
    return tuple(slice(dataset.first_item(number), dataset.first_item(number + 1)) for number in numbers)
