"""What all tests share."""

import os
import tempfile

# Tests measure on native:// side by side, and care for results, not for times: each process has a lock of its own.
# Set whatever was inherited: a worker of pytest-xdist starts with the environment of the process that started it.
os.environ["PROFILER_NATIVE_LOCK"] = os.path.join(tempfile.gettempdir(), f"profiler-native-tests-{os.getpid()}.lock")
