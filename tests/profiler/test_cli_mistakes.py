"""Every mistake of a user of ``profile`` ends in one sentence that says what to do."""

import socket
import threading
from pathlib import Path

import pandas as pd
import pytest
from command_line import MEASURE, NETWORK, profile

from profiler import store
from profiler.errors import UserError
from profiler.measure.going_on import check_goes_on

pytestmark = pytest.mark.usefixtures("folder")
MISTAKES = {
    "no verb": ((), 2, "Missing command"),
    "unknown verb": (("mesure", "--port", "x"), 2, "No such command 'mesure'"),
    "unknown option": ((*MEASURE, *NETWORK, "--prot", "x"), 2, "--prot"),
    "no port": (NETWORK, 2, "--port"),
    "unknown board": (("--port", "qemu://stm32h7", *NETWORK), 2, "stm32f405"),
    "unknown scheme": (("--port", "usb://1", *NETWORK), 2, "usb://1"),
    "missing port": (("--port", "/dev/ttyNOWHERE", *NETWORK), 1, "/dev/ttyNOWHERE"),
    "nobody listens": (("--port", "socket://127.0.0.1:9", *NETWORK), 1, "socket://127.0.0.1:9"),
    "malformed input": ((*MEASURE, "--network", "clinet:Net", "--input", "3x64"), 2, "channels, height and width"),
    "zero input": ((*MEASURE, "--network", "clinet:Net", "--input", "3x0x4"), 2, "channels, height and width"),
    "endless input": ((*MEASURE, "--network", "clinet:Net", "--input", f"3x{'9' * 5000}x4"), 2, "height and width"),
    "no memory for the input": (
        (*MEASURE, "--network", "clinet:Net", "--input", "3x999999999x999999999"),
        1,
        "the network clinet:Net does not take an input of 3x999999999x999999999: ",
    ),
    "more classes than the firmware counts": (
        (*MEASURE, *NETWORK, "--classes", 70_000),
        1,
        "the firmware has no room for cosine_head/",
    ),
    "wrong channels": ((*MEASURE, "--network", "clinet:Net", "--input", "5x16x16"), None, "channels"),
    "unknown network": ((*MEASURE, "--network", "resnet", "--input", "3x16x16"), 2, "mcunet-5fps"),
    "no such module": ((*MEASURE, "--network", "nowhere:make", "--input", "3x16x16"), 2, "nowhere"),
    "no such factory": ((*MEASURE, "--network", "clinet:nothing", "--input", "3x16x16"), 2, "nothing"),
    "no Python": ((*MEASURE, "--network", "torn:Net", "--input", "3x16x16"), 2, "SyntaxError"),
    "a script that ends": ((*MEASURE, "--network", "script:Net", "--input", "3x16x16"), 2, "SystemExit: 3"),
    "a factory that ends": ((*MEASURE, "--network", "clinet:leave", "--input", "3x16x16"), 1, "SystemExit: 4"),
    "broken factory": ((*MEASURE, "--network", "clinet:broken", "--input", "3x16x16"), None, "no weights"),
    "unsupported op": ((*MEASURE, "--network", "clinet:Sine", "--input", "3x16x16"), None, "sin"),
    "unknown pass": ((*MEASURE, *NETWORK, "--passes", "backward"), 2, "grad_input"),
    "bad ratio": ((*MEASURE, *NETWORK, "--ratios", "1/2,3"), 2, "'3'"),
    "ratio by zero": ((*MEASURE, *NETWORK, "--ratios", "1/0"), 2, "'1/0'"),
    "unknown optimizer": ((*MEASURE, *NETWORK, "--optimizer", "rmsprop"), 2, "adam"),
    "unknown head": ((*MEASURE, *NETWORK, "--head", "hinge"), 2, "cosine_prototype"),
    "unknown dtype": ((*MEASURE, *NETWORK, "--dtype", "s16"), 2, "there are f32, s8 and both"),
    "no step": (("step", *MEASURE), 2, "give --plan PLAN.json, --method NAME, --scheme NAME or --random-plans N"),
    "unknown update scheme": (("step", *MEASURE, "--scheme", "mcunetv3-1kb", "--input", "3x64x64"), 2, "mcunetv3-99kb"),
    "unknown saving": (
        ("step", *MEASURE, "--scheme", "mcunetv3-99kb", "--input", "3x64x64", "--savings", "swap"),
        2,
        "stream, in_place, fused_update",
    ),
    "scheme without input": (("step", *MEASURE, "--scheme", "mcunetv3-99kb"), 2, "--scheme needs --input"),
    "savings without scheme": (
        ("step", *MEASURE, "--plan", "none.json", "--savings", "stream"),
        2,
        "--savings goes with --scheme",
    ),
    "neither network nor design": (MEASURE, 2, "--design active"),
    "network without input": ((*MEASURE, "--network", "clinet:Net"), 2, "--network and --input go together"),
    "unknown design": ((*MEASURE, "--design", "random"), 2, "network, space-filling, active"),
    "network design of none": ((*MEASURE, "--design", "network"), 2, "--network NAME"),
    "time of no design": ((*MEASURE, *NETWORK, "--time", "5m"), 2, "--time-per-op"),
    "no time": ((*MEASURE, "--design", "space-filling", "--time", "soon"), 2, "90s, 5m or 1h"),
    "negative time": ((*MEASURE, "--design", "space-filling", "--time=-5m"), 2, "90s, 5m or 1h"),
    "no error": ((*MEASURE, "--design", "active", "--target-error", "300%"), 2, "3% or 0.03"),
    "target of space-filling": (
        (*MEASURE, "--design", "space-filling", "--target-error", "3%"),
        2,
        "--target-error goes with --design active",
    ),
    "unknown caches": ((*MEASURE, *NETWORK, "--caches", "hot"), 2, "there are warm, cold and both"),
    "cold without caches": (
        ("--port", "qemu://stm32f405", *NETWORK, "--caches", "both"),
        1,
        "qemu-stm32f405 cannot time ops with cold caches",
    ),
    "unknown region": (
        ("--port", "qemu://mps2-an500", *NETWORK, "--region", "dtcm"),
        2,
        "there are psram (16,760,832 bytes, not cached), ssram23",
    ),
    "no repetitions": ((*MEASURE, *NETWORK, "--repetitions", 0), 2, "--repetitions"),
    "endless repetitions": ((*MEASURE, *NETWORK, "--repetitions", 10**30), 2, "less than or equal to 65534"),
    "endless repetitions of a step": (("step", *MEASURE, "--repetitions", 10**30), 2, "less than or equal to 65534"),
    "endless baud": (("--port", "/dev/ttyNOWHERE", *NETWORK, "--baud", 10**30), 2, "less than or equal to 2147483647"),
    "empty folder": ((*MEASURE, *NETWORK, "--out", ""), 2, "the argument after --out is empty"),
    "empty folder after an equals sign": ((*MEASURE, *NETWORK, "--out="), 2, "--out= gives no value"),
    "empty run": (("check", ""), 2, "the argument after check is empty"),
    "empty first argument": (("",), 2, "the first argument is empty"),
    "no serial port": (("--port", "/dev/null", *NETWORK), 2, "/dev/null is no serial port"),
    "no serial port that nobody has": (("--port", "/dev/full", *NETWORK), 2, "/dev/full is no serial port"),
    "no number of seconds": ((*MEASURE, *NETWORK, "--time-per-op", "inf"), 2, "Invalid value for '--time-per-op'"),
    "no volts": (("energy", "t.csv", "--windows", "w.json", "--voltage", "inf"), 2, "Invalid value for '--voltage'"),
    "out is a file": ((*MEASURE, *NETWORK, "--out", "clinet.py"), 2, "clinet.py is a file"),
    "out below a file": ((*MEASURE, *NETWORK, "--out", "clinet.py/run"), 1, "clinet.py/run"),
    "missing plan": (("step", *MEASURE, "--plan", "none.json"), 1, "none.json"),
    "no plan at all": (("step", *MEASURE, "--plan", "clinet.py"), 1, "clinet.py is no step plan"),
    "plan of nothing": (
        ("step", *MEASURE, "--plan", "empty.json"),
        1,
        "empty.json is no step plan: it has no 'schema'",
    ),
    "torn plan": (
        ("step", *MEASURE, "--plan", "torn.json"),
        1,
        "it is no JSON (Expecting ',' delimiter, line 1, column 3)",
    ),
    "device that is not there": (("devices", "/dev/ttyNONE"), 1, "no device answers at /dev/ttyNONE"),
    "export of nothing": (("export", "nowhere", "--csv", "x.csv"), 1, "nowhere holds no run"),
    "missing csv option": (("export", "nowhere"), 2, "--csv"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_in_one_sentence_that_names_it(name):
    arguments, expected, found = MISTAKES[name]
    Path("empty.json").write_text("{}")
    Path("torn.json").write_text("[1")
    Path("torn.py").write_text("def Net(:")
    Path("script.py").write_text("raise SystemExit(3)")
    status, out, err = profile(*arguments)
    assert status == expected if expected is not None else status in (1, 2)
    errors = [line for line in err.splitlines() if line.startswith("profile: error: ")]
    assert len(errors) == 1, err
    assert found in errors[0]
    assert ";" in errors[0], "it does not say what to do"
    assert "Traceback" not in out + err
    assert not Path("measurements").exists(), "a mistake left a run behind"


def test_a_truncated_run_exports_what_is_sound_says_what_is_lost_and_goes_on(run, folder):
    path = run / store.TRIALS
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    before = len(whole.splitlines())
    status, _, err = profile("export", run, "--csv", "ops.csv")
    assert status == 1
    assert f"the last line ({before}) of" in err
    assert len(pd.read_csv("ops.csv")) > 0
    status, _, err = profile(*MEASURE, *NETWORK, "--repetitions", 1, "--limit", 8, "--out", run, "--resume")
    assert status == 0, err
    assert "torn" in err
    assert " and earlier sittings; not measured: 0" in err
    assert len(path.read_bytes().splitlines()) == before
    assert profile("export", run, "--csv", "ops.csv")[0] == 0


def test_a_run_is_not_overwritten_and_not_continued_with_other_options(run):
    size = (run / store.TRIALS).stat().st_size
    status, _, err = profile(*MEASURE, *NETWORK, "--out", run)
    assert status == 1
    assert "--resume" in err
    status, _, err = profile(
        *MEASURE, *NETWORK, "--repetitions", 1, "--limit", 8, "--seed", 2, "--out", run, "--resume"
    )
    assert status == 1
    assert "begun with another seed (1, now 2)" in err
    assert (run / store.TRIALS).stat().st_size == size


def test_a_run_of_another_network_is_said_by_the_networks_name(run):
    old = store.read_manifest(run)
    with pytest.raises(UserError, match=r"another network \(clinet:Net, now other:Net\)"):
        check_goes_on(run, old, old | {"plan": old["plan"] | {"network": "other:Net", "fingerprint": "f" * 16}})
    with pytest.raises(UserError, match="another network of the same name and input"):
        check_goes_on(run, old, old | {"plan": old["plan"] | {"fingerprint": "f" * 16}})


@pytest.mark.parametrize("answer", [b"", b"login: " * 50])
def test_a_board_that_does_not_answer_or_speaks_something_else_is_said(answer):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = f"socket://127.0.0.1:{server.getsockname()[1]}"
        done = threading.Event()

        def listen():
            connection, _ = server.accept()
            with connection:
                connection.sendall(answer)
                done.wait(60)

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            status, out, err = profile("--port", port, *NETWORK, "--out", "run")
        finally:
            done.set()
            listener.join()
    assert status == 1
    assert f"profile: error: {port}" in err or port in err.partition("profile: error: ")[2]
    assert "Traceback" not in out + err
    assert not Path("run").exists()


def test_a_network_without_a_head_to_its_liking_can_be_measured_without_one():
    Path("mapnet.py").write_text("from torch import nn\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 4, 3))\n")
    command = (
        "--port",
        "native://",
        "--network",
        "mapnet:make",
        "--input",
        "3x8x8",
        "--repetitions",
        1,
        "--out",
        "run",
    )
    status, _, err = profile(*command)
    assert status == 1
    assert "--head none" in err
    assert profile(*command, "--head", "none", "--out", "run")[0] == 0
