"""Tables of measurements, fitted without a run: geometry alone, since nobody knows the kernels."""

import csv
import errno
import tempfile
from pathlib import Path

import numpy as np
import pytest
import synthetic

from costmodels.commands.fit import fit
from costmodels.loops import LOOP_TERMS
from costmodels.model import CostModel
from costmodels.tables import read_measured_table
from profiler.errors import UserError
from profiler.ops import Conv2d, Op, Pass


@pytest.fixture(scope="module")
def ops():
    return list(
        dict.fromkeys(
            Op(Conv2d(size, size + 1, c_in, c_out, kernel, kernel, 1, 1, kernel // 2, kernel // 2), Pass.FORWARD)
            for size in (4, 7, 9)
            for c_in in (3, 8, 17)
            for c_out in (4, 7, 14, 33)  # every remainder that blocks of four leave
            for kernel in (1, 3)
        )
    )


def cost(op):
    return sum(synthetic.UNIT_COSTS_US[name] * count for name, count in synthetic.work(op).items())


def write(path, ops, **columns):
    rows = []
    for op in ops:
        record = op.to_dict()
        rows.append(record | record.pop("geometry") | {name: value(op) for name, value in columns.items()})
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_the_column_that_was_asked_for_is_fitted_on_geometry_alone(ops, tmp_path):
    path = write(tmp_path / "theirs.csv", ops, latency_us=lambda op: 1.0, latency_ms=cost, energy_uj=lambda op: 2.0)
    model = CostModel().fit(read_measured_table(path, "latency_ms"))
    assert model.card_["kernels"] == "unknown"
    names = model.targets["latency"].groups["conv2d/forward/f32/blocked"].terms_
    assert "calls" in names and set(names) <= set(LOOP_TERMS)
    unseen = [Op(Conv2d(6, 7, 12, c_out, 3, 3, 1, 1, 1, 1), Pass.FORWARD) for c_out in (8, 13, 22)]
    np.testing.assert_allclose(model.latencies_us(unseen), [1e3 * cost(op) for op in unseen], rtol=0.1)
    model.save(tmp_path / "model")
    loaded = CostModel.load(tmp_path / "model")
    np.testing.assert_allclose(loaded.latencies_us(unseen), model.latencies_us(unseen), rtol=1e-12)


def test_energy_needs_to_be_there(ops, tmp_path):
    path = write(tmp_path / "theirs.csv", ops[:20], latency_us=cost, energy_uj=lambda op: "")
    with pytest.raises(UserError, match="energy_uj has no energy"):
        read_measured_table(path, "energy_uj")


def test_a_column_that_cannot_be_fitted_is_refused_with_those_that_can(ops, tmp_path):
    path = write(tmp_path / "theirs.csv", ops[:5], latency_us=cost, weight_kg=lambda op: 3)
    for column in ("weight_kg", "nothing"):
        with pytest.raises(UserError, match=r"of these it has latency_us"):
            read_measured_table(path, column)


def test_a_column_without_a_value_is_not_said_to_be_there(ops, tmp_path):
    path = write(tmp_path / "theirs.csv", ops[:5], latency_us=cost, energy_uj=lambda op: "")
    with pytest.raises(UserError, match=r"of these it has latency_us(;|$)"):
        read_measured_table(path, "latency_ms")


@pytest.mark.parametrize("out", ["taken", "taken/model"])
def test_a_model_that_cannot_be_written_is_said_before_anything_is_fitted(out, tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("mine")
    monkeypatch.setattr(CostModel, "fit", lambda *_, **__: pytest.fail("it fits"))
    with pytest.raises(UserError, match=r"cannot write the model .*: .*taken is a file") as caught:
        fit([tmp_path / "run"], out=tmp_path / out)
    assert caught.value.exit_status == 2 and (tmp_path / "taken").read_text() == "mine"


def refused(**_):
    raise PermissionError(errno.EACCES, "Permission denied")


def test_a_folder_that_may_not_be_written_is_said_before_anything_is_fitted(tmp_path, monkeypatch):
    monkeypatch.setattr(CostModel, "fit", lambda *_, **__: pytest.fail("it fits"))
    monkeypatch.setattr(tempfile, "TemporaryFile", refused)  # whoever runs this may be root, who may write anywhere
    with pytest.raises(UserError, match=r"cannot write the model .*may not be written to"):
        fit([tmp_path / "run"], out=tmp_path / "new" / "model")
    assert not (tmp_path / "new").exists()


def test_a_folder_of_something_else_is_no_place_for_a_model(tmp_path, monkeypatch):
    monkeypatch.setattr(CostModel, "fit", lambda *_, **__: pytest.fail("it fits"))
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match=r"cannot write the model .*holds something else"):
        fit([tmp_path], out=tmp_path)
    (tmp_path / "model.json").write_text("{}")  # an older model is replaced
    with pytest.raises(pytest.fail.Exception, match="it fits"):
        fit([tmp_path], out=tmp_path)


def test_runs_of_steps_alone_are_refused_in_words(tmp_path):
    with pytest.raises(UserError, match="holds whole steps, which are fitted beside single ops only"):
        CostModel().fit([Path(__file__).parents[1] / "fixtures" / "runs" / "schema-1-step"])
