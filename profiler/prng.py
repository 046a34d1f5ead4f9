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
    BYTES = 4  # int8
    INTEGERS = 5  # int32 in [-2^e, 2^e)
    PAIRS = 6  # int32 (multiplier from 2^30 on, shift): the shift is minus the parameter
    SCALE = 7  # float32 in [0.5, 1) * 2^e


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


def _positive(raw: np.ndarray, least: int = 0) -> np.ndarray:
    return ((raw >> np.uint32(8)) | np.uint32(least)).astype(np.float32) * np.float32(2.0**-24)


#: Of the 24 bits of a positive value, the one that makes it at least a half.
_HALF = 1 << 23


def uniform(seed: int, stream: int, count: int, exponent: int = 0, first: int = 0) -> np.ndarray:
    """``count`` float32 values uniform in [-1, 1) * 2^exponent."""
    return np.ldexp(_symmetric(words(seed, stream, count, first)), exponent).astype(np.float32)


def positive(seed: int, stream: int, count: int, exponent: int = 0, first: int = 0) -> np.ndarray:
    """``count`` float32 values uniform in [0, 1) * 2^exponent."""
    return np.ldexp(_positive(words(seed, stream, count, first)), exponent).astype(np.float32)


def labels(seed: int, stream: int, count: int, classes: int, first: int = 0) -> np.ndarray:
    """``count`` int32 labels in [0, classes)."""
    return (words(seed, stream, count, first) % np.uint32(classes)).astype(np.int32)


def _pairs(raw: np.ndarray, first: int, right: int) -> np.ndarray:
    """int32 (multiplier, shift) pairs, multipliers at even counters."""
    multipliers = (np.uint32(1 << 30) | (raw >> np.uint32(2))).view(np.int32)
    even = np.arange(first, first + raw.size) % 2 == 0
    return np.where(even, multipliers, np.int32(-right))


def fill(mode: int, parameter: int, seed: int, stream: int, count: int) -> np.ndarray:
    """What a program's fill entry writes.

    Args:
        mode: A :class:`FillMode`.
        parameter: Exponent + 128, the number of classes for labels, or minus the shift of pairs.
        seed: The run's seed.
        stream: The fill's own stream (plus ``image_index << 16`` for fills of the image section).
        count: Elements.

    Returns:
        Array of ``count`` values: float32, int32 for labels, integers and pairs, int8 for bytes.
    """
    mode, exponent = FillMode(mode), parameter - EXPONENT_BIAS
    if mode is FillMode.ZEROS:
        return np.zeros(count, np.float32)
    if mode is FillMode.BYTES:
        return words(seed, stream, -(-count // 4)).astype("<u4").view(np.int8)[:count]
    raw = words(seed, stream, count)
    if mode is FillMode.LABEL:
        return (raw % np.uint32(parameter)).astype(np.int32)
    if mode is FillMode.INTEGERS:
        return raw.view(np.int32) >> (31 - exponent)
    if mode is FillMode.PAIRS:
        return _pairs(raw, 0, parameter)
    if mode is FillMode.UNIFORM:
        return np.ldexp(_symmetric(raw), exponent).astype(np.float32)
    return np.ldexp(_positive(raw, _HALF if mode is FillMode.SCALE else 0), exponent).astype(np.float32)


class SegmentKind(IntEnum):
    """What a segment of the blob holds."""

    BYTES = 0
    PAIRS = 1
    UNIFORM = 2
    SCALE = 3
    INTEGERS = 4


def segment_kind(code: int) -> tuple[SegmentKind, int]:
    """Kind of a segment of the blob, and the exponent of its values (of pairs: the shift), from its code."""
    if code == 0:
        return SegmentKind.BYTES, 0
    if code < 32:
        return SegmentKind.PAIRS, -code
    if code < 208:
        return SegmentKind.UNIFORM, code - EXPONENT_BIAS
    if code < 224:
        return SegmentKind.SCALE, code - 223
    return SegmentKind.INTEGERS, code - 224


def _segment(code: int, raw: np.ndarray, first: int) -> np.ndarray:
    """uint32 words of a segment, from those drawn for it; ``first``: the blob's word that is raw's first."""
    kind, exponent = segment_kind(code)
    if kind is SegmentKind.BYTES:
        return raw
    if kind is SegmentKind.PAIRS:
        return _pairs(raw, first, -exponent).view(np.uint32)
    if kind is SegmentKind.INTEGERS:
        return (raw.view(np.int32) >> (31 - exponent)).view(np.uint32)
    values = _symmetric(raw) if kind is SegmentKind.UNIFORM else _positive(raw, _HALF)
    return np.ldexp(values, exponent).astype(np.float32).view(np.uint32)


def blob_window(
    blob_seed: int, blob_segments: Sequence[int], blob_bytes: int, offset_bytes: int, count: int
) -> np.ndarray:
    """Words of the read-only blob.

    Args:
        blob_seed: As the device's identity states it, like the next two.
        blob_segments: Code of each of the equal segments, see :func:`segment_kind`.
        blob_bytes: Size of the blob.
        offset_bytes: Where the window starts, a multiple of 4.
        count: Words in the window.

    Returns:
        float32 array of shape (count,); view it as the elements that it is read as.

    Raises:
        ValueError: the window leaves the blob.
    """
    first, blob_words = offset_bytes // 4, blob_bytes // 4
    if offset_bytes % 4 or first < 0 or first + count > blob_words:
        raise ValueError(f"words {first} to {first + count} are no window of a blob of {blob_words} words")
    raw = _raw(key(blob_seed, BLOB_STREAM), first, count)
    length = blob_words // len(blob_segments)
    parts, at = [], first
    while at < first + count:
        index = min(at // length, len(blob_segments) - 1)
        end = min(first + count, (index + 1) * length)
        parts.append(_segment(blob_segments[index], raw[at - first : end - first], at))
        at = end
    return np.concatenate(parts).view(np.float32) if parts else np.zeros(0, np.float32)


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
        values: The buffer's elements in memory order, of any shape and number type.

    Returns:
        The four sums. For a random error vector e each has mean 0 and standard deviation ‖e‖, so a wrong element
        shows whatever its place.
    """
    flat = np.asarray(values, dtype=np.float64).ravel()
    return tuple(float(s) for s in _signs(flat.size) @ flat)  # type: ignore[return-value]
