"""``profile step`` as a command of its own, for whatever has steps measured."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from profiler.errors import UserError


def step_failures(words: Sequence[str], port: str, *, hint: str) -> list[str]:
    """Run ``profile`` with these words, and tell which steps it could not measure, in words.

    Args:
        words: Of ``profile step``, ``--json`` among them.
        port: Of the device.
        hint: What to do where the command as a whole fails.

    Raises:
        UserError: it failed for another reason than single steps.
    """
    done = subprocess.run([sys.executable, "-m", "profiler.cli", *words], capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout)["failures"]
    except (ValueError, KeyError):
        said = done.stderr.strip().splitlines()
        raise UserError(
            f"steps could not be measured on {port}: {said[-1] if said else f'status {done.returncode}'}", hint=hint
        ) from None
