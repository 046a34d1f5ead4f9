"""Going on with a run: its device, firmware build and inputs stay; what is wanted is told by each op's own identity."""

from __future__ import annotations

from typing import Any

from profiler.errors import UserError
from profiler.measure.schedule import Policy

#: Which ops and steps are wanted. These may change: an op that is there already, by its key and caches, is not measured
#: again. Everything else in a plan makes trials what they are.
WANTED = frozenset(
    {
        "caches", "classes", "companions", "design", "dtypes", "head", "limit", "ops", "optimizers", "passes", "plans",
        "ratios", "target_error", "time_s",
    }
)  # fmt: skip


#: What people call a key of a plan. A fingerprint is looked at after the names that it follows from.
_CALLED = {"fingerprint": "network of the same name and input"}


def _rank(key: str) -> tuple[bool, str]:
    return key in _CALLED, key


def check_goes_on(where: Any, old: dict[str, Any], fresh: dict[str, Any]) -> None:
    """Raise UserError unless trials that are measured now may stand beside those of a run.

    Args:
        where: The run's folder.
        old: The run's manifest.
        fresh: What a new run's manifest would be.
    """
    then, now = old["identity"], fresh["identity"]
    if then["board"] != now["board"]:
        raise UserError(
            f"the run {where} was made on {then['board']}, and the port has {now['board']}",
            hint="give the port of that device, or begin a new run without --resume",
        )
    serials = [identity.get("unique_id") or "none" for identity in (then, now)]
    if serials[0] != serials[1]:
        raise UserError(
            f"the run {where} was made on another {now['board']}: its serial number is {serials[0]}, and the port's "
            f"{serials[1]}",
            hint="give the port of that device, or begin a new run without --resume",
        )
    if then["build_hash"] != now["build_hash"]:
        raise UserError(
            f"the run {where} was made with firmware build {then['build_hash']}, and the device has "
            f"{now['build_hash']}: their trials do not mix",
            hint="begin a new run without --resume, or flash the old firmware",
        )
    # What a policy does not say was not there yet when the run was begun.
    policies = [Policy().to_dict() | manifest["policy"] for manifest in (old, fresh)]
    for before, after, free in ((old["plan"], fresh["plan"], WANTED), (*policies, frozenset())):
        for key in sorted((before.keys() | after.keys()) - free, key=_rank):
            if before.get(key) != after.get(key):
                what = _CALLED.get(key, key)
                raise UserError(
                    f"the run {where} was begun with another {what} ({before.get(key)}, now {after.get(key)})",
                    hint="give the same options to go on, or begin a new run without --resume",
                )
    for name, plan in fresh["plan"].get("plans", {}).items():
        if old["plan"].get("plans", {}).get(name, plan) != plan:
            raise UserError(
                f"the run {where} has a step of another plan that is called {name} too",
                hint="rename the plan's file, or begin a new run without --resume",
            )


def holds_all(old: dict[str, Any], fresh: dict[str, Any]) -> bool:
    """Whether a run's plan wants everything that another one does, under the same circumstances."""
    then, now = old["plan"], fresh["plan"]
    return (
        {k: v for k, v in then.items() if k not in WANTED} == {k: v for k, v in now.items() if k not in WANTED}
        and set(now.get("ops", ())) <= set(then.get("ops", ()))
        and set(now.get("caches", ())) <= set(then.get("caches", ()))
        and now.get("plans", {}).items() <= then.get("plans", {}).items()
    )


def widened(old: dict[str, Any], fresh: dict[str, Any]) -> dict[str, Any]:
    """What changes in a run's manifest where more is wanted than before; nothing where no more is."""
    if holds_all(old, fresh):
        return {}
    then, now = old["plan"], fresh["plan"]
    plan = now | {key: list(dict.fromkeys([*then[key], *now[key]])) for key in ("ops", "caches") if key in now}
    if "plans" in now:
        plan["plans"] = then.get("plans", {}) | now["plans"]
    left = {item["op_key"]: item for item in [*old["not_measured"], *fresh["not_measured"]]}
    return {"plan": plan, "not_measured": list(left.values())}
