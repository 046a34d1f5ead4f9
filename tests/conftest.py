"""What all tests share."""

import os
import tempfile

# Tests measure on native:// side by side, and care for results, not for times: each process has a lock of its own.
os.environ.setdefault(
    "PROFILER_NATIVE_LOCK", os.path.join(tempfile.gettempdir(), f"profiler-native-tests-{os.getpid()}.lock")
)
