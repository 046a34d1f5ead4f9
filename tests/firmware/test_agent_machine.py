"""What the agent takes from a Linux machine, on made-up ones: GPIO chips, sysfs, a Raspberry Pi's firmware, a counter,
a port that goes away.

The agent's own sources run; only the C library's calls into the kernel are replaced (see linux_runner.c).
"""

import subprocess
from pathlib import Path

import pytest
from processes import GIVE_UP_S

from profiler.devices.build import FIRMWARE_ROOT

PARTS = ("baud", "clock", "core", "gpio_trigger", "host_state", "sysfs", "tty")
WRAPPED = ("fopen", "open", "ioctl", "nanosleep", "sched_setaffinity", "syscall")
CPU3 = "sys/devices/system/cpu/cpu3/cpufreq"


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    program = tmp_path_factory.mktemp("linux") / "linux_runner"
    sources = [FIRMWARE_ROOT / "linux" / f"{part}.c" for part in PARTS]
    wraps = [f"-Wl,--wrap={name}" for name in WRAPPED]
    subprocess.run(
        ["cc", "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-g", "-fsanitize=address,undefined",
         "-I", FIRMWARE_ROOT, Path(__file__).with_name("linux_runner.c"), *sources, *wraps, "-o", program], check=True,
    )  # fmt: skip
    return program


@pytest.fixture
def machine(runner, tmp_path):
    """A function that makes files below the root, and one that runs a part of the agent there, giving its lines (those
    on stderr where it ends with another status than 0)."""

    def make(files):
        for path, content in files.items():
            place = tmp_path / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content)

    def run(*arguments, status=0):
        command = [runner, tmp_path, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIVE_UP_S, check=False)
        assert done.returncode == status, done.stderr
        return (done.stderr if status else done.stdout).splitlines()

    return make, run


# ---------------------------------------------------------------- the trigger pin


@pytest.mark.parametrize("label", ["pinctrl-bcm2835", "pinctrl-bcm2711", "pinctrl-rp1"])
def test_the_chip_with_the_headers_pins_is_found_by_label_whatever_its_number(machine, label):
    make, run = machine
    make({"dev/gpiochip0": "brcmvirt-gpio 8 99\n", "dev/gpiochip4": f"{label} 54 99\n"})
    assert run("trigger", "-", 17) == [f"{label} line 17 output for profiler-agent", "high", "low", f"{label} line 17"]


def test_another_chip_can_be_named(machine):
    make, run = machine
    make({"dev/gpiochip0": "pinctrl-bcm2711 58 99\n", "dev/gpiochip1": "mcp23017 16 99\n"})
    assert run("trigger", "mcp23017", 3)[-1] == "mcp23017 line 3"


@pytest.mark.parametrize(
    ("chips", "label", "line", "why"),
    [
        ({}, "-", 17, "no GPIO chip is labelled as a Raspberry Pi's header"),
        ({0: "gpio-mt7621 32 99", 1: "pca9555 16 99"}, "tca", 1,
         "no GPIO chip is labelled tca; there are gpio-mt7621, pca9555"),
        ({0: "pinctrl-rp1 54 99"}, "-", 60, "pinctrl-rp1 has lines 0 to 53, not 60"),
        ({0: "pinctrl-rp1 54 17"}, "-", 17, "line 17 of pinctrl-rp1: another program or driver holds it"),
        ({0: "garbage"}, "-", 17, "no GPIO chip is labelled as a Raspberry Pi's header"),
    ],
)  # fmt: skip
def test_without_a_line_the_reason_is_said(machine, chips, label, line, why):
    make, run = machine
    make({f"dev/gpiochip{number}": content for number, content in chips.items()})
    assert run("trigger", label, line) == [f"no: {why}"]


# ---------------------------------------------------------------- what moves its speed


def test_governor_frequency_hottest_sensor_and_the_firmwares_flags_are_told(machine):
    make, run = machine
    make(
        {
            f"{CPU3}/scaling_governor": "ondemand\n",
            f"{CPU3}/scaling_cur_freq": "1500000\n",
            "sys/class/thermal/thermal_zone0/temp": "48312\n",
            "sys/class/thermal/thermal_zone1/temp": "51100\n",
            "dev/vcio": "50005",
        }
    )
    assert run("state", 3) == ["ondemand|1500000|324250|50005|shared"]
    make({f"{CPU3}/cpuinfo_cur_freq": "600000\n"})  # what the hardware says comes first
    assert run("state", 3) == ["ondemand|600000|324250|50005|shared"]


def test_flags_come_from_sysfs_where_there_is_no_mailbox(machine):
    make, run = machine
    make({"sys/devices/platform/soc/soc:firmware/get_throttled": "80008\n"})
    assert run("state", 0) == ["|0|0|80008|shared"]


def test_a_machine_that_tells_nothing_leaves_everything_unknown(machine):
    _, run = machine
    assert run("state", 0) == ["|0|0|?0|shared"]


def test_a_frozen_sensor_is_no_unknown_one(machine):
    make, run = machine
    make({"sys/class/thermal/thermal_zone0/temp": "-12000\n"})
    assert run("state", 0)[0].split("|")[2] == "261150"


# ---------------------------------------------------------------- the core


@pytest.mark.parametrize(("isolated", "core"), [("3\n", 3), ("1-2\n", 2), ("1,3,5-6\n", 6), ("0\n", 0)])
def test_an_isolated_core_is_taken_where_there_is_one(machine, isolated, core):
    make, run = machine
    make({"sys/devices/system/cpu/isolated": isolated})
    assert run("pin", -1) == [f"pinned to {core}", str(core)]
    assert run("state", core)[0].endswith("|isolated")


@pytest.mark.parametrize("isolated", ["\n", "nonsense\n", "1-\n"])
def test_without_an_isolated_core_one_is_taken_that_the_process_may_use(machine, isolated):
    make, run = machine
    make({"sys/devices/system/cpu/isolated": isolated})
    pinned, core = run("pin", -1)
    assert pinned == f"pinned to {core}" and int(core) >= 0


def test_a_core_that_is_named_goes_before_an_isolated_one(machine):
    make, run = machine
    make({"sys/devices/system/cpu/isolated": "3\n"})
    assert run("pin", 1) == ["pinned to 1", "1"]


# ---------------------------------------------------------------- the timer

FIXED = {f"{CPU3}/scaling_governor": "performance\n", f"{CPU3}/scaling_cur_freq": "1500000\n"}


ONE_FREQUENCY = {f"{CPU3}/scaling_min_freq": "1500000\n", f"{CPU3}/scaling_max_freq": "1500000\n"}


@pytest.mark.parametrize("fixed", [FIXED, FIXED | ONE_FREQUENCY | {f"{CPU3}/scaling_governor": "ondemand\n"}])
def test_cycles_of_a_core_whose_frequency_stays_are_counted_at_that_frequency(machine, fixed):
    make, run = machine
    make(fixed | {"cycles": "100 250 900"})
    assert run("cycles", 3) == ["event 0, kernel left out", "perf_cycles 1500000000", "100 250 900"]


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "the frequency of core 3 is not known"),
        (FIXED | {f"{CPU3}/scaling_governor": "ondemand\n"}, "the frequency of core 3 changes"),
        (FIXED, "the kernel gives no cycle counter: there is none, as in most virtual machines"),
    ],
)
def test_otherwise_the_clock_goes_on_and_the_reason_is_said(machine, files, why):
    make, run = machine
    make(files)
    said, timer = run("cycles", 3)
    assert said.startswith(f"no: {why}") and timer == "clock_monotonic_raw 1000000000"


# ---------------------------------------------------------------- the port


@pytest.mark.parametrize(
    ("attempts", "how"), [(0, "leave"), (10, "leave"), (11, "stay"), (100_000, "stay"), (100_000, "empty")]
)
def test_a_port_that_is_missing_or_hangs_up_at_once_is_opened_again_five_times_a_second(machine, attempts, how):
    """No more often: it would cost a core."""
    make, run = machine
    make({"dev/port": "x"})
    assert run("port", attempts, how) == [f"x, x after {200 * (attempts + 1)} ms"]


def test_a_port_that_stays_away_for_more_than_two_seconds_ends_it_unless_it_is_to_stay(machine):
    make, run = machine
    make({"dev/port": "x"})
    assert run("port", 11, "leave", status=1) == ["agent: /dev/port is gone: No such file or directory"]
