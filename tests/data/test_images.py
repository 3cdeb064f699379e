"""Images that are read by number: they are what the array would be, and nothing more is read."""

import numpy as np
import pytest

from divtf.data.images import LazyImages, as_float, as_images, blocks, images_digest, value_range
from divtf.storage.digests import array_digest

SHAPE = (5, 4, 3)


@pytest.fixture(name="array")
def fixture_array():
    return np.random.default_rng(0).integers(0, 256, (11, *SHAPE), dtype="uint8")


@pytest.fixture(name="read")
def fixture_read():
    """Numbers of all images that were read."""
    return []


@pytest.fixture(name="lazy")
def fixture_lazy(array, read):
    def reader(numbers):
        read.extend(numbers.tolist())
        return array[numbers]

    return LazyImages(reader, len(array), SHAPE)


def test_they_have_the_arrays_shape_and_values(array, lazy):
    assert (lazy.shape, lazy.dtype, lazy.ndim, len(lazy)) == (array.shape, array.dtype, 4, 11)
    np.testing.assert_array_equal(np.asarray(lazy), array)
    assert np.asarray(lazy, "float64").dtype == np.float64


@pytest.mark.parametrize(
    "key", [3, np.int64(10), [4, 2], np.array([[0, 1], [9, 9]]), np.array([], "int64")], ids=str
)
def test_numbers_give_arrays_and_read_these_only(array, lazy, read, key):
    np.testing.assert_array_equal(lazy[key], array[key])
    assert read == np.ravel(key).tolist()


@pytest.mark.parametrize(
    "part", [slice(None), slice(4), slice(2, 7), slice(-3, None), slice(1, 9, 3), slice(20, 30)], ids=str
)
def test_a_slice_is_a_view_that_reads_nothing(array, lazy, read, part):
    view = lazy[part]
    assert view.shape == array[part].shape and not read
    np.testing.assert_array_equal(np.asarray(view), array[part])
    np.testing.assert_array_equal(np.asarray(view[1:3]), array[part][1:3])


def test_floats_are_those_of_the_array_and_read_as_late(array, lazy, read):
    x = as_float(lazy)
    assert x.dtype == np.float32 and not read
    np.testing.assert_array_equal(np.asarray(x[2:5]), as_float(array)[2:5])
    assert read == [2, 3, 4]


def test_blocks_are_arrays_of_so_many_at_most(array, lazy, read):
    found = []
    for block in blocks(lazy, 4):
        found.append(block)
        assert len(read) == sum(map(len, found))
    assert [len(block) for block in found] == [4, 4, 3]
    np.testing.assert_array_equal(np.concatenate(found), array)


def test_range_and_digest_are_the_arrays_and_read_them_once(array, lazy, read):
    assert value_range(lazy) == value_range(array) == (array.min(), array.max())
    read.clear()
    assert images_digest(lazy) == images_digest(lazy) == images_digest(array) == array_digest(array)
    assert read == list(range(11))
    assert images_digest(lazy[:5]) == array_digest(array[:5])


def test_what_a_caller_gives_stays_lazy_or_becomes_an_array(array, lazy):
    assert as_images(lazy) is lazy
    assert as_images(array.tolist()).dtype == np.float32
