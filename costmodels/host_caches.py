"""What the caches of a host do not hold."""

from __future__ import annotations

import numpy as np

#: Caches by name: bytes up to which a footprint is held, and from which on no line is still there when it is asked for
#: again. A first cache, which is indexed by virtual addresses, runs over set by set at once; later ones hold pages that
#: fall on their sets by chance.
CACHES = {"32k": (32 << 10, 36 << 10), "256k": (218 << 10, 436 << 10), "1m": (870 << 10, 1740 << 10)}
LINE = 64
STREAMED = {f"lines_beyond_{name}": f"lines of all buffers that a cache of {name} does not hold" for name in CACHES}


def streamed(of: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """:data:`STREAMED` of ops that go over all their buffers once, run again and again."""
    footprint = of["bytes_read"] + of["bytes_written"]
    return {f"lines_beyond_{name}": footprint / LINE * share_beyond(footprint, name) for name in CACHES}


def share_beyond(footprint: np.ndarray, cache: str) -> np.ndarray:
    """Share of the lines of a footprint in bytes, gone over again and again, that have left a cache by then.

    Under least-recently-used replacement a set with one line more than it has ways misses all of them.
    """
    held, lost = CACHES[cache]
    return np.clip((1 - held / np.maximum(footprint, 1)) / (1 - held / lost), 0, 1)
