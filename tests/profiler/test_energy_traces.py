"""Energy of windows in recorded traces: MLPerf Tiny's format and CSV."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from command_line import profile
from hypothesis import given
from hypothesis import strategies as st

from profiler.energy import csv_trace, mlperf
from profiler.energy.trace import Trace, windows_of
from profiler.energy.windows import Span, Status
from profiler.errors import UserError

DATA = Path(os.environ.get("TINYTRAIN_DATA", "/nowhere")) / "energy_traces"


def write_trace(path, energies, rate_hz=1000.0):
    path.write_bytes(b"\xf1" + np.array([rate_hz], "<f4").tobytes() + np.array(energies, "<f4").tobytes())
    return path


def write_stamps(path, *stamps):
    path.write_text(json.dumps(stamps))
    return path


# ---------------------------------------------------------------- the real ones


def official(trace):
    """(trace, time stamps, official energies) of a published result."""
    name = re.sub(r"(_trace\d+-|_)energy.bin$", "", trace.name)
    stamps = next(trace.parent.glob(f"{name}*timestamps.json"))
    text = (trace.parent / f"{name}_results.txt").read_text()
    return stamps, [float(uj) for uj in re.findall(r"Energy +: +([\d.]+) uJ", text)]


@pytest.mark.skipif(not DATA.is_dir(), reason="TINYTRAIN_DATA names no folder with energy_traces")
def test_published_windows_are_reproduced_to_the_last_digit():
    traces = sorted(DATA.glob("*energy.bin"))
    assert traces
    for path in traces:
        stamps, energies_uj = official(path)
        spans, _ = mlperf.read_windows(stamps)
        found = windows_of(mlperf.read_trace(path), spans, resolution_s=mlperf.RESOLUTION_S)
        assert len(found) == len(energies_uj)
        for window, official_uj in zip(found, energies_uj, strict=True):
            assert window.status is Status.OK
            assert window.energy_uj == pytest.approx(official_uj, rel=1e-8)
            # What the edges leave open, a sample at either end, is what the uncertainty is about.
            assert 1e-6 * official_uj < window.energy_uncertainty_uj < 1e-3 * official_uj


# ---------------------------------------------------------------- windows


def test_a_window_holds_the_samples_that_begin_in_it():
    trace = Trace(1000.0, np.arange(100.0), "made")
    (window,) = windows_of(trace, [Span(0.010, 0.020)])
    assert window.energy_uj == sum(range(10, 20))
    assert window.power_uw == pytest.approx(sum(range(10, 20)) / 0.010)


def test_the_net_energy_is_above_the_idle_power():
    idle, active = 2.0, 5.0  # uJ a sample of 1 ms
    trace = Trace(1000.0, np.array([idle] * 200 + [active] * 300 + [idle] * 200), "made")
    (window,) = windows_of(trace, [Span(0.2, 0.5)])
    assert window.baseline_power_uw == pytest.approx(idle * 1000)
    assert window.net_energy_uj == pytest.approx(300 * (active - idle))


def test_a_baseline_that_drifts_is_less_certain():
    def net(after):
        trace = Trace(1000.0, np.array([2.0] * 200 + [5.0] * 300 + [after] * 200), "made")
        return windows_of(trace, [Span(0.2, 0.5)])[0]

    assert net(3.0).net_energy_uncertainty_uj > 100 * net(2.0).baseline_uncertainty_uw
    assert net(3.0).net_energy_uncertainty_uj == pytest.approx(500 * 0.3, rel=0.1)  # half of 1 uJ/ms for 300 ms


def test_lost_samples_are_filled_up_to_a_thousandth_and_refused_beyond():
    energies = np.full(10_000, 3.0)
    energies[2000:2005] = np.nan
    (window,) = windows_of(Trace(1000.0, energies, "made"), [Span(1.0, 9.0)])
    assert window.status is Status.OK and window.energy_uj == pytest.approx(8000 * 3.0)
    energies[2000:2010] = np.nan
    (window,) = windows_of(Trace(1000.0, energies, "made"), [Span(1.0, 9.0)])
    assert window.status is Status.REFUSED and "10 of 8000 samples" in window.reason
    assert "energy_uj" not in window.to_dict()


@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([100.0, 1000.0, 32000.0]))
def test_energies_of_adjoining_windows_add_up(first, second, rate_hz):
    trace = Trace(rate_hz, np.random.default_rng(first).normal(5, 1, 1000), "made")
    times = trace.sample_times_s
    a, b, c = times[100], times[100 + first], times[100 + first + second]
    whole = trace.window(Span(a, c), Span(0, a), Span(c, c)).energy_uj
    parts = [trace.window(Span(*ends), Span(0, a), Span(c, c)).energy_uj for ends in ((a, b), (b, c))]
    assert whole == pytest.approx(sum(parts))


# ---------------------------------------------------------------- CSV


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("time_s,power_w", (1.0, 0.012)),
        ("Timestamp(ms),Power(mW)", (1e3, 12.0)),
        ("#time,current,voltage", (1.0, 0.004, 3.0)),
        ("Timestamp(ms),Current(uA),Voltage(V)", (1e3, 4000.0, 3.0)),
        ("time_us,energy_uj", (1e6, 12.0)),
        ("Time (s),Main current (mA),Main voltage (V)", (1.0, 4.0, 3.0)),
    ],
)
def test_columns_are_found_with_their_units(header, row, tmp_path):
    path = tmp_path / "trace.csv"
    lines = [",".join(str(v) for v in (row[0] * n / 1000, *row[1:])) for n in range(500)]
    path.write_text("\n".join([header, *lines]))
    trace = csv_trace.read_trace(path)
    assert trace.rate_hz == pytest.approx(1000.0)
    assert trace.sample_energy_uj == pytest.approx(np.full(500, 12.0))


def test_currents_alone_want_the_supplys_voltage(tmp_path):
    path = tmp_path / "ppk.csv"
    path.write_text("Timestamp(ms),Current(uA)\n" + "\n".join(f"{n},{1000}" for n in range(50)))
    with pytest.raises(UserError, match="--voltage"):
        csv_trace.read_trace(path)
    assert csv_trace.read_trace(path, supply_v=3.3).sample_energy_uj == pytest.approx(np.full(50, 3.3))


def test_rows_that_are_missing_become_lost_samples(tmp_path):
    path = tmp_path / "gap.csv"
    path.write_text("time_s,power_w\n" + "\n".join(f"{n / 1000},1" for n in range(300) if not 100 <= n < 120))
    energies = csv_trace.read_trace(path).sample_energy_uj
    assert len(energies) == 300 and np.isnan(energies).sum() == 20


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "is no CSV"),
        ("time_s,power_w\n", "0 samples"),
        ("a,b\n1,2\n2,3\n", "no column of times"),
        ("time_s,b\n1,2\n2,3\n", "no column of energy, power or current"),
        ("time_s,power_w\n1,2\n2,x\n", "line 3, power_w: 'x' is no number"),
        ("time_s,power_w\n1,2\n,3\n", "line 3 has no time"),
        ("time_s,power_w\n1,2\n1,3\n", "line 3 is not after"),
        ("time_s,power_w\n1,2\n2,3\n3,4\n4.5,3\n5.5,3\n", "line 5 comes 1.5 s after"),
    ],
)
def test_a_csv_that_makes_no_sense_is_one_sentence(text, found, tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(found)):
        csv_trace.read_trace(path)


# ---------------------------------------------------------------- the command


def test_the_command_prints_every_window(tmp_path):
    trace = write_trace(tmp_path / "energy.bin", [1.0] * 1000 + [4.0] * 1000 + [1.0] * 1000)
    before = trace.read_bytes()
    stamps = write_stamps(tmp_path / "stamps.json", 0.004, 1.0, 2.0)
    status, out, _ = profile("energy", trace, "--windows", stamps, "--json", "--plot", tmp_path / "p.png")
    (window,) = json.loads(out)["windows"]
    assert status == 0
    assert window["start_s"] == 1.0 and window["stop_s"] == 2.0
    # On which side of a boundary a stamp falls is a matter of rounding: a sample at either end.
    assert window["energy_uj"] == pytest.approx(4000, abs=4)
    assert window["net_energy_uj"] == pytest.approx(3000, abs=4) and 0 < window["energy_uncertainty_uj"] < 4
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert trace.read_bytes() == before


def test_a_window_past_the_end_is_refused_and_the_others_stay(tmp_path):
    trace = write_trace(tmp_path / "energy.bin", [1.0] * 3000)
    stamps = write_stamps(tmp_path / "stamps.json", 0.0, 1.0, 2.0, 2.5, 9.0)
    status, out, err = profile("energy", trace, "--windows", stamps, "--json")
    good, bad = json.loads(out)["windows"]
    assert good["status"] == "ok" and bad["status"] == "refused" and "energy_uj" not in bad
    assert status == 1 and "ends before it" in err


def test_a_start_without_a_stop_is_said(tmp_path):
    trace = write_trace(tmp_path / "energy.bin", [1.0] * 3000)
    stamps = write_stamps(tmp_path / "stamps.json", 0.0, 1.0, 2.0, 2.5)
    status, out, err = profile("energy", trace, "--windows", stamps, "--json")
    assert status == 0 and len(json.loads(out)["windows"]) == 1 and "2.5 s on, was never finished" in err


@pytest.mark.parametrize(
    ("content", "stamps", "found"),
    [
        (b"", "[0, 1, 2]", "is empty"),
        (b"\xf1\0\0\x7aD", "[0, 1, 2]", "is empty"),
        (b"JLSsomething else", "[0, 1, 2]", "is no energy trace: it begins with 0x4a"),
        (b"\xf1\0\0\x7aD" + b"\0" * 41, "[0, 1, 2]", "breaks off within a sample"),
        (b"\xf1\0\0\xc0\x7f" + b"\0" * 40, "[0, 1, 2]", "sample rate of nan Hz"),
        (b"\xf1\0\0\x7aD" + b"\0" * 40, "[0, 2, 1]", "time stamp 3 (1 s) is not after 2 s"),
        (b"\xf1\0\0\x7aD" + b"\0" * 40, "[0, 1]", "holds no window, only 2 time stamps"),
        (b"\xf1\0\0\x7aD" + b"\0" * 40, "{}", "something else than a list"),
        (b"\xf1\0\0\x7aD" + b"\0" * 40, "[0, 1", "is no JSON"),
    ],
)
def test_files_that_make_no_sense_are_one_sentence(content, stamps, found, tmp_path):
    trace, windows = tmp_path / "energy.bin", tmp_path / "stamps.json"
    trace.write_bytes(content)
    windows.write_text(stamps)
    status, out, err = profile("energy", trace, "--windows", windows)
    assert status == 1 and out == "" and found in err and "Traceback" not in err
