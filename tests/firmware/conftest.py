"""What the firmware's tests share."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import raw_device as raw


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread() -> Iterator[None]:
    """Thousands of tiny ops: there threads only cost, above all on a busy machine."""
    if "torch" not in sys.modules:
        yield
        return
    torch = sys.modules["torch"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=raw.URLS)
def device(request: pytest.FixtureRequest) -> Iterator[raw.RawDevice]:
    """Each device that needs no hardware, request by request."""
    opened = raw.RawDevice(request.param)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def agent() -> Iterator[raw.RawDevice]:
    """The native agent alone, for what takes many requests."""
    opened = raw.RawDevice("native://")
    yield opened
    opened.close()
