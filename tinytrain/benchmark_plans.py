"""Names of plans by what they contain."""

from __future__ import annotations

import hashlib
import json

from profiler.workloads.plan import StepPlan


def plan_key(plan: StepPlan) -> str:
    """Equal for plans of one network that train the same channels in the same way."""
    return _hash(plan, [(name, p.axis, p.channels, p.bias) for name, p in plan.layers.items()], plan.learning_rate)


def step_key(plan: StepPlan) -> str:
    """Equal for plans whose steps cost the same: as many channels of the same layers, whichever they are."""
    return _hash(plan, [(name, p.axis, len(p.channels), p.bias) for name, p in plan.layers.items()])


def _hash(plan: StepPlan, *content: object) -> str:
    common = [plan.network, plan.fingerprint, plan.head.kind, plan.head.classes, plan.images, plan.optimizer,
              plan.dtype, sorted(plan.savings)]  # fmt: skip
    return hashlib.sha256(json.dumps([common, *content]).encode()).hexdigest()[:12]
