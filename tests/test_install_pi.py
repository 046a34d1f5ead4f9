"""scripts/install-pi against made-up Raspberry Pis: ssh and scp on PATH that work in a folder of the test's own."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from profiler.devices.build import artifact, build

ROOT = Path(__file__).parents[1]
UNIT = ROOT / "firmware" / "linux" / "profiler-agent.service"

#: Model and core of each machine that is tried.
PI3B, PI3A, PI4, PI5 = (
    ("Raspberry Pi 3 Model B Plus Rev 1.3", "0xd03"),
    ("Raspberry Pi 3 Model A Plus Rev 1.0", "0xd03"),
    ("Raspberry Pi 4 Model B Rev 1.4", "0xd08"),
    ("Raspberry Pi 5 Model B Rev 1.0", "0xd0b"),
)
CONFIG = "# For more options see the documentation\ndtparam=audio=on\n[cm4]\notg_mode=1\n[all]"  # no end of line
COMMAND_LINE = "console=serial0,115200 console=tty1 root=PARTUUID=1-02 rootwait\n"

#: What stands for programs; DESTDIR makes the Pi's part of the script work on the made-up file system.
FAKES = {
    "ssh": 'echo "ssh $*" >>"$FAKE_LOG"; [ "$1" = -t ] && shift; shift; DESTDIR="$FAKE_ROOT" bash -c "$*"',
    "scp": 'echo "scp $*" >>"$FAKE_LOG"; shift; cp "${@:1:$#-1}" "$(echo "${@: -1}" | cut -d: -f2)"',
    "sudo": 'exec "$@"',
    "uname": "echo $FAKE_MACHINE",
}


class Pi:
    """A file system with what a Raspberry Pi's has, and the script run against it."""

    def __init__(self, folder, machine, boot="boot/firmware", kernel="aarch64", cores=4):
        model, part = machine
        self.root, self.log, self.boot = folder / "root", folder / "log", folder / "root" / boot
        self._programs = folder / "bin"
        self._kernel = kernel
        self._programs.mkdir()
        for name, body in FAKES.items():
            program = self._programs / name
            program.write_text(f"#!/bin/bash\n{body}\n")
            program.chmod(0o755)
        for path, content in {
            "proc/device-tree/model": model + "\0",
            "proc/cpuinfo": "".join(f"processor\t: {i}\nCPU part\t: {part}\n\n" for i in range(cores)),
            f"{boot}/config.txt": CONFIG,
            f"{boot}/cmdline.txt": COMMAND_LINE,
        }.items():
            place = self.root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content)

    def install(self, *options, check=True):
        environment = os.environ | {
            "PATH": f"{self._programs}:{os.environ['PATH']}",
            "FAKE_ROOT": str(self.root),
            "FAKE_LOG": str(self.log),
            "FAKE_MACHINE": self._kernel,
        }
        command = [ROOT / "scripts" / "install-pi", *options, "pi@made-up"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def files(self):
        return {p.relative_to(self.root): p.read_bytes() for p in self.root.rglob("*") if p.is_file()}

    def read(self, path):
        return (self.root / path).read_text()

    @property
    def config(self):
        """The script's section of config.txt."""
        return (self.boot / "config.txt").read_text().partition("# begin profiler-agent\n")[2].splitlines()

    @property
    def words(self):
        text = (self.boot / "cmdline.txt").read_text()
        assert text.count("\n") == 1
        return text.split()

    @property
    def agent_options(self):
        return self.read("etc/default/profiler-agent").removeprefix('AGENT_OPTIONS="').removesuffix('"\n').split()


@pytest.fixture
def pi(tmp_path):
    return lambda machine, **changes: Pi(tmp_path, machine, **changes)


def needs_systemctl(test):
    return pytest.mark.skipif(shutil.which("systemctl") is None, reason="no systemctl")(test)


@needs_systemctl
def test_a_raspberry_pi_4_becomes_a_usb_gadget_that_starts_the_agent(pi):
    there = pi(PI4)
    there.install()
    assert there.config == ["[all]", "dtoverlay=dwc2,dr_mode=peripheral", "# end profiler-agent"]
    assert (there.boot / "config.txt").read_text().startswith(CONFIG + "\n# begin")
    assert (there.boot / "config.txt.before-profiler-agent").read_text() == CONFIG
    assert there.words == COMMAND_LINE.split()
    assert there.read("etc/modules-load.d/profiler-agent.conf") == "dwc2\ng_serial\n"
    assert os.readlink(there.root / "etc/systemd/system/serial-getty@ttyGS0.service") == "/dev/null"
    assert (there.root / "etc/systemd/system/multi-user.target.wants/profiler-agent.service").is_symlink()
    assert there.read("etc/systemd/system/profiler-agent.service") == UNIT.read_text()
    installed = there.root / "usr/local/bin/profiler-agent"
    assert installed.read_bytes() == artifact("linux-cortex-a72").read_bytes() and os.access(installed, os.X_OK)
    assert not (there.root / "etc/sysctl.d").exists()


@needs_systemctl
def test_what_is_installed_already_is_not_changed_and_the_first_backup_stays(pi):
    there = pi(PI4)
    there.install("--realtime", "--isolate")
    before = there.files()
    again = there.install("--realtime", "--isolate")
    assert there.files() == before
    assert "\nfile /" not in again.stdout and "\nreboot" not in again.stdout


@needs_systemctl
def test_another_link_takes_the_place_of_the_first(pi):
    there = pi(PI3A, boot="boot")
    there.install("--isolate")
    there.install("--link", "/dev/serial0", "--baud", "4000000", "--core", "2")
    assert there.config[1:-1] == ["enable_uart=1", "dtoverlay=disable-bt", "init_uart_clock=64000000"]
    assert not (there.root / "etc/modules-load.d/profiler-agent.conf").exists()
    assert there.words == ["console=tty1", "root=PARTUUID=1-02", "rootwait", "isolcpus=3"]  # as --isolate left it
    for name in ("ttyAMA0", "ttyS0"):
        assert os.readlink(there.root / f"etc/systemd/system/serial-getty@{name}.service") == "/dev/null"
    assert there.agent_options == [
        "--port",
        "/dev/serial0",
        "--stay",
        "--core",
        "2",
        "--timer",
        "clock",
        "--baud",
        "4000000",
    ]


@needs_systemctl
def test_a_raspberry_pi_5_has_its_uart_on_another_name(pi):
    there = pi(PI5)
    refused = there.install("--link", "/dev/serial0", check=False)
    assert refused.returncode == 1 and "--link /dev/ttyAMA0" in refused.stderr
    there.install("--link", "/dev/ttyAMA0")
    assert there.config[1:-1] == ["enable_uart=1", "dtparam=uart0=on"]
    assert there.agent_options[-2:] == ["--baud", "921600"]


@needs_systemctl
def test_the_agent_takes_the_options_that_it_is_started_with(pi, tmp_path):
    there = pi(PI4)
    there.install(
        "--isolate", "--realtime", "--timer", "cycles", "--trigger-line", "27", "--trigger-chip", "pinctrl-rp1"
    )
    assert "isolcpus=3" in there.words
    assert there.read("etc/sysctl.d/60-profiler-agent.conf") == (
        "kernel.sched_rt_runtime_us=-1\nkernel.perf_user_access=1\n"
    )
    options = there.agent_options
    options.remove("--stay")
    build("linux-native")
    options[options.index("--port") + 1] = str(tmp_path / "none")
    options[options.index("--core") + 1] = "0"
    started = subprocess.run([artifact("linux-native"), *options], capture_output=True, text=True, check=False)
    assert started.returncode == 1, started.stderr  # 2 would be an option that it does not know
    assert "no trigger" in started.stderr


def test_a_dry_run_shows_every_change_and_makes_none(pi):
    there = pi(PI3A)
    before = there.files()
    shown = there.install("--dry-run", "--link", "/dev/serial0", "--isolate", "--realtime").stdout
    assert there.files() == before
    for line in (
        "+ .venv/bin/profile firmware build linux-cortex-a53",
        "+ scp -q firmware/build/linux-cortex-a53/agent firmware/linux/profiler-agent.service",
        "+dtoverlay=disable-bt",
        "-console=serial0,115200 console=tty1 root=PARTUUID=1-02 rootwait",
        "+console=tty1 root=PARTUUID=1-02 rootwait isolcpus=3",
        '+AGENT_OPTIONS="--port /dev/serial0 --stay --core 3 --timer clock --baud 921600 --realtime"',
        "+kernel.sched_rt_runtime_us=-1",
        "enable profiler-agent.service",
    ):
        assert line in shown
    assert all(entry.startswith("ssh pi@made-up bash -s -- ") for entry in there.log.read_text().splitlines())


@pytest.mark.parametrize(
    ("machine", "changes", "options", "refusal"),
    [
        (PI4, {"kernel": "armv7l"}, [], (1, "pi@made-up runs a kernel for armv7l")),
        (("Odroid", "0xd05"), {}, [], (1, "pi@made-up has a core (part 0xd05) that no preset is for")),
        (PI4, {"boot": "elsewhere"}, [], (1, "no config.txt")),
        (PI3B, {}, [], (1, f"a {PI3B[0]} has no USB port that can be a gadget")),
        (PI4, {"cores": 2}, ["--core", "2"], (2, "pi@made-up has cores 0 to 1, not 2")),
        (PI4, {}, ["--baud", "115200"], (2, "a USB gadget has no baud rate")),
        (PI4, {}, ["--link", "/dev/ttyUSB0"], (2, "--link /dev/ttyUSB0 is no port that this sets up")),
        (PI4, {}, ["--core", "3; reboot"], (2, "--core 3; reboot is no number")),
        (PI4, {}, ["--trigger-chip", '"$(reboot)'], (2, "is no chip's label")),
        (PI4, {}, ["--timer", "sundial"], (2, "there is no timer sundial")),
        (PI4, {}, ["--fast"], (2, "there is no option --fast")),
        (PI4, {}, ["pi@another"], (2, "both pi@another and pi@made-up are hosts")),
    ],
)
def test_what_cannot_work_is_refused_with_a_sentence_before_anything_changes(pi, machine, changes, options, refusal):
    there, (status, said) = pi(machine, **changes), refusal
    before = there.files()
    refused = there.install(*options, check=False)
    assert refused.returncode == status and said in refused.stderr
    assert there.files() == before


def test_a_host_that_does_not_answer_is_named(pi):
    there = pi(PI4)
    (there.log.parent / "bin" / "ssh").write_text("#!/bin/bash\nexit 255\n")
    refused = there.install(check=False)
    assert refused.returncode == 1 and "cannot ask pi@made-up over ssh" in refused.stderr


def test_a_boot_file_that_cannot_be_edited_whole_stays_as_it_was(pi):
    there = pi(PI4)
    (there.log.parent / "bin" / "awk").write_text("#!/bin/bash\nexit 1\n")
    (there.log.parent / "bin" / "awk").chmod(0o755)
    assert there.install(check=False).returncode != 0
    assert (there.boot / "config.txt").read_text() == CONFIG
    assert (there.boot / "cmdline.txt").read_text() == COMMAND_LINE


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_understands_the_unit(tmp_path):
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/profiler-agent", "/bin/true"))
    checked = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert "profiler-agent" not in checked.stderr and checked.returncode == 0


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck")
def test_shellcheck_finds_nothing():
    scripts = [ROOT / "scripts" / "install-pi", ROOT / "firmware" / "linux" / "set-up-pi"]
    checked = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
