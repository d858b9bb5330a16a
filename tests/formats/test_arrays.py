from pathlib import Path

import numpy as np
import pytest

from formats.arrays import map_array, write_array
from formats.errors import WorkFailed

SHAPE = (7, 4)


def numbers(shape=SHAPE, dtype=np.float32):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "some.npy"


def test_an_array_reads_back_as_it_was_written_and_is_only_mapped(file):
    write_array(file, numbers())
    read = map_array(file, "<f4", SHAPE)
    np.testing.assert_array_equal(read, numbers())
    assert read.dtype == np.float32
    assert type(read) is np.ndarray
    assert isinstance(read.base, np.memmap)
    assert not read.flags.writeable


@pytest.mark.parametrize(("shape", "dtype"), [((1, 1), "<f4"), ((100_000, 3), "<f4"), ((5, 3, 10), "<i4")])
def test_the_file_is_the_one_that_numpy_writes(file, shape, dtype):
    array = numbers(shape, dtype)
    write_array(file, array)
    written = file.read_bytes()
    np.save(file, array)
    assert file.read_bytes() == written
    np.testing.assert_array_equal(map_array(file, dtype, shape), array)


def test_columns_in_a_row_are_written_as_rows(file):
    write_array(file, np.asfortranarray(numbers()))
    np.testing.assert_array_equal(map_array(file, "<f4", SHAPE), numbers())


@pytest.mark.parametrize("dtype", ["<f2", "<f8", ">f4", "<i4"])
def test_another_type_is_refused(file, dtype):
    np.save(file, numbers().astype(dtype))
    with pytest.raises(WorkFailed, match=rf"some.npy: header: .*{dtype}.*, not .*<f4"):
        map_array(file, "<f4", SHAPE)


@pytest.mark.parametrize("shape", [(8, 4), (6, 4), (7, 5), (28,), (1, 7, 4), (4, 7)])
def test_another_shape_is_refused(file, shape):
    np.save(file, numbers(shape))
    with pytest.raises(WorkFailed, match=r"some.npy: header: .*, not .*\(7, 4\)"):
        map_array(file, "<f4", SHAPE)


def test_fortran_order_is_refused(file):
    np.save(file, np.asfortranarray(numbers()))
    with pytest.raises(WorkFailed, match=r"some.npy: header: .*'fortran_order': True.*, not .*'fortran_order': False"):
        map_array(file, "<f4", SHAPE)


def test_pickled_objects_are_refused_and_not_loaded(file):
    np.save(file, np.array([[object()]]), allow_pickle=True)
    with pytest.raises(WorkFailed, match=r"some.npy: header: .*'\|O'"):
        map_array(file, "<f4", SHAPE)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04", b"no\narray at\nall"])
def test_what_is_no_array_is_refused_in_one_line(file, content):
    file.write_bytes(content)
    with pytest.raises(WorkFailed, match=r"some.npy: header: ") as refused:
        map_array(file, "<f4", SHAPE)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("place", range(128))
def test_a_damaged_header_is_refused_wherever_the_damage_is(file, place):
    write_array(file, numbers())
    content = bytearray(file.read_bytes())
    content[place] ^= 0x81
    file.write_bytes(content)
    with pytest.raises(WorkFailed, match=r"some.npy: header: "):
        map_array(file, "<f4", SHAPE)


@pytest.mark.parametrize("change", [lambda whole: whole[:-1], lambda whole: whole[:128], lambda whole: whole + b"x"])
def test_a_file_of_another_size_is_refused(file, change):
    write_array(file, numbers())
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(WorkFailed, match=r"some.npy: size: \d+ bytes do not hold .*\(7, 4\)"):
        map_array(file, "<f4", SHAPE)


def test_a_missing_file_is_refused(file):
    with pytest.raises(WorkFailed, match=r"some.npy: No such file"):
        map_array(file, "<f4", SHAPE)


def test_a_full_disk_says_so():
    with pytest.raises(OSError, match="No space left on device"):
        write_array(Path("/dev/full"), numbers())
