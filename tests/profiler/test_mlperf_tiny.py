"""The networks of MLPerf Tiny against the sizes that their publication and its Keras summaries state."""

import pytest
from torch import nn

from profiler.ops import Op, Pass
from profiler.workloads.lower import lower
from profiler.workloads.mlperf_tiny import INPUT_SHAPES, create

#: Parameters of the published Keras models, those of their batch normalisation included; multiply-accumulates.
PUBLISHED = {
    "mlperf-tiny-kws": (24_908, 2_656_768),
    "mlperf-tiny-vww": (221_794, 7_489_664),
    "mlperf-tiny-ic": (78_666, 12_501_632),
    "mlperf-tiny-ad": (269_992, 264_192),
}


@pytest.mark.parametrize("name", INPUT_SHAPES)
def test_it_has_the_published_parameters_and_macs(name):
    module = create(name)
    network = lower(module, INPUT_SHAPES[name], name)
    statistics = sum(b.numel() for key, b in module.named_buffers() if not key.endswith("num_batches_tracked"))
    # Keras gives convolutions a bias in front of batch normalisation; folded, one bias is left either way.
    unbiased = sum(m.out_channels for m in module.modules() if isinstance(m, nn.Conv2d) and m.bias is None)
    parameters = sum(p.numel() for p in module.parameters()) + statistics + unbiased
    macs = sum(Op(layer.geometry, Pass.FORWARD).macs for layer in network.layers)
    assert (parameters, macs) == PUBLISHED[name]
