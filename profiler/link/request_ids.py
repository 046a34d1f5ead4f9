"""The numbers that requests and boots go by.

Why no reply is taken for another's: a line keeps the order of what it carries, so all replies to a request have come
before the first one to the next. Should something deliver old bytes once more (a driver's ring buffer), ids tell them:
of requests by being distinct from those of more than 200 requests before, of identifies and probes by never repeating.

Why no restart goes unseen: a device that restarted has boot id 0 until it is identified, which nobody but the
holder of the port does, and then the nonce, which differs from the boot id before.
"""

from __future__ import annotations

import secrets

#: Ids of requests, taken in a circle: two bytes in CBOR. One byte would save three a trial, and an old reply that a
#: driver delivers once more would be taken for a new one 24 requests later.
REQUEST_IDS = range(24, 256)
#: Ids of identifies and probes, which no trial on a good line needs: none is used twice.
_FIRST_RARE_ID = 1 << 16
#: Nonces and so boot ids: one byte in CBOR.
NONCES = range(1, 24)


class RequestIds:
    """Ids and nonces of one session."""

    def __init__(self) -> None:
        self._last = secrets.choice(REQUEST_IDS)
        self._last_run: int | None = None
        self._last_rare = _FIRST_RARE_ID + secrets.randbelow(1 << 31)  # another session's are others
        self._nonce = secrets.choice(NONCES)

    def next(self, *, runs: bool = False) -> int:
        """The next in the circle, the last run's left out: its reply is stored, a new run would get it.

        Args:
            runs: Whether the request is a ``run``.
        """
        while True:
            self._last = REQUEST_IDS[(self._last + 1 - REQUEST_IDS.start) % len(REQUEST_IDS)]
            if self._last != self._last_run:
                break
        if runs:
            self._last_run = self._last
        return self._last

    def next_rare(self) -> int:
        """For an identify or a probe."""
        self._last_rare += 1
        return self._last_rare

    def next_nonce(self, boot_id: int) -> int:
        """Another one than the last, and than ``boot_id``: it becomes that of a device that restarted unseen."""
        while True:
            self._nonce = self._nonce % NONCES[-1] + 1
            if self._nonce != boot_id:
                return self._nonce
