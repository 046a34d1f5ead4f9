"""A saved model means the same in a second virtual environment, with another scikit-learn."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest
import sklearn
import synthetic

from costmodels.model import CostModel
from costmodels.target import TargetModel

HERE = Path(__file__).parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

#: Reads the model in its argument and prints scikit-learn's version and what random ops cost.
READER = """
import json, sys
import sklearn, synthetic
from costmodels.model import CostModel
model = CostModel.load(sys.argv[1], work=synthetic.work)
predicted = model.targets["latency"].predict(synthetic.random_ops(200, seed=7))
names = ("mean", "std", "low_90", "high_90")
print(json.dumps({"sklearn": sklearn.__version__, **{name: getattr(predicted, name).tolist() for name in names}}))
"""


@pytest.fixture(scope="module")
def other_python(tmp_path_factory):
    """The interpreter of an environment with an older scikit-learn and otherwise this one's packages."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    site = next((folder / "lib").glob("python*")) / "site-packages"
    older = "<" + ".".join(sklearn.__version__.split(".")[:2])
    installed = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, f"scikit-learn{older}"],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    if installed.returncode:
        pytest.skip(f"the package index has no scikit-learn{older}, or is out of reach: {installed.stderr[-300:]}")
    # Its own packages come first; what they want besides is taken from here.
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python


def test_predictions_are_equal_to_1e_9_under_two_versions_of_scikit_learn(other_python, tmp_path):
    ops = synthetic.random_ops(400)
    model = CostModel(work=synthetic.work).fit(synthetic.table(ops, ripple=0.05, noise=0.002))
    # Every method that a saved model may hold, whatever was chosen for these ops.
    for method, kind in (("terms_trees", "conv2d"), ("stack", "linear"), ("terms_process", "depthwise")):
        chosen = [op for op in ops if op.kind == kind]
        costs = synthetic.table(chosen, ripple=0.05, noise=0.002)["latency_us"].to_numpy()
        model.targets["latency"].groups |= TargetModel(work=synthetic.work, method=method).fit(chosen, costs).groups
    del model.targets["latency"].groups["add/grad_input/f32/blocked"]  # a kernel that was not fitted
    methods = {name for group in model.targets["latency"].groups.values() for name in group.regressor_.parts_}
    assert {"terms_process", "terms_trees"} <= methods
    model.save(tmp_path / "model")
    path = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    done = subprocess.run(
        [other_python, "-c", READER, str(tmp_path / "model")],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout)
    assert theirs.pop("sklearn") != sklearn.__version__
    ours = model.targets["latency"].predict(synthetic.random_ops(200, seed=7))
    for name, values in theirs.items():
        np.testing.assert_allclose(values, getattr(ours, name), rtol=1e-9)
