"""Any op of any kind, for tests that hold of all of them."""

import dataclasses

from hypothesis import strategies as st

from profiler.geometry import Weighted
from profiler.ops import DTYPE_CODES, GEOMETRIES, VARIANT_CODES, Empty, Op, Pass

#: Sizes of each field; others are 1 to 40.
_SIZES = {"kernel_h": 5, "kernel_w": 5, "stride_h": 3, "stride_w": 3, "pad_h": 2, "pad_w": 2, "groups": 4, "mask": 2}


@st.composite
def geometries(draw, kind):
    """Any geometry of a kind, if the fields that are drawn are one."""
    cls = GEOMETRIES[kind]
    values = {}
    for field in dataclasses.fields(cls):
        least = 0 if field.name in cls.may_be_zero else 1
        most = 1 if field.name.startswith("has_") else _SIZES.get(field.name, 40)
        values[field.name] = draw(st.integers(least, most))
    if values.get("groups", 1) > 1:
        for name in ("in_channels", "out_channels"):
            if name in values:
                values[name] *= values["groups"]
    return cls(**values)


@st.composite
def ops(draw):
    """Any op but the empty one."""
    while True:
        try:
            geometry = draw(geometries(draw(st.sampled_from([k for k in GEOMETRIES if k != Empty.kind]))))
            pass_ = draw(st.sampled_from(geometry.passes))
            trained = {}
            if isinstance(geometry, Weighted) and draw(st.booleans() if pass_ is Pass.FORWARD else st.just(True)):
                axis = draw(st.sampled_from(("out", "in")))
                trained = {
                    "trained_axis": axis,
                    "trained_channels": draw(st.integers(0, geometry.channels(axis))),
                    "trains_bias": draw(st.booleans()),
                }
            return Op(
                geometry,
                pass_,
                dtype=draw(st.sampled_from(list(DTYPE_CODES))),
                variant=draw(st.sampled_from(list(VARIANT_CODES))),
                optimizer=draw(st.sampled_from(("sgd", "adam"))),
                **trained,
            )
        except ValueError:
            continue
