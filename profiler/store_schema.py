"""What stands in a run's files, field by field, and how what older versions wrote is read.

``manifest.json`` and every line of ``trials.jsonl`` name their schema. A reader knows all up to :data:`SCHEMA`: records
of an older one are brought to the newest as they are read, step by step; the files stay as they are. A run of an older
schema may be gone on with: new trials are written with the newest schema beside the old ones, and the manifest is then
written anew. A run of a newer schema is refused.

A field is added without a new schema where what was written before means what the field's default says; a field that
changes its meaning, its unit or its name, or that readers need, takes a new schema, a step here, and a run of the old
one among the fixtures of the tests.

- 1: ``cold`` (bool) or ``caches`` in a trial, ``region`` or not; ``blob_exponents`` or ``blob_segments`` in the
  identity, ``cold_runs`` or not; ``dtypes``, ``caches`` and ``region`` in the plan or not.
- 2: every trial has ``caches`` and ``region``, the identity ``blob_segments`` and ``cold_runs``, the plan of a
  ``profile measure`` ``dtypes``, ``caches`` and ``region``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: Version of manifest and trials that is written.
SCHEMA = 2

#: Of ``manifest.json``: type and meaning.
MANIFEST_FIELDS: dict[str, str] = {
    "schema": "int: version of the manifest; each trial names its own",
    "begun_with_schema": "int: only where the run was begun with an older one",
    "device": "str: name of the device, as its folder's",
    "port": "str: as the user gave it",
    "identity": "object: profiler.devices.identity.Identity, field by field; clock_hz and timer_hz in hertz, "
    "byte_count, blob_bytes, largest_frame_bytes and entry_bytes in bytes",
    "labels": "object: timer: what ticks count (`instructions` on an emulated device, else the timer's name), "
    "energy: what measured energy (as energy_source of tables), null",
    "instrument": "object or null: what measured energy: label (as energy_source of tables), model, "
    "serial_number, window_s, statistics_hz, clock_tolerance, recording (file beside the run)",
    "plan": "object: kind `ops`, `steps` or `imported`; what is measured, with the options that said so; compared on "
    "going on",
    "design": "object: only where ops were chosen while measuring: profiler.measure.design.Record, field by field",
    "policy": "object: profiler.measure.schedule.Policy: how often; time_per_op_s in seconds",
    "not_measured": "list of objects: op_key, reason, bytes_wanted and bytes_available (bytes or null)",
    "sittings": "list of objects: started_at, ended_at (ISO 8601, UTC), outcome `complete`, `interrupted` or `failed`, "
    "trials_before and trials (counts), host and host_after (states of this machine), link (the host's counters of the "
    "link), device_link (what the device's receiver counted meanwhile, since it last started; null: not asked), "
    "restarts (why it restarted, in words), changed (versions, git_commit and host where they are not the run's)",
    "versions": "object: Python and packages, name to version",
    "git_commit": "str or null: of the source tree, `+changes` where files differ from it",
    "host": "object: name, system, machine, processor (str or null), cpu_count",
    "created_at": "str: ISO 8601, UTC",
    "imported": "object: only where a table was imported: file, sha256, rows, left_out (reason to count), rename, set, "
    "where (the options that said how to read it), origins (column to what it said)",
    "kernels": "str: `unknown` where a table was imported: the kernels' work counts are not theirs",
    "extra_columns": "list of str: the columns that an imported table has besides, as they are in tables and exports",
}
#: Of every line of ``trials.jsonl``: type and meaning.
TRIAL_FIELDS: dict[str, str] = {
    "schema": "int: version that this line was written with",
    "trial": "int: number in the run, from 0, rising; that of a damaged line is not given again",
    "at": "str: when it was written, ISO 8601, UTC, milliseconds",
    "type": "str: `op`, `reference` (an op repeated to show drift), `empty` (the harness's own cost) or `step`",
    "slot": "str: place in the schedule, unique in the run",
    "round": "int: from 0",
    "build_hash": "str: of the device's firmware",
    "region": "str: name of the memory region that the arena lies in",
    "seed": "int: of the inputs",
    "caches": "str: what caches held: `warm` or `cold`; of a step `sequence`: what the ops before left there",
    "status": "str: `ok`, `wrong`, `refused`, `failed` or `stopped`, as profiler.measure.trials.Status says; only `ok` "
    "and `stopped` have ticks",
    "reason": "str: in words, where the status is not `ok`",
    "stopped": "object: only where the status is `stopped`: entry (index of the program's entry that did not begin any "
    "more), elapsed_ms (the device's time), ticks (of the entries of the interrupted repetition that are complete)",
    "ticks": "list: of each repetition, warm-ups first, as raw counts of the timer (int); of a step each a list, a "
    "count for each timed op",
    "warm_ups": "int: how many of the repetitions are warm-ups",
    "rejected": "list of objects: repetition (index into ticks) and reason, of those that do not count",
    "relative_error": "float or null: of the result against the reference, where this trial was checked; 1e300 at most",
    "energy_uj": "list of float or null: of each repetition, as `ticks`; only where it was measured",
    "energy": "object: only where a meter was there: what profiler.energy.meter.EnergyMeter.measure gives: source, "
    "status `ok`, `refused` or `pending`, reason, loops, windows (each with start_s, stop_s, status and, unless "
    "refused, energies), and of one execution energy_uj, energy_uncertainty_uj, duration_s, device_duration_s, "
    "op_duration_s, baseline_power_uw and baseline_uncertainty_uw",
    "extra": "object: column of an imported table to its value for each repetition, as `ticks`",
    "arena_peak_bytes": "int: most of the arena that was touched, scratch included",
    "scratch_peak_bytes": "int: most of the scratch that was touched",
    "stack_peak_bytes": "int: most of the stack that was touched; this and the peaks before null where an imported "
    "table does not say",
    "memory_peak_bytes": "int or null: only of imported trials: arena and stack, or what the table says",
    "wire_bytes": "int: bytes on the link for this trial, both ways",
    "duration_s": "float: seconds from request to answer, by the host's clock",
    "state": "object: before and after, profiler.devices.state.MachineState each; only where the device tells",
    "crc32": 'str: eight hexadecimal digits, the CRC-32 of the line\'s bytes before `,"crc32"`; not part of the record',
}
#: Of the trials of one op besides.
OP_FIELDS: dict[str, str] = {
    "op_key": "str: equal for equal ops",
    "op": "object: profiler.ops.Op.to_dict",
    "macs": "int: multiply-accumulates by the textbook formula",
    "held_out": "bool: only where true: a design keeps this op from every fit, whatever its kind",
}
#: Of the trials of training steps besides.
STEP_FIELDS: dict[str, str] = {
    "plan": "str: name of the plan",
    "network": "str: name of the network",
    "fingerprint": "str: of the network's layers",
    "step_plan": "object: profiler.workloads.plan.StepPlan.to_json",
    "images": "int: of the batch",
    "optimizer": "str: of the update",
    "trained_layers": "int: how many train",
    "program_bytes": "int: stored program and ticks of one repetition, beside the arena in the same memory; older "
    "trials have none",
    "timed": "list of objects: layer, op_key, op, macs, count (runs in one step), in the order of a repetition's ticks",
    "checks": "list of objects: name of a result, relative_error, tolerance",
    "predicted_latency_ms": "float or null: what was foreseen, milliseconds a step",
    "predicted_energy_mj": "float or null: what was foreseen, millijoules a step; older trials have none",
    "predicted_memory_bytes": "float or null: what was foreseen of arena and stack",
    "predicted_program_bytes": "float or null: what was foreseen of the program beside them; older trials have none",
    "predicted_by": "str or null: by whom",
    "budget_latency_ms": "float or null: what the plan was to keep to, milliseconds a step",
    "budget_energy_mj": "float or null: what the plan was to keep to, millijoules a step; older trials have none",
    "budget_memory_bytes": "float or null: what the plan was to keep to, arena, stack and program together",
}


def upgraded_manifest(manifest: dict[str, Any]) -> dict[str, Any]:
    """``manifest`` of any schema up to :data:`SCHEMA` as one of :data:`SCHEMA`.

    Raises:
        KeyError: it lacks a field that its schema has.
    """
    first = manifest["schema"]
    for schema in range(first, SCHEMA):
        manifest = _MANIFEST_STEPS[schema](manifest)
    return manifest if first == SCHEMA else manifest | {"schema": SCHEMA, "begun_with_schema": first}


def upgraded_trial(trial: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    """``trial`` of any older schema as one of :data:`SCHEMA`.

    Args:
        trial: Without its checksum. Its field ``schema`` keeps saying what it was written with.
        manifest: Its run's, of :data:`SCHEMA`.
    """
    for schema in range(trial["schema"], SCHEMA):
        trial = _TRIAL_STEPS[schema](trial, manifest)
    return trial


def default_region(manifest: dict[str, Any]) -> str:
    """Name of the region that arenas lie in where nothing else is asked for: region 0."""
    return next((r["name"] for r in manifest["identity"].get("memory", ()) if r["region"] == 0), "")


def _manifest_1_to_2(manifest: dict[str, Any]) -> dict[str, Any]:
    identity = dict(manifest["identity"])
    # Exponents of the blob's float32 segments were the codes that segments have now.
    exponents = identity.pop("blob_exponents", None)
    if exponents is not None:
        identity["blob_segments"] = exponents
    identity.setdefault("cold_runs", False)
    manifest = manifest | {"identity": identity}
    plan = manifest.get("plan")
    if plan is not None and "region" not in plan:
        plan = plan | {"region": default_region(manifest)}
        if "passes" in plan:  # what `profile measure` was asked for
            plan = {"dtypes": ["f32"], "caches": ["warm"]} | plan
        manifest["plan"] = plan
    return manifest


def _trial_1_to_2(trial: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    trial = {"caches": "sequence" if trial["type"] == "step" else "warm", "region": default_region(manifest)} | trial
    trial.pop("cold", None)  # said of each op of a step that others ran before it, and of nothing else
    return trial


_MANIFEST_STEPS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _manifest_1_to_2}
_TRIAL_STEPS: dict[int, Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]] = {1: _trial_1_to_2}
