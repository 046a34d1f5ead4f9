"""Ops as keys: an op that comes from another process, where strings hash otherwise, is found like any other."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace

from profiler.ops import Conv2d, Op, Pass

OP = Op(Conv2d(8, 8, 3, 4, 3, 3), Pass.GRAD_WEIGHT, "s8", 2, trains_bias=True)
MADE_ELSEWHERE = """
import pickle, sys
from profiler.ops import Conv2d, Op, Pass
op = Op(Conv2d(8, 8, 3, 4, 3, 3), Pass.GRAD_WEIGHT, "s8", 2, trains_bias=True)
assert op in {op}
sys.stdout.buffer.write(pickle.dumps(op))
"""


def test_an_op_of_another_process_equals_and_hashes_like_one_of_this():
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", MADE_ELSEWHERE], env=environment, capture_output=True, check=True)
        op = pickle.loads(done.stdout)
        assert op == OP and hash(op) == hash(OP) and {OP: "known"}[op] == "known"


def test_a_copy_with_another_field_is_another_key():
    other = replace(OP, trained_channels=3)
    assert OP in {OP} and other != OP and other not in {OP}
    assert replace(other, trained_channels=2) in {OP}
