"""Write the blob of frozen weights that is linked into a board's flash.

Word i of the blob is a float32 in [-1, 1) * 2^e, drawn with ``key(seed, 0xB10B)`` and counter i, where e belongs to the
segment that i falls into; ``fill_blob`` in runtime/fill.c makes the same words, and the host makes them a third time.
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


def blob(seed: int, exponents: list[int], words: int) -> np.ndarray:
    """The whole blob, float32 of shape (words,)."""
    stream = mix(np.array([(BLOB_STREAM + STEP) & 0xFFFFFFFF], dtype=np.uint32))
    key = mix(np.uint32(seed) ^ stream)
    counters = np.arange(words, dtype=np.uint32)
    values = (mix(key + counters * np.uint32(STEP)).view(np.int32) >> 8).astype(np.float32)
    scale = np.exp2(np.array(exponents, dtype=np.float64) - EXPONENT_BIAS - 23).astype(np.float32)
    return values * np.repeat(scale, words // len(exponents))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=lambda text: int(text, 0), required=True)
    parser.add_argument("--bytes", type=int, required=True, help="size, a multiple of 16 times the number of segments")
    parser.add_argument("exponents", type=int, nargs="+", help="exponent + 128 of each segment")
    arguments = parser.parse_args()
    content = blob(arguments.seed, arguments.exponents, arguments.bytes // 4)
    arguments.output.write_bytes(content.astype("<f4").tobytes())


if __name__ == "__main__":
    main()
