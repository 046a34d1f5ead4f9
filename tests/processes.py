"""What other processes of this machine are doing."""

import os
import time
from pathlib import Path

#: A process that was given no processor for so long will not be given any.
GIVE_UP_S = 300.0


def cpu_seconds(process_id):
    """User and system time of a process so far, and whether it still runs."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), fields[0] != "Z"


def wait_until_computed(process_id, seconds):
    """Until a process has computed for so long from now on, however fast this machine is and whatever else it does."""
    begun, _ = cpu_seconds(process_id)
    end_s = time.monotonic() + GIVE_UP_S
    while True:
        now, alive = cpu_seconds(process_id)
        if now - begun >= seconds:
            return
        assert alive and time.monotonic() < end_s, "it does not compute"
        time.sleep(0.01)
