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
        ("time_s,power_w\n1,2\n2,inf\n", "line 3, power_w: 'inf' is no number"),
        ("time_s,power_w\n1,2\n2,3\n3,4\n1e15,3\n", "line 5 comes 1e+15 s after the one before it"),
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
        (b"\xf1\0\0\x7aD" + b"\0" * 40, "[" * 100_000, "is no JSON"),
        (b"\xf1\0\0\x7aD" + b"\0" * 40, f"[0, 1, 1{'0' * 400}]", "something else than a list of seconds"),
    ],
)
def test_files_that_make_no_sense_are_one_sentence(content, stamps, found, tmp_path):
    trace, windows = tmp_path / "energy.bin", tmp_path / "stamps.json"
    trace.write_bytes(content)
    windows.write_text(stamps)
    status, out, err = profile("energy", trace, "--windows", windows)
    assert status == 1 and out == "" and found in err and "Traceback" not in err


def test_windows_may_be_pairs_or_what_the_command_itself_printed(tmp_path):
    trace = write_trace(tmp_path / "energy.bin", np.linspace(1, 2, 3000))
    runners = write_stamps(tmp_path / "stamps.json", 0.004, 1.0, 2.0, 2.0, 2.5)
    told = profile("energy", trace, "--windows", runners, "--json")
    printed, pairs = tmp_path / "printed.json", tmp_path / "pairs.json"
    printed.write_text(told[1])
    pairs.write_text("[[1.0, 2.0], [2.0, 2.5]]")
    for other in (printed, pairs):
        assert profile("energy", trace, "--windows", other, "--json") == told


# ---------------------------------------------------------------- a session's results.json


def session(*stamps, count=3000, loud=(1000, 2000)):
    """An entry as the runner writes it: 1 uJ a sample, 4 uJ within ``loud``."""
    samples = np.full(count, 1e-6)
    samples[slice(*loud)] = 4e-6
    return {
        "file": "x.bin",
        "infer": {"iterations": 10},
        "power": {"samples": samples.tolist(), "timestamps": list(stamps), "voltage": 3},
    }


def test_a_sessions_windows_lie_between_the_last_two_time_stamps(tmp_path):
    path = tmp_path / "results.json"
    first, second = session(["00", 10], ["01", 1000], ["02", 2000]), session(["03", 999], ["04", 2001])
    path.write_text(json.dumps([first, second]))
    before = path.read_bytes()
    status, out, _ = profile("energy", path, "--json", "--plot", tmp_path / "p.png")
    one, two = json.loads(out)["windows"]
    assert status == 0 and one["status"] == "ok" and path.read_bytes() == before
    # To the sample: a window of n samples holds those from the first stamp's on, up to the second's.
    assert one["energy_uj"] == pytest.approx(4000, rel=1e-12) and two["energy_uj"] == pytest.approx(4002, rel=1e-12)
    assert one["inference_energy_uj"] == pytest.approx(400) and one["inferences"] == 10
    assert one["baseline_power_uw"] == pytest.approx(1000)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_a_time_stamp_that_was_lost_refuses_its_measurement(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([session(["00", 1000], ["01", 2000]), session(["02", 500], ["04", 2000])]))
    status, out, err = profile("energy", path, "--json")
    good, bad = json.loads(out)["windows"]
    assert status == 1 and good["status"] == "ok" and bad["status"] == "refused" and "energy_uj" not in bad
    assert "time stamps are missing: there are 2, 4" in err


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("[]", "holds no measurement"),
        ('[{"infer": {"iterations": 1}}]', "entry 1 has no power samples"),
        ('[{"infer": {"iterations": 1}, "power": {"samples": [1, 2]}}]', "entry 1 is not as the runner writes it"),
        (json.dumps(session(["00", 1000])), "has 1 time stamps: no window"),
        (json.dumps(session(["00", 1000], ["01", 1000])), "the window goes from sample 1000 to 1000"),
        (json.dumps(session(["00", 1000], ["01", 2000], count=0)), "holds no energies"),
        (json.dumps(session(["00", 1000], ["01", 10**400])), "entry 1 is not as the runner writes it"),
        (json.dumps(session(["00", 1000], ["01", 2000]) | {"infer": {"iterations": 10**400}}), "is not as the runner"),
        ("[1, 2", "is no JSON"),
    ],
)
def test_sessions_that_make_no_sense_are_one_sentence(content, found, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(content)
    status, out, err = profile("energy", path)
    assert status == 1 and out == "" and found in err and "Traceback" not in err


# ---------------------------------------------------------------- spellings of CSV


def test_a_csvs_windows_are_told_by_its_own_clock(tmp_path):
    path = tmp_path / "t.csv"
    rows = [f"{100 + n / 100:.2f},{4 if 100 <= n < 200 else 1}" for n in range(300)]
    path.write_text("\n".join(["time_s,power_w", *rows]))
    (window,) = windows_of(csv_trace.read_trace(path), [Span(101.0, 102.0)])
    assert window.status is Status.OK and window.energy_uj == pytest.approx(4e6, rel=0.011)
    early, late = windows_of(csv_trace.read_trace(path), [Span(1.0, 2.0), Span(102.5, 103.5)])
    assert "begins after it did, at 100 s" in early.reason and "ends before it, at 103 s" in late.reason


def test_semicolons_tabs_and_decimal_commas_are_read(tmp_path):
    rows = [(n / 1000, 0.5 + n / 8) for n in range(20)]
    plain = "\n".join(["time_s,current_ma", *(f"{t},{i}" for t, i in rows)])
    wanted = np.array([i for _, i in rows])  # mA at 1 V and 1 ms: uJ
    for text in (
        plain,
        plain.replace(",", "\t"),
        plain.replace(",", ";"),
        plain.replace(",", ";").replace(".", ","),
        "\ufeff" + plain,
    ):
        path = tmp_path / "t.csv"
        path.write_text(text)
        assert csv_trace.read_trace(path, supply_v=1.0).sample_energy_uj == pytest.approx(wanted)
