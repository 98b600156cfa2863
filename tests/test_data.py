"""Samples: checked when they are given, taken in batches, split and loaded."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whit import Data, DataError, Images, Samples
from whit.data import as_data


def refused(make, message):
    with pytest.raises(DataError, match=re.escape(message)):
        make()


def numbered(count, dtype=np.float32):
    """Samples whose inputs and targets are their own number."""
    return np.arange(count, dtype=dtype)[:, None], np.arange(count)


# What is checked.


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        ([], [0], "the training data has no inputs"),
        ([np.zeros(2)], [0, 1, 2], "the training data has unequal numbers of samples (input 0: 2, targets: 3)"),
        ([np.zeros(2), np.zeros(3)], [0, 1], "(input 0: 2, input 1: 3, targets: 2)"),
        ([np.zeros((0, 3))], [], "the training data is empty; give at least one sample"),
        ([np.float32(3)], [0], "the training data holds a single number where an array of samples is needed"),
        ([np.array(["a"])], [0], "the training data's input 0 has dtype <U1; numbers are needed"),
        ([np.zeros(1)], np.array([None]), "the training data's targets has dtype object; numbers are needed"),
        ([np.zeros(1, complex)], [0], "the training data's input 0 has dtype complex128; numbers are needed"),
        ([np.array([1, np.nan, np.inf, -np.inf])], range(4), "input 0 holds 3 NaN or infinite values; remove or mend"),
        ([np.zeros(2)], [0.0, np.nan], "the training data's targets holds 1 NaN or infinite values"),
    ],
)
def test_what_no_network_can_learn_from_is_described(inputs, targets, message):
    refused(lambda: Samples(tuple(inputs), np.asarray(targets), name="training data"), message)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.float32, np.float64])
def test_numbers_of_any_kind_are_samples(dtype):
    assert len(Samples((np.zeros((3, 2), dtype),), np.zeros(3, dtype))) == 3


def test_training_and_test_samples_look_alike():
    x, y = numbered(4)
    refused(lambda: Data.of(x, y, np.zeros((4, 2)), y), "a training sample has shape (1,), a test sample (2,)")
    message = "a training sample has shape (1,), (1,), a test sample (1,), (2,); they must agree"
    refused(lambda: Data.of([x, x], y, [x, np.zeros((4, 2))], y), message)
    refused(lambda: Data.of([x, x], y, x, y), "a training sample has shape (1,), (1,), a test sample (1,)")


# Taking samples.


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 7), st.none() | st.integers(1, 30))
def test_batches_are_the_first_samples_in_order(count, size, most):
    x, y = numbered(count)
    batches = list(Samples((x,), y).batches(size, most))
    wanted = min(count, most or count)
    assert [len(targets) for _, targets in batches[:-1]] == [size] * (len(batches) - 1)
    np.testing.assert_array_equal(np.concatenate([targets for _, targets in batches]), np.arange(wanted))
    for (inputs,), targets in batches:
        np.testing.assert_array_equal(inputs[:, 0], targets)


def test_double_precision_is_read_as_single_and_integers_as_they_are():
    samples = Samples((np.zeros((2, 1)), np.zeros((2, 1), np.int64)), np.zeros(2))
    (one, other), _ = samples.take(slice(0, 1))
    assert (one.dtype, other.dtype) == (np.float32, np.int64)


# Images.


def test_images_are_scaled_and_normalised_channel_by_channel():
    x = np.array([[[[10]], [[20]]]], np.uint8)  # one image of one pixel and two channels
    images = Images(scale=0.1, mean=(1.0, 1.5), std=(2.0, 0.5))
    # (10 * 0.1 - 1) / 2 and (20 * 0.1 - 1.5) / 0.5
    np.testing.assert_allclose(images(x), [[[[0.0]], [[1.0]]]], atol=1e-6)
    assert images(x).dtype == np.float32


def test_images_stored_channels_last_are_turned():
    x = np.arange(24).reshape(1, 2, 4, 3)
    np.testing.assert_array_equal(Images(layout="NHWC")(x), x.transpose(0, 3, 1, 2))


def test_only_the_first_input_is_images():
    x, words = np.ones((2, 1, 1, 1), np.uint8), np.ones((2, 5), np.int64)
    (image, word), _ = Samples((x, words), np.zeros(2), Images(scale=3.0)).take(slice(None))
    assert image.tolist() == [[[[3.0]]]] * 2
    assert word.tolist() == words.tolist()


@pytest.mark.parametrize("std", [(0.0,), (1.0, -1.0), (float("nan"),)])
def test_standard_deviations_are_positive(std):
    refused(lambda: Images(std=std), f"Images(std={std}): standard deviations are positive")


def test_images_that_do_not_fit_their_description_are_refused():
    refused(lambda: Images()(np.zeros((3, 3))), "images have four axes (NCHW), these have shape (3, 3)")
    message = "mean has 3 values, images stored as NCHW with shape (1, 8, 8, 3) have 8 channels"
    refused(lambda: Images(mean=(0.0,) * 3)(np.zeros((1, 8, 8, 3))), message)
    refused(lambda: Images(std=(1.0,) * 2)(np.zeros((1, 3, 8, 8))), "std has 2 values")


# Splitting.


@settings(deadline=None)
@given(st.integers(2, 60), st.floats(0.01, 0.99), st.integers(0, 5))
def test_a_split_deals_every_sample_once(count, held_out, seed):
    expected = max(1, round(held_out * count))
    if expected == count:
        refused(lambda: Data.split(*numbered(count), held_out=held_out), "one sample cannot be split")
        return
    data = Data.split(*numbered(count), held_out=held_out, seed=seed)
    assert len(data.test) == expected
    assert sorted([*data.train.targets, *data.test.targets]) == list(range(count))
    for samples in (data.train, data.test):
        np.testing.assert_array_equal(samples.inputs[0][:, 0], samples.targets)


def test_a_split_is_the_same_for_the_same_seed():
    one, same, other = (Data.split(*numbered(50), seed=seed).test.targets.tolist() for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize("held_out", [0, 1, -0.5, float("nan")])
def test_the_share_held_out_lies_between_0_and_1(held_out):
    refused(
        lambda: Data.split(*numbered(4), held_out=held_out), f"held_out={held_out}: hold out a share between 0 and 1"
    )


def test_one_sample_cannot_be_split():
    refused(lambda: Data.split(*numbered(1)), "one sample cannot be split into training and test data")


def test_arrays_are_data_of_which_a_fifth_is_held_out():
    data = as_data(numbered(10))
    assert (len(data.train), len(data.test)) == (8, 2)
    assert as_data(data) is data


# Files.


@pytest.fixture
def folder(tmp_path):
    x, y = numbered(10)
    np.savez(tmp_path / "train.npz", x=x, y=y)
    np.savez(tmp_path / "test.npz", x=x[:3], y=y[:3])
    return tmp_path


def test_data_is_loaded_with_a_test_file_or_split(folder):
    both = Data.load(folder / "train.npz", folder / "test.npz")
    assert (len(both.train), len(both.test)) == (10, 3)
    one = Data.load(folder / "train.npz", images=None)
    assert (len(one.train), len(one.test)) == (8, 2)


def test_files_that_hold_no_data_are_named(folder):
    x, y = numbered(3)
    path = folder / "data.npz"
    refused(lambda: Data.load(path), f"there is no data file {path}; give the path of an .npz with arrays x and y")
    np.savez(path, x=x, labels=y)
    refused(lambda: Data.load(path), f"{path} has no array y; it has x, labels. Name the arrays x and y")
    path.write_text("x,y\n1,2\n")
    refused(lambda: Data.load(path), f"{path} is not an .npz of plain arrays")
    with path.open("wb") as file:
        np.save(file, x)
    refused(lambda: Data.load(path), f"{path} holds a single array; save an .npz with arrays x and y")
    np.savez(path, x=x, y=y.astype(object))
    refused(lambda: Data.load(path), f"{path} is not an .npz of plain arrays: Object arrays cannot be loaded")


def test_damaged_files_are_named(folder):
    whole = (folder / "train.npz").read_bytes()
    path = folder / "damaged.npz"
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        refused(lambda: Data.load(path), f"{path} is not an .npz of plain arrays")
