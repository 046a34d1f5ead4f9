"""The device's pseudo-random fills, its blob of frozen weights and its output digest, bit for bit, in numpy.

No tensor crosses the link: the device fills its inputs from a seed and answers with a digest of its outputs, and this
module lets the host do the same. The C twin is ``firmware/runtime``; tests hold the two against each other.

Every word is a hash of its index (a counter-based generator), so any window can be had without the words before it::

    key(seed, stream) = mix(seed ^ mix(stream + GOLDEN))        word(key, i) = mix(key + i * GOLDEN)        (mod 2^32)
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache

import numpy as np

#: 2^32 divided by the golden ratio: steps the counter so that neighbouring indices differ in many bits.
GOLDEN = 0x9E3779B9
#: Stream of the blob of frozen weights.
BLOB_STREAM = 0xB10B
#: Offset of the signs of the digest's projections.
DIGEST_OFFSET = 0x00D16E57
#: Projections in a digest.
PROJECTIONS = 4
#: Exponents travel as ``exponent + 128``, so that they are unsigned.
EXPONENT_BIAS = 128

_MASK = 0xFFFFFFFF


class FillMode(IntEnum):
    """What a fill writes; ``e`` is the fill's parameter - 128."""

    ZEROS = 0
    UNIFORM = 1  # float32 in [-1, 1) * 2^e
    LABEL = 2  # int32 in [0, parameter)
    POSITIVE = 3  # float32 in [0, 1) * 2^e


def mix(x: np.ndarray | int) -> np.ndarray:
    """Scramble 32-bit words: a bijection with full avalanche.

    Args:
        x: Integers of any shape, taken modulo 2^32.

    Returns:
        uint32 array of x's shape.
    """
    x = (np.asarray(x, dtype=np.uint64) & _MASK).astype(np.uint32)
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x7FEB352D)
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def key(seed: int, stream: int) -> int:
    """The key of one stream of one seed."""
    with np.errstate(over="ignore"):
        return int(mix((seed & _MASK) ^ int(mix((stream + GOLDEN) & _MASK))))


def _raw(key_: int, first: int, count: int) -> np.ndarray:
    index = np.arange(first, first + count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        return mix(np.uint64(key_) + index * np.uint64(GOLDEN))


def words(seed: int, stream: int, count: int, first: int = 0) -> np.ndarray:
    """Words ``first`` to ``first + count`` of a stream, uint32."""
    return _raw(key(seed, stream), first, count)


def _symmetric(raw: np.ndarray) -> np.ndarray:
    # 24 signed bits are a float32's mantissa: the scaling is exact on both sides.
    return (raw.view(np.int32) >> 8).astype(np.float32) * np.float32(2.0**-23)


def uniform(seed: int, stream: int, count: int, exponent: int = 0, first: int = 0) -> np.ndarray:
    """``count`` float32 values uniform in [-1, 1) * 2^exponent."""
    return np.ldexp(_symmetric(words(seed, stream, count, first)), exponent).astype(np.float32)


def positive(seed: int, stream: int, count: int, exponent: int = 0, first: int = 0) -> np.ndarray:
    """``count`` float32 values uniform in [0, 1) * 2^exponent."""
    raw = words(seed, stream, count, first) >> np.uint32(8)
    return np.ldexp(raw.astype(np.float32) * np.float32(2.0**-24), exponent).astype(np.float32)


def labels(seed: int, stream: int, count: int, classes: int, first: int = 0) -> np.ndarray:
    """``count`` int32 labels in [0, classes)."""
    return (words(seed, stream, count, first) % np.uint32(classes)).astype(np.int32)


def fill(mode: int, parameter: int, seed: int, stream: int, count: int) -> np.ndarray:
    """What a program's fill entry writes.

    Args:
        mode: A :class:`FillMode`.
        parameter: Exponent + 128, or the number of classes for labels.
        seed: The run's seed.
        stream: The fill's own stream (plus ``image_index << 16`` for fills of the image section).
        count: Words.

    Returns:
        float32 array of ``count`` values (int32 for labels).
    """
    mode = FillMode(mode)
    if mode is FillMode.ZEROS:
        return np.zeros(count, np.float32)
    if mode is FillMode.LABEL:
        return labels(seed, stream, count, parameter)
    make = uniform if mode is FillMode.UNIFORM else positive
    return make(seed, stream, count, parameter - EXPONENT_BIAS)


def blob_segment_exponents(blob_exponents: Sequence[int], blob_words: int, first: int, count: int) -> np.ndarray:
    """Exponent of each of ``count`` words of the blob from word ``first`` on.

    Args:
        blob_exponents: The identity's list, one exponent + 128 a segment; segments are equally long.
    """
    segment = np.arange(first, first + count, dtype=np.int64) * len(blob_exponents) // blob_words
    return np.asarray(blob_exponents, dtype=np.int32)[segment] - EXPONENT_BIAS


def blob_window(
    blob_seed: int, blob_exponents: Sequence[int], blob_bytes: int, offset_bytes: int, count: int
) -> np.ndarray:
    """Words of the read-only blob, float32.

    Args:
        blob_seed: As the device's identity states it, like the next two.
        blob_exponents: Exponent + 128 of each of the equal segments.
        blob_bytes: Size of the blob.
        offset_bytes: Where the window starts, a multiple of 4.
        count: Words in the window.

    Raises:
        ValueError: the window leaves the blob.
    """
    first, blob_words = offset_bytes // 4, blob_bytes // 4
    if offset_bytes % 4 or first < 0 or first + count > blob_words:
        raise ValueError(f"words {first} to {first + count} are no window of a blob of {blob_words} words")
    values = _symmetric(_raw(key(blob_seed, BLOB_STREAM), first, count))
    exponents = blob_segment_exponents(blob_exponents, blob_words, first, count)
    return np.ldexp(values, exponents).astype(np.float32)


@lru_cache(maxsize=64)
def _signs(count: int) -> np.ndarray:
    """+1 or -1 of every word in each projection, float64 of shape (PROJECTIONS, count)."""
    bits = _raw(DIGEST_OFFSET, 0, count)
    rows = [((bits >> np.uint32(p)) & np.uint32(1)).astype(np.float64) * 2 - 1 for p in range(PROJECTIONS)]
    signs = np.stack(rows)
    signs.setflags(write=False)
    return signs


def digest(values: np.ndarray) -> tuple[float, float, float, float]:
    """Random projections of a buffer: for p in 0..3 the sum of +x_i or -x_i, in float64.

    Args:
        values: The buffer's words in memory order, of any shape, float32 as on the device or float64.

    Returns:
        The four sums. For a random error vector e each has mean 0 and standard deviation ‖e‖, so a wrong element
        shows whatever its place.
    """
    flat = np.asarray(values, dtype=np.float64).ravel()
    return tuple(float(s) for s in _signs(flat.size) @ flat)  # type: ignore[return-value]
