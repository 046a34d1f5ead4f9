"""Write the blob of frozen weights that is linked into a board's flash.

Word i of the blob is drawn with ``key(seed, 0xB10B)`` and counter i, and becomes what the segment that i falls into
holds, by its code (runtime/fill.h); ``fill_blob`` in runtime/fill.c makes the same words, and the host makes them a
third time.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

STEP = 0x9E3779B9
BLOB_STREAM = 0xB10B
EXPONENT_BIAS = 128


def mix(x: np.ndarray) -> np.ndarray:
    """The bijection of runtime/prng.h on uint32 words."""
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x7FEB352D)
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def _positive(raw: np.ndarray, exponent: int) -> np.ndarray:
    """float32 in [0.5, 1) * 2^exponent."""
    return ((raw >> np.uint32(8)) | np.uint32(1 << 23)).astype(np.float32) * np.float32(2.0 ** (exponent - 24))


def segment(code: int, raw: np.ndarray) -> np.ndarray:
    """What a segment holds, from its drawn words: uint32 of raw's shape."""
    if code == 0:
        return raw
    if code < 32:
        multipliers = np.uint32(0x40000000) | (raw >> np.uint32(2))
        return np.where(np.arange(raw.size) % 2 == 0, multipliers, np.uint32(-code & 0xFFFFFFFF))
    if code < 208:
        values = (raw.view(np.int32) >> 8).astype(np.float32)
        return (values * np.float32(2.0 ** (code - EXPONENT_BIAS - 23))).view(np.uint32)
    if code < 224:
        return _positive(raw, code - 223).view(np.uint32)
    return (raw.view(np.int32) >> (31 - (code - 224))).view(np.uint32)


def blob(seed: int, segments: list[int], words: int) -> np.ndarray:
    """The whole blob, uint32 of shape (words,)."""
    stream = mix(np.array([(BLOB_STREAM + STEP) & 0xFFFFFFFF], dtype=np.uint32))
    key = mix(np.uint32(seed) ^ stream)
    raw = mix(key + np.arange(words, dtype=np.uint32) * np.uint32(STEP))
    return np.concatenate([segment(c, part) for c, part in zip(segments, np.split(raw, len(segments)), strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=lambda text: int(text, 0), required=True)
    parser.add_argument("--bytes", type=int, required=True, help="size, a multiple of 16 times the number of segments")
    parser.add_argument("segments", type=int, nargs="+", help="code of each segment")
    arguments = parser.parse_args()
    content = blob(arguments.seed, arguments.segments, arguments.bytes // 4)
    arguments.output.write_bytes(content.astype("<u4").tobytes())


if __name__ == "__main__":
    main()
