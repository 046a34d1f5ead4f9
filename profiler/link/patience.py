"""How long a session waits for a device before it does something about the silence."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """How long to wait for what; waits in silence double from one to the next.

    Attributes:
        attempts: How often in a row a device may give no sign of life before it counts as silent.
        most_attempts: How often a request is tried where it does give signs of life, but the line is bad.
        first_wait_s: Silence, beside the time on the wire, after which a request is sent again.
        longest_wait_s: What that grows to.
        damaged_wait_s: Silence after a damaged frame, which probably was the answer.
        largest_growth: What the wait for an accepted run grows to, as a multiple of the expected time.
        identify_wait_s, longest_identify_wait_s: As the first two while the device may be starting.
        reopen_wait_s: Between attempts to open a port that went away.
        most_breaks: How often a port may go away over one request before the request counts as the reason.
    """

    attempts: int = 10
    most_attempts: int = 60
    first_wait_s: float = 0.2
    longest_wait_s: float = 2.0
    damaged_wait_s: float = 0.02
    largest_growth: int = 4
    identify_wait_s: float = 0.05
    longest_identify_wait_s: float = 0.5
    reopen_wait_s: float = 0.2
    most_breaks: int = 4

    def wait_s(self, silent: int) -> float:
        """After so many attempts without a sign of life."""
        return min(self.first_wait_s * 2**silent, self.longest_wait_s)

    def busy_s(self, expected_s: float, silent: int) -> float:
        """For an accepted run that should take ``expected_s``."""
        return (2 * expected_s + self.first_wait_s) * min(2**silent, self.largest_growth)

    def limit_s(self, wait_s: float, expected_s: float) -> float:
        """For all attempts together, however alive the device seems."""
        return 15 * self.longest_wait_s + 10 * (wait_s + self.busy_s(expected_s, self.attempts))
