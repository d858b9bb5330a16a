import json
import shutil

import numpy as np
import polars as pl
import pytest

from formats.errors import WorkFailed
from formats.events import EventSource
from training.cases import contexts
from training.dataset import open_dataset
from training.manifest import PARTS
from training.prepare import PrepareOptions, prepare

SECOND = 1_000_000


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset with every kind of user: in all parts, below the threshold, new in validation, new in test."""
    folder = tmp_path_factory.mktemp("dataset")
    random = np.random.default_rng(0)
    rows = {
        (f"u{user}", f"i{random.integers(30)}", "DEF"[random.integers(3)], second)
        for user in range(40)
        for second in random.integers(0 if user % 4 else 90, 300 if user % 3 else 200, 1 + user % 9)
    }
    frame = pl.DataFrame(sorted(rows), ["user_id", "item_id", "domain", "timestamp"], orient="row")
    frame.write_parquet(folder / "events.parquet")
    options = PrepareOptions(validation_from=100 * SECOND, test_from=200 * SECOND, repeats="keep")
    prepare([EventSource(folder / "events.parquet")], folder / "made", options)
    return folder / "made"


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copy")


def test_every_kind_of_user_is_there(made):
    counts = open_dataset(made).manifest.parts
    assert all(counts[part].new_users for part in PARTS)


def test_item_domain_says_the_domain_of_each_index_and_zero_for_padding_and_start(made):
    dataset = open_dataset(made)
    of_catalogue = [0, *(1 + dataset.domains.index(domain) for domain in dataset.catalogue()["domain"]), 0]
    assert dataset.item_domain().tolist() == of_catalogue
    assert dataset.item_domain().dtype == np.int64
    assert [dataset.first_item(domain) for domain in (1, 2, 3)] == [of_catalogue.index(domain) for domain in (1, 2, 3)]
    assert dataset.first_item(4) == dataset.items + 1


def test_the_arrays_are_mapped_not_read(made):
    train = open_dataset(made).train
    for array in (train.user_offsets, train.item_index, train.domain, train.timestamp):
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable


def test_popularity_is_the_number_of_training_events(made):
    dataset = open_dataset(made)
    counts = np.bincount(dataset.train.item_index, minlength=dataset.items + 1)
    assert dataset.catalogue()["popularity"].to_list() == counts[1:].tolist()


def test_the_manifest_counts_what_the_arrays_hold(made):
    dataset = open_dataset(made)
    domain_of_item = dataset.item_domain()
    for part in PARTS:
        table, counts = dataset.part(part), dataset.manifest.parts[part]
        users = np.repeat(np.arange(table.users), np.diff(table.user_offsets))
        assert counts.events == table.events
        assert counts.users == len(set(users))
        assert counts.new_users == len(dataset.user_ids(part))
        for number, name in enumerate(dataset.domains, 1):
            here = table.domain == number
            assert counts.domains[name].events == np.count_nonzero(here)
            assert counts.domains[name].users == len(set(users[here]))
            assert counts.domains[name].cold == np.count_nonzero(table.item_index[here] == 0)
        known = table.item_index > 0
        assert (domain_of_item[table.item_index[known]] == table.domain[known]).all()


@pytest.mark.parametrize("part", ["validation", "test"])
def test_the_history_of_a_case_is_everything_before_it_in_all_parts(made, part):
    dataset = open_dataset(made)
    wanted = []
    for user in range(dataset.part(part).users):
        history = []
        for name in PARTS[: PARTS.index(part) + 1]:
            table = dataset.part(name)
            rows = table.of_user(user) if user < table.users else slice(0, 0)
            for item, domain in zip(table.item_index[rows].tolist(), table.domain[rows].tolist(), strict=True):
                if name == part:
                    wanted.append((user, list(history), item, domain))
                history.append(item)
    cases = contexts(dataset, part)
    found = [
        (user, cases.item_index[start:position].tolist(), target, domain)
        for user, start, position, target, domain in zip(
            cases.user.tolist(),
            cases.start,
            cases.position,
            cases.target.tolist(),
            cases.target_domain.tolist(),
            strict=True,
        )
    ]
    assert found == wanted
    assert len(cases) == dataset.manifest.parts[part].cases


def test_joined_histories_never_go_back_in_time(made):
    cases = contexts(open_dataset(made), "test")
    for first, end in zip(cases.user_offsets[:-1], cases.user_offsets[1:], strict=True):
        assert (np.diff(cases.timestamp[first:end]) >= 0).all()


def test_a_part_without_events_is_opened_too(tmp_path):
    (tmp_path / "e.csv").write_text("user_id,item_id,domain,timestamp\na,x,D,1\na,y,D,2\n")
    prepare(
        [EventSource(tmp_path / "e.csv")],
        tmp_path / "made",
        PrepareOptions(validation_from=9 * SECOND, test_from=10**9),
    )
    dataset = open_dataset(tmp_path / "made")
    assert [dataset.part(part).events for part in PARTS] == [2, 0, 0, 0]
    assert len(contexts(dataset, "test")) == 0
    dataset.verify()


def test_a_whole_dataset_is_verified_and_a_changed_byte_is_named(copy):
    open_dataset(copy).verify()
    content = bytearray((copy / "train/item_index.npy").read_bytes())
    content[-1] ^= 1
    (copy / "train/item_index.npy").write_bytes(content)
    with pytest.raises(WorkFailed, match=r"train/item_index\.npy: SHA-256 differs"):
        open_dataset(copy).verify()


def edit_manifest(folder, **changes):
    content = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(content | changes))


@pytest.mark.parametrize(
    "name", ["manifest.json", "items.parquet", "train/domain.npy", "context/user_ids.parquet", "test/user_offsets.npy"]
)
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(WorkFailed, match=f"{name}: missing"):
        open_dataset(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema_version: 2, this program reads 1"),
        ({"domains": "D"}, "domains: "),
        ({"items_per_domain": {"D": 1}}, "items_per_domain: not the domains in order"),
        ({"parts": {}}, "parts: not train, context, validation, test"),
        ({"surprise": 1}, "surprise: "),
    ],
)
def test_a_manifest_that_does_not_fit_names_the_field(copy, changes, message):
    edit_manifest(copy, **changes)
    with pytest.raises(WorkFailed, match=f"manifest.json: {message}"):
        open_dataset(copy)


def test_a_manifest_that_is_no_json_is_refused(copy):
    (copy / "manifest.json").write_text("{")
    with pytest.raises(WorkFailed, match=r"manifest\.json: not JSON"):
        open_dataset(copy)


def test_arrays_that_do_not_fit_each_other_are_named(copy):
    shutil.copy(copy / "train/item_index.npy", copy / "test/item_index.npy")
    with pytest.raises(WorkFailed, match=r"test/item_index\.npy: shape"):
        open_dataset(copy)


def test_an_array_of_another_type_is_named(copy):
    file = copy / "train/item_index.npy"
    np.save(file, np.load(file).astype(np.int64))
    with pytest.raises(WorkFailed, match=r"train/item_index\.npy: dtype: int64, not int32"):
        open_dataset(copy)


def test_offsets_that_end_elsewhere_are_named(copy):
    file = copy / "train/user_offsets.npy"
    np.save(file, np.load(file) + 1)
    with pytest.raises(WorkFailed, match=r"train/user_offsets\.npy: ends at"):
        open_dataset(copy)


@pytest.mark.parametrize("size", [0, 5, 100, 150])
def test_an_array_that_is_cut_short_is_named(copy, size):
    file = copy / "train/timestamp.npy"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(WorkFailed, match=r"train/timestamp\.npy: damaged or cut short"):
        open_dataset(copy)


def test_a_catalogue_of_another_size_is_named(copy):
    table = pl.read_parquet(copy / "items.parquet")
    table.head(1).write_parquet(copy / "items.parquet")
    with pytest.raises(WorkFailed, match=r"items\.parquet: 1 items, manifest.json has"):
        open_dataset(copy).catalogue()
