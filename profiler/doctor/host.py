"""This host: room for measurements, and what moves the times of ``native://``."""

from __future__ import annotations

import os
import re
import shutil
import time

from profiler.devices.access import may
from profiler.doctor.check import Finding, Host, broken, is_root, ok, set_kernel_file, warning

#: A run of a whole network takes about 10 MB; a Joulescope's recording of an hour some GB.
LEAST_FREE_BYTES = 100_000_000
LITTLE_FREE_BYTES = 2_000_000_000
#: Clock sources that are read without entering the kernel.
_FAST_CLOCKS = ("tsc", "arch_sys_counter", "kvm-clock", "hyperv_clocksource")
_COARSEST_CLOCK_S = 1e-6
#: Share of the time that another virtual machine took, since this one was started, above which times are not trusted.
_MOST_STOLEN = 0.01
#: Beyond it the kernel lets users count nothing.
_MOST_PARANOID = 2


def disk(host: Host) -> Finding:
    folder = host.folder.resolve()
    if not may(folder, os.W_OK):
        return broken(f"{folder} may not be written", "go to a folder of your own, or give --out one")
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:,.1f} GB free in {folder}"
    if free < LEAST_FREE_BYTES:
        return broken(found, "make room, or give --out a folder on another disk")
    if free < LITTLE_FREE_BYTES:
        return warning(f"{found}: enough for runs, not for hours of energy recordings", "make room")
    return ok(found)


def clock(host: Host) -> Finding:
    """What ``native://`` reads before and after each op."""
    resolution_s = time.clock_getres(getattr(time, "CLOCK_MONOTONIC_RAW", time.CLOCK_MONOTONIC))
    source = host.text("sys/devices/system/clocksource/clocksource0/current_clocksource") or "unknown"
    found = f"resolution {resolution_s * 1e9:,.0f} ns, clock source {source}"
    if resolution_s > _COARSEST_CLOCK_S:
        return warning(f"{found}: too coarse for short ops", "boot with clocksource=tsc, or measure on another machine")
    if source != "unknown" and not source.startswith(_FAST_CLOCKS):
        return warning(
            f"{found}: reading it takes a microsecond or more",
            "boot with clocksource=tsc, or see in `dmesg` why the kernel does not trust it",
        )
    return ok(found)


def governor(host: Host) -> Finding:
    folders = (host.root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    governors = sorted({text for path in folders if (text := host.text(str(path.relative_to(host.root))))})
    if not governors:
        return ok("none: the frequency is not this system's to set")
    if governors != ["performance"]:
        return warning(
            f"{', '.join(governors)}: the frequency follows the load",
            set_kernel_file("/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor", "performance"),
        )
    return ok("performance")


def virtual_machine(host: Host) -> Finding:
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", host.text("proc/cpuinfo") or "", re.MULTILINE)
    kind = host.text("sys/class/dmi/id/product_name") or host.text("sys/hypervisor/type")
    if flags and "hypervisor" in flags[1].split():
        return warning(
            f"a virtual machine{f' ({kind})' if kind else ''}: its times depend on what else the physical one does",
            "trust only differences above what `profile check` reports, or measure on a machine of its own",
        )
    return ok("none")


def quiet(host: Host) -> Finding:
    """Whether something else runs here now, or took time from this virtual machine so far."""
    load = float((host.text("proc/loadavg") or "0").split()[0])
    cores = os.cpu_count() or 1
    stolen = _stolen_share(host.text("proc/stat") or "")
    found = f"load {load:.1f} on {cores} cores, {100 * stolen:.1f} % of the time stolen since start"
    if stolen > _MOST_STOLEN:
        return warning(found, "other virtual machines take its time: measure elsewhere, or give more --repetitions")
    if load > max(0.5, cores / 2):
        return warning(found, "end or wait for what else runs (`top`), or give more --repetitions")
    return ok(found)


def _stolen_share(stat: str) -> float:
    """Of the first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal."""
    words = stat.partition("\n")[0].split()[1:9]
    times = [int(word) for word in words if word.isdecimal()]
    return times[7] / sum(times) if len(times) == 8 and sum(times) else 0.0


def counters(host: Host) -> Finding:
    """Only ``agent --timer cycles`` counts cycles; without them it takes the clock."""
    level = host.text("proc/sys/kernel/perf_event_paranoid")
    if level is None or not level.lstrip("-").isdecimal():
        return ok("this kernel has none: the agent takes the clock")
    found = f"perf_event_paranoid is {level}"
    if not list((host.root / "sys/bus/event_source/devices").glob("*cpu*")) + _arm_counters(host):
        return ok(f"{found}, and the processor shows none (a virtual machine?): the agent takes the clock")
    if int(level) > _MOST_PARANOID and not is_root():
        return warning(
            f"{found}: users may not count cycles (only `agent --timer cycles` does)",
            f"sudo sysctl kernel.perf_event_paranoid={_MOST_PARANOID}",
        )
    return ok(found)


def _arm_counters(host: Host) -> list[object]:
    return list((host.root / "sys/bus/event_source/devices").glob("armv*"))
