"""Energy measured beside time, on devices that are none: real trigger edges, made-up power, everything labelled so."""

import json

import pytest
from command_line import NETWORK, profile, save_plan

from profiler import store
from profiler.energy.activity import PowerModel, emulated_board
from profiler.energy.emulated import EmulatedDriver, Faults, Segment
from profiler.energy.instruments import open_emulated, open_joulescope
from profiler.energy.meter import EnergyMeter
from profiler.energy.metering import Source
from profiler.errors import UserError
from profiler.link.session import open_device
from profiler.measure.evidence import Evidence
from profiler.measure.judge_energies import judge_energies
from profiler.ops import Conv2d, Empty, Op, Pass
from profiler.store_energy import Energies, HarnessPower
from profiler.workloads.program import microbenchmark

CONV = Op(Conv2d(8, 8, 8, 8, 3, 3, pad_h=1, pad_w=1), Pass.FORWARD)
EMPTY = Op(Empty(), Pass.FORWARD)
MODEL = PowerModel()


def test_energy_of_an_op_is_that_of_its_instructions():
    """Within a thousandth of the truth, what the harness takes between two executions taken out."""
    with (
        emulated_board("stm32f405", MODEL) as edges,
        open_device("qemu://stm32f405") as device,
        open_emulated(EmulatedDriver("js220"), edges, idle_power_w=MODEL.idle_w) as instrument,
    ):
        meter = EnergyMeter(instrument, window_s=0.02)
        found = {}
        for op in (EMPTY, CONV):
            program = microbenchmark(op, device.memory)
            ticks = int(device.run(program, 1).ticks[0, 0])
            found[op] = meter.measure(device, program, execution_s=ticks / device.identity.timer_hz, seed=1)
            assert found[op]["status"] == "ok" and found[op]["source"] == "simulated"
            truth_uj = instrument.truths_uj[-1] / found[op]["loops"]
            assert found[op]["energy_uj"] == pytest.approx(truth_uj, rel=1e-3)
    harness, energies = HarnessPower(), Energies()
    harness.add({"type": "empty", "energy": found[EMPTY]}, "warm")
    energies.add({"type": "op", "energy": found[CONV]})
    columns = energies.columns(harness, "warm", overhead_s=12e-9)
    between_s = found[CONV]["device_duration_s"] - found[CONV]["op_duration_s"] + 12e-9
    assert columns["energy_uj"] == pytest.approx(found[CONV]["energy_uj"] - between_s * harness.power_uw("warm"))
    # An instruction a nanosecond and, by the model, at least 0.15 nJ for it beside the 20 mW of rest.
    assert columns["energy_uj"] > 55.9 * (0.020 + 0.15) / 1e3 * 1e3 * 0.99
    assert columns["net_energy_uj"] == pytest.approx(columns["energy_uj"] - 0.020 * 55.9, rel=1e-2)


class Board:
    """A device whose windows an emulated instrument sees."""

    def __init__(self, target):
        self._target = target
        self.runs = 0

    class identity:  # noqa: N801
        board, timer_hz, clock_hz = "made-up", 1_000_000_000, 10**9

    def run(self, program, repetitions, seed, loops, cold):
        import numpy as np  # noqa: PLC0415

        from profiler.link.messages import Windows  # noqa: PLC0415

        self.runs += 1
        self._target.append(Segment(1e-3 * loops, 0.05, True))

        class Result:
            stop = None
            windows = Windows(1, int(1e6 * loops))
            ticks = np.array([[int(0.9e6 * loops)]])

        return Result()


def test_a_window_with_a_hole_is_measured_again():
    pending = []

    def activity():
        done, pending[:] = list(pending), []
        return done

    board = Board(pending)
    driver = EmulatedDriver("js220", faults=Faults(dropouts=((0.45, 0.02),)))
    with open_emulated(driver, activity, idle_power_w=0.02) as instrument:
        record = EnergyMeter(instrument, window_s=0.3).measure(board, None, execution_s=1e-3, seed=1)
    assert record["status"] == "ok" and board.runs == 2
    assert [w["status"] for w in record["windows"] if w["attempt"] == 0] == ["refused"] * 2
    assert record["energy_uj"] == pytest.approx(50.0, rel=1e-3)


def read_annotations(path):
    """(text, second on the instrument's clock, second of UTC) of each, and the signals: {name: rate}."""
    pyjls = pytest.importorskip("pyjls")
    found = []
    with pyjls.Reader(str(path)) as reader:
        signals = {s.name: s for s in reader.signals.values() if s.sample_rate}
        power = signals["power"]

        def take(sample_id, y, kind, group, text):
            assert kind == pyjls.AnnotationType.TEXT
            found.append((text, sample_id))
            return False

        reader.annotations(power.signal_id, 0, take)
        utc = [reader.sample_id_to_timestamp(power.signal_id, sample_id) / 2**30 for _, sample_id in found]
        found = [(text, sample_id / power.sample_rate, at) for (text, sample_id), at in zip(found, utc, strict=True)]
        rates = {name: signal.sample_rate for name, signal in signals.items()}
        assert {source.model for source in reader.sources.values()} >= {"JS220"}
    return found, rates


def test_trials_are_named_beside_the_recording_at_their_windows(tmp_path):
    pending = []

    def activity():
        done, pending[:] = list(pending), []
        return done

    board, file = Board(pending), tmp_path / "energy-01.jls"
    driver = EmulatedDriver("js220", faults=Faults(dropouts=((0.3, 0.02),)))
    with open_emulated(driver, activity, idle_power_w=0.02, file=file) as instrument:
        meter = EnergyMeter(instrument, window_s=0.3)
        first = meter.measure(board, None, execution_s=1e-3, seed=1, name="op|first|0")
        second = meter.measure(board, None, execution_s=1e-3, seed=1, name="op|second|0")
    found, rates = read_annotations(tmp_path / "energy-01.anno.jls")
    assert rates == {"current": 10**6, "voltage": 10**6, "power": 10**6, "gpi[0]": 2 * 10**6}
    windows = first["windows"] + second["windows"]
    assert [time_s for _, time_s, _ in found] == pytest.approx([w["start_s"] for w in windows], abs=1e-6)
    assert [utc_s for *_, utc_s in found] == pytest.approx([time_s for _, time_s, _ in found], abs=1e-5)
    texts = [text for text, *_ in found]
    assert [text.split(": ")[0] for text in texts] == ["op|first|0", "op|first|0", "op|second|0"]
    assert texts[0].startswith("op|first|0: refused: its rise lies beside samples that the instrument lost")
    assert float(texts[2].split(": ")[1].split()[0]) == pytest.approx(second["energy_uj"], rel=1e-5)
    assert "uJ (standard uncertainty" in texts[2] and "300 in a row" in texts[2]


def test_without_a_recording_nothing_is_named(tmp_path):
    with open_emulated(EmulatedDriver("js220"), list, idle_power_w=0.02) as instrument:
        instrument.annotate(1.0, "op|first|0: 1 uJ")
    assert not list(tmp_path.iterdir())


def test_what_is_doubtful_every_time_is_refused_with_the_reason_and_no_energy():
    driver = EmulatedDriver("js220", faults=Faults(skew=0.02))
    pending = []

    def activity():
        done, pending[:] = list(pending), []
        return done

    with open_emulated(driver, activity, idle_power_w=0.02) as instrument:
        record = EnergyMeter(instrument, window_s=0.3).measure(Board(pending), None, execution_s=1e-3, seed=1)
    assert record["status"] == "refused" and "the device says 300" in record["reason"]
    assert "energy_uj" not in record


# ---------------------------------------------------------------- the command


@pytest.mark.usefixtures("folder")
def test_the_command_measures_energy_beside_time():
    arguments = ("--repetitions", 2, "--limit", 3, "--energy", "emulated:js110", "--energy-window", 0.02)
    status, out, err = profile("--port", "native://", *NETWORK, *arguments, "--out", "run", "--recording", "--json")
    assert status == 0, err
    assert len(json.loads(out)["ops"]) == 3
    manifest = store.read_manifest("run")
    assert manifest["labels"]["energy"] == "simulated" and manifest["instrument"]["model"] == "js110"
    table = store.load("run")
    assert (table.energy_source == "simulated").all() and (table.energy_uj > 0).all()
    assert (table.energy_uncertainty_uj < table.energy_uj).all()
    with open("run/energy-01.jls", "rb") as stream:
        assert stream.read(6) == b"jlsfmt"


def test_a_training_steps_energy_stands_beside_its_time(folder):
    save_plan(folder / "plan.json", images=2)
    arguments = ("--plan", "plan.json", "--energy", "emulated", "--energy-window", 0.01, "--out", "run", "--json")
    status, out, err = profile("step", "--port", "qemu://stm32f405", *NETWORK, *arguments)
    assert status == 0, err
    (step,) = json.loads(out)["steps"]
    assert step["energy_source"] == "simulated"
    # At rest 20 mW; an instruction a nanosecond, at 0.15 nJ and at most as much again and a half for an access.
    assert 0.17 < step["energy_mj"] / step["latency_ms"] < 0.45
    assert step["net_energy_mj"] == pytest.approx(step["energy_mj"] - 0.020 * step["latency_ms"], rel=1e-2)
    # An image's fills end a window: one each for two images.
    (trial,) = [t for t in store.iterate("run") if t["type"] == "step"]
    assert len(trial["energy"]["windows"]) == 2


def test_energy_is_held_against_the_plans_prediction_and_budget(folder):
    predicted = {"latency_ms": 5.0, "energy_mj": 1.0, "memory_bytes": 10**6}
    for name, limit_mj in (("tight", 1e-6), ("wide", 1e6)):
        notes = {"predicted": predicted, "budget": {"latency_ms": None, "energy_mj": limit_mj, "memory_bytes": None}}
        save_plan(folder / f"{name}.json", notes=notes)
    save_plan(folder / "mute.json")
    plans = ("--plan", "tight.json", "--plan", "wide.json", "--plan", "mute.json")
    step = ("step", "--port", "qemu://stm32f405", *NETWORK, *plans)
    status, out, err = profile(*step, "--energy", "emulated", "--energy-window", 0.01, "--out", "run", "--json")
    assert status == 0, err
    steps = {s["plan"]: s for s in json.loads(out)["steps"]}
    assert {name: s["energy_budget"] for name, s in steps.items()} == {"tight": "broken", "wide": "kept", "mute": None}
    for name in ("tight", "wide"):
        assert steps[name]["predicted_energy_mj"] == 1.0
        assert steps[name]["energy_error_percent"] == pytest.approx(100 * (1 / steps[name]["energy_mj"] - 1))
        assert steps[name]["latency_budget"] is None and steps[name]["memory_budget"] is None
    assert steps["mute"]["predicted_energy_mj"] is None and steps["mute"]["energy_error_percent"] is None
    # Without an instrument the prediction is shown and nothing judged.
    status, out, err = profile(*step, "--out", "unmetered")
    assert status == 0, err
    assert "predicted_energy_mj" in out and "budget_energy_mj" in out
    assert "energy_budget" not in out.replace("budget_energy", "") and "energy_error" not in out


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("--energy", "otii"), "--energy 'otii' is unknown"),
        (("--energy", "emulated:js900"), "no emulated instrument 'js900'; there are js110, js220, js320"),
        (("--energy", "emulated", "--energy-rate", 300), "--energy-rate 300 is none that an instrument tells exactly"),
        (("--energy", "emulated", "--energy-rate", 1000, "--energy-window", 0.02), "holds only 20 statistics"),
        (("--energy", "emulated", "--energy-rate", 1000, "--recording"), "there are no samples to keep"),
        (("--energy", "emulated", "--energy-window", "nan"), "Invalid value for '--energy-window'"),
        (("--energy", "emulated", "--energy-window", 60), "Invalid value for '--energy-window'"),
        (("--energy", "recording:run.jls"), "names something that is not there yet"),
        (("--energy", "recording", "--energy-rate", 1000), "an instrument that this command opens"),
        (("--energy-rate", 1000), "--energy-rate goes with --energy"),
        (("--energy", "joulescope"), "nothing at native:// that a Joulescope could be wired to"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_cannot_measure_is_one_sentence(arguments, found):
    status, _, err = profile("--port", "native://", *NETWORK, *arguments, "--out", "run")
    assert status == 2 and found in err and "Traceback" not in err


def test_the_emulated_instrument_is_not_for_boards():
    with (
        pytest.raises(UserError, match="cannot see the trigger pin of /dev/ttyACM0"),
        Source.parse("emulated").around("/dev/ttyACM0"),
    ):
        pass


def test_without_an_instrument_the_vendors_driver_finds_none():
    pytest.importorskip("pyjoulescope_driver")
    with pytest.raises(UserError, match="no Joulescope was found"), open_joulescope():
        pass


def test_a_run_says_which_ops_have_no_energy():
    evidence = Evidence(1e9)
    evidence.energies = {"a": {"ok": ""}, "b": {"refused": "2 windows were recorded"}, "c": {"refused": "x", "ok": ""}}
    (finding,) = judge_energies({"labels": {"energy": "joulescope-js220"}}, evidence)
    assert finding.ops == ("b",) and "2 windows were recorded" in finding.sentence
    assert not list(judge_energies({"labels": {"energy": None}}, Evidence(1e9)))


def test_energies_of_several_sources_are_never_put_together():
    figures = {"energy_uj": 5.0, "energy_uncertainty_uj": 0.1, "baseline_power_uw": None}
    durations = {"duration_s": 1e-3, "device_duration_s": 1e-3, "op_duration_s": 9e-4}
    energies = Energies()
    for source in ("simulated", "joulescope-js220"):
        energies.add({"energy": {"status": "ok", "source": source} | figures | durations})
    assert energies.columns(HarnessPower(), "warm", 0.0) == {"energy_source": "joulescope-js220 and simulated"}
