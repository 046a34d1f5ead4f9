"""The sections of a report that say what the model is: its card, what was fitted, and where the figures come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from costmodels.markup import paragraph, section, table
from costmodels.model import CostModel
from costmodels.plots import energy_note
from costmodels.svg import number


def card(model: CostModel, folder: Path) -> str:
    """The model card."""
    facts = model.card_
    identity = facts["identity"]
    held = facts.get("held_out_accuracy")
    rows = {
        "model": folder.name,
        "device": facts["device"],
        "board and core": ", ".join(str(v) for v in (facts["board"], identity.get("core")) if v),
        "clock": f"{facts['clock_hz']:,} Hz" if facts.get("clock_hz") else None,
        "timer": timer_in_words(facts["timer"]).removeprefix("timer: "),
        "energy": energy_note(facts.get("energy_source")).removeprefix("energy: "),
        "caches": facts.get("caches"),
        "firmware": " build ".join(str(v) for v in (facts.get("firmware_version"), facts.get("build_hash")) if v),
        "compiler": identity.get("compiler"),
        "flags": identity.get("flags"),
        "fitted to": f"{facts['n_ops']:,} ops of {len(facts['fitted_geometries']):,} layer shapes",
        "predicts": "; ".join(sorted({"/".join(key.split("/")[:3]) for key in model.targets["latency"].groups})),
        "noise floor": f"{number(facts['noise_floor_percent'])} %: median standard error of the measured latencies; no "
        "interval is narrower",
        "error on held-out ops when fitted": f"{number(held['mape_percent'])} % (n = {held['n']})" if held else None,
        "hash of the measurements": facts["run_hash"],
    }
    listed = [{"": name, " ": text} for name, text in rows.items() if text]
    return section("model", "The model", [table(listed)])


def estimators(model: CostModel) -> str:
    """What was chosen for each kind and pass, and how well it did in cross-validation."""
    rows = []
    for target, fitted in model.targets.items():
        for key, group in sorted(fitted.groups.items()):
            rows.append({"target": target, "kind, pass, type and kernel": key, **_estimator(group)})
    return section(
        "estimators",
        "What was fitted",
        [
            paragraph(
                "Each kind of layer and pass with a kernel of its own has its own estimator, the best of those "
                "compared. Errors are typical ones of cross-validation within the fitted ops, no geometry divided; "
                "that of the chosen one is of a cross-validation around the choice."
            ),
            table(rows),
        ],
    )


def _estimator(group: Any) -> dict[str, Any]:
    regressor = group.regressor_
    compared = ", ".join(f"{name} {error:.2f}" for name, error in regressor.scores_percent_.items())
    return {
        "ops": regressor.n_ops_,
        "estimator": regressor.method_,
        "error, %": regressor.cv_error_percent_,
        "compared, error in %": compared,
    }


def provenance(facts: Mapping[str, Any], manifests: Mapping[Path, Mapping[str, Any]]) -> str:
    """Where the figures come from."""
    rows = []
    for run, manifest in manifests.items():
        plan = manifest.get("plan") or {}
        design = (manifest.get("design") or {}).get("name")
        inputs = "x".join(map(str, plan.get("input") or ()))
        what = " ".join(str(v) for v in (plan.get("kind"), plan.get("network"), inputs, design) if v)
        labelled = manifest.get("labels") or {}
        rows.append(
            {
                "run": run.name,
                "of": what,
                "measured": str(manifest.get("created_at", ""))[:16].replace("T", " "),
                "port": manifest.get("port"),
                "timer": labelled.get("timer"),
                "energy": labelled.get("energy"),
                "firmware build": manifest["identity"].get("build_hash"),
                "source commit": str(manifest.get("git_commit") or "")[:12],
                "host": (manifest.get("host") or {}).get("processor"),
            }
        )
    versions = next((m["versions"] for m in manifests.values() if m.get("versions")), {})
    return section(
        "provenance",
        "Provenance",
        [
            paragraph(
                "The runs that this page is about. The model itself says what it was fitted to: hash of its "
                f"measurements {facts['run_hash']}, firmware build {facts.get('build_hash') or 'unknown'}."
            ),
            table(rows),
            paragraph(
                "Measured with " + ", ".join(f"{k} {v}" for k, v in versions.items()) + "." if versions else "", "note"
            ),
        ],
    )


def timer_in_words(timer: str) -> str:
    """What the device's timer counts, for readers who never met the label."""
    if timer == "instructions":
        return "timer: instructions (an emulated device: time counts instructions, not cycles, and is no board's)"
    return f"timer: {timer}"
