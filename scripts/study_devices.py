"""Devices that the study is made on, and what it asks of each."""

from __future__ import annotations

from dataclasses import dataclass

from profiler.workloads.plan import Dtype, Optimizer, Saving


@dataclass(frozen=True)
class Device:
    """A device that the study is made on.

    Attributes:
        name: Of its folder below measurements/.
        port: What --port takes.
        what: In words, for titles.
        runs: That its cost model is fitted to, below its folder.
        input_: Of the network.
        dtype: Of the plans.
        optimizer: Of the update.
        savings: Of memory, for dtype ``s8``.
        memory_bytes: Most of a step, its program included: the region of the arena; None: it has more than any step
            takes.
    """

    name: str
    port: str
    what: str
    runs: tuple[str, ...]
    input_: str
    dtype: Dtype = "f32"
    optimizer: Optimizer = "adam"
    savings: tuple[Saving, ...] = ()
    memory_bytes: int | None = None


DEVICES = (
    Device(
        "qemu-mps2-an500",
        "qemu://mps2-an500",
        "emulated Cortex-M7 (MPS2 AN500)",
        ("active-5m", "steps-mlperf-tiny-vww"),
        "3x84x84",
    ),
    Device(
        "qemu-stm32f405",
        "qemu://stm32f405",
        "emulated Cortex-M4 (STM32F405, 128 KiB)",
        ("active-5m", "steps-mlperf-tiny-vww"),
        "3x64x64",
        "s8",
        "sgd",
        ("stream", "in_place", "fused_update"),
        122_576,
    ),
    Device("native", "native://", "this host's processor", ("active-5m", "steps-mcunet-5fps-84"), "3x84x84"),
)
