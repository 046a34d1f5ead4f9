"""The generator against its formulas, written out once more with Python's own integers."""

import ctypes

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import kernels, prng
from profiler.measure.verify import Expected

WORDS = st.integers(0, 2**32 - 1)
MASK = 2**32 - 1


def mix(x):
    x &= MASK
    x ^= x >> 16
    x = x * 0x7FEB352D & MASK
    x ^= x >> 15
    x = x * 0x846CA68B & MASK
    return x ^ (x >> 16)


def word(seed, stream, index):
    key = mix(seed ^ mix(stream + 0x9E3779B9))
    return mix(key + index * 0x9E3779B9)


def signed(x):
    return x - 2**32 if x >= 2**31 else x


@given(seed=WORDS, stream=WORDS, first=st.integers(0, 2**24))
def test_every_word_is_the_hash_of_its_index(seed, stream, first):
    expected = [word(seed, stream, first + i) for i in range(5)]
    assert prng.words(seed, stream, 5, first).tolist() == expected


@given(seed=WORDS, stream=WORDS, exponent=st.integers(-60, 60))
def test_uniform_values_are_exact_multiples_of_a_power_of_two(seed, stream, exponent):
    expected = [(signed(word(seed, stream, i)) >> 8) * 2.0**-23 * 2.0**exponent for i in range(7)]
    values = prng.uniform(seed, stream, 7, exponent)
    assert values.dtype == np.float32
    assert values.astype(np.float64).tolist() == expected


@given(seed=WORDS, stream=WORDS, exponent=st.integers(-60, 60))
def test_positive_values_are_exact_multiples_of_a_power_of_two(seed, stream, exponent):
    expected = [(word(seed, stream, i) >> 8) * 2.0**-24 * 2.0**exponent for i in range(7)]
    assert prng.positive(seed, stream, 7, exponent).astype(np.float64).tolist() == expected


@given(seed=WORDS, stream=WORDS, classes=st.integers(1, 1000))
def test_labels_are_words_modulo_the_classes(seed, stream, classes):
    values = prng.labels(seed, stream, 9, classes)
    assert values.dtype == np.int32
    assert values.tolist() == [word(seed, stream, i) % classes for i in range(9)]


def test_uniform_values_fill_their_range_evenly():
    values = prng.uniform(3, 5, 100_000, exponent=2)
    assert -4 <= values.min() < -3.99
    assert 3.99 < values.max() < 4
    assert abs(values.mean()) < 0.03
    assert np.var(values) == pytest.approx(16 / 3, rel=0.02)
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.02


@pytest.mark.parametrize(
    ("mode", "parameter", "alone"),
    [
        (prng.FillMode.ZEROS, 0, lambda: np.zeros(50)),
        (prng.FillMode.UNIFORM, 126, lambda: prng.uniform(9, 4, 50, -2)),
        (prng.FillMode.LABEL, 7, lambda: prng.labels(9, 4, 50, 7)),
        (prng.FillMode.POSITIVE, 131, lambda: prng.positive(9, 4, 50, 3)),
    ],
)
def test_a_fill_is_what_its_mode_says(mode, parameter, alone):
    np.testing.assert_array_equal(prng.fill(mode, parameter, 9, 4, 50), alone())


@given(
    first=st.integers(0, 90),
    count=st.integers(0, 60),
    exponents=st.lists(st.integers(100, 140), min_size=1, max_size=8),
)
def test_a_window_of_the_blob_is_a_part_of_the_whole_blob(first, count, exponents):
    words = 24 * len(exponents) * 5
    whole = prng.blob_window(11, exponents, 4 * words, 0, words)
    segment = words // len(exponents)
    for j, exponent in enumerate(exponents):
        part = whole[j * segment : (j + 1) * segment]
        assert np.abs(part).max() < 2.0 ** (exponent - 128)
        assert part[0] == (signed(word(11, 0xB10B, j * segment)) >> 8) * 2.0 ** (exponent - 128 - 23)
    first, count = min(first, words), min(count, words - min(first, words))
    window = prng.blob_window(11, exponents, 4 * words, 4 * first, count)
    np.testing.assert_array_equal(window, whole[first : first + count])


@pytest.mark.parametrize(("offset", "count"), [(0, 101), (396, 2), (-4, 1), (2, 1)])
def test_a_window_outside_the_blob_is_an_error(offset, count):
    with pytest.raises(ValueError, match="no window of a blob of 100 words"):
        prng.blob_window(1, (128,), 400, offset, count)


@given(values=st.lists(st.floats(-1e6, 1e6, width=32), max_size=40))
def test_the_digest_sums_with_the_signs_that_the_hash_gives(values):
    expected = [0.0] * 4
    for i, x in enumerate(values):
        bits = mix(i * 0x9E3779B9 + 0x00D16E57)
        for p in range(4):
            expected[p] += x if bits >> p & 1 else -x
    assert prng.digest(np.array(values, np.float32)) == pytest.approx(expected, rel=1e-12, abs=1e-6)


@given(seed=WORDS, wrong=st.integers(0, 999), change=st.floats(1e-3, 10))
def test_one_wrong_element_shows_wherever_it_is(seed, wrong, change):
    values = prng.uniform(seed, 1, 1000).astype(np.float64)
    measured = values.copy()
    measured[wrong] += change
    error = Expected.of(values).error(prng.digest(measured))
    assert error == pytest.approx(change / np.linalg.norm(values), rel=1e-6)


def test_the_error_of_random_errors_is_about_their_norm():
    values = prng.uniform(1, 1, 4000).astype(np.float64)
    error = 1e-4 * prng.uniform(2, 2, 4000)
    estimated = Expected.of(values).error(prng.digest(values + error))
    assert estimated == pytest.approx(np.linalg.norm(error) / np.linalg.norm(values), rel=2)


def test_swapped_elements_show():
    values = prng.uniform(1, 1, 100).astype(np.float64)
    swapped = np.concatenate([values[50:], values[:50]])
    assert Expected.of(values).error(prng.digest(swapped)) > 0.01


def test_a_digest_that_is_not_a_number_is_infinitely_wrong():
    values = np.ones(10)
    assert Expected.of(values).error(prng.digest(np.full(10, np.nan))) == float("inf")


def test_what_should_be_zero_is_compared_absolutely():
    assert Expected.of(np.zeros(8)).error((0.0, 0.0, 0.0, 0.0)) == 0
    assert Expected.of(np.zeros(8)).error((0.0, 0.25, 0.0, 0.0)) == 0.25


def pointer(array):
    return ctypes.c_void_p(array.ctypes.data)


@given(
    mode=st.sampled_from(list(prng.FillMode)),
    parameter=st.integers(40, 220),
    stream=st.integers(0, 2**16 - 1),
    seed=WORDS,
    image=st.integers(0, 2**16 - 1),
    words=st.integers(1, 300),
)
def test_fills_of_the_firmware_are_the_same_bits(*, mode, parameter, stream, seed, image, words):
    made = np.full(words, 0xA5A5A5A5, np.uint32)
    if mode is prng.FillMode.INTEGERS:
        parameter = 128 + parameter % 32
    elif mode is prng.FillMode.PAIRS:
        parameter %= 32
    geometry = (ctypes.c_uint32 * 4)(words, mode, parameter, stream)
    kernels.library().fill_run(geometry, ctypes.c_uint32(seed), ctypes.c_uint32(image), pointer(made))
    expected = prng.fill(mode, parameter, seed, stream + (image << 16), words)
    width = expected.dtype.itemsize
    np.testing.assert_array_equal(made.view(expected.dtype)[:words].view(f"u{width}"), expected.view(f"u{width}"))
    assert np.all(made.view(np.uint8)[width * words :] == 0xA5)


@given(seed=WORDS, exponents=st.lists(st.integers(0, 255), min_size=1, max_size=32), segment=st.integers(1, 60))
def test_the_blob_of_the_firmware_is_the_same_bits(seed, exponents, segment):
    words = 2 * segment * len(exponents)
    made = np.zeros(words, np.float32)
    kernels.library().fill_blob(
        ctypes.c_uint32(seed), bytes(exponents), ctypes.c_size_t(len(exponents)), ctypes.c_uint32(words), pointer(made)
    )
    whole = prng.blob_window(seed, exponents, 4 * words, 0, words)
    np.testing.assert_array_equal(made.view(np.uint32), whole.view(np.uint32))


@given(seed=WORDS, words=st.integers(0, 3000))
def test_digests_of_the_firmware_agree(seed, words):
    values = prng.uniform(seed, 0, words, 3)
    projections = (ctypes.c_double * 4)()
    kernels.library().digest_floats(pointer(values), ctypes.c_uint32(words), projections)
    assert list(projections) == pytest.approx(prng.digest(values), rel=1e-9, abs=1e-9)
    for code, integers in enumerate((values.view(np.int8), values.view(np.int32), values.view(np.uint8)), start=1):
        count = ctypes.c_uint32(integers.size)
        kernels.library().digest_integers(pointer(np.ascontiguousarray(integers)), code, count, projections)
        assert tuple(projections) == prng.digest(integers)
