"""A plan as text."""

from __future__ import annotations

from collections.abc import Sequence

from em_blocks.runtime.planning.figures import MEASURED, Plan, StepPlan

_HEAD = ("step", "blocks", "masked", "done", "left", "read x", "in", "out", "memory", "s/block", "time")


def plan_text(plan: Plan) -> str:
    """Return one row per step, then the totals, then the remarks."""
    rows = [_HEAD, *(_row(step, plan.run) for step in plan.steps)]
    ways = [_ways(step) for step in plan.steps if step.ways]
    parts = [_title(plan), _aligned(rows), *ways, _totals(plan), *_remarks(plan)]
    return "\n\n".join(part for part in parts if part)


def _title(plan: Plan) -> str:
    where = "this machine" if plan.launcher == "local" else plan.launcher
    gpus = f", {plan.gpus} GPU{'s' if plan.gpus > 1 else ''}" if plan.gpus else ""
    return (
        f"run {plan.run}: {plan.num_workers} worker{'s' if plan.num_workers > 1 else ''} of "
        f"{plan.cpus_per_worker} core{'s' if plan.cpus_per_worker > 1 else ''}{gpus} on {where}"
    )


def _row(step: StepPlan, run: str) -> tuple[str, ...]:
    counts = (step.blocks, step.masked, step.done, step.left)
    return (
        step.run.removeprefix(run).lstrip("._") or step.task, *map(str, counts),
        f"{step.read_amplification:.2f}", size(step.bytes_in), size(step.bytes_out),
        "?" if step.memory_mb is None else f"{step.memory_mb:.0f} MB",
        "?" if step.seconds_per_block is None else f"{step.seconds_per_block:.3g}",
        duration(step.wall_s),
    )


def _ways(step: StepPlan) -> str:
    """Return a table of the timed ways through a network, fastest first."""
    rows = [
        (f"{way['precision']}{' (chosen)' if way['chosen'] else ''}",
         "x".join(map(str, way["tile_shape"])), str(way["batch_size"]),
         f"{way['voxels_per_s'] / 1e6:.3g}")
        for way in step.ways
    ]
    return _aligned([("network pass", "tile", "batch", "Mvoxel/s per worker"), *rows])


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = (f"{c:>{w}}" for c, w in zip(others, widths[1:], strict=True))
        lines.append("  ".join([f"{first:<{widths[0]}}", *cells]).rstrip())
    return "\n".join(lines)


def _totals(plan: Plan) -> str:
    total, first = plan.total, plan.steps[0]
    rows = [
        ("blocks to compute", f"{total.left} of {total.blocks} ({total.masked} masked, {total.done} "
         f"done); the first step has {' x '.join(map(str, first.grid))} of "
         f"{' x '.join(map(str, first.block_shape))} voxels"),
        ("read amplification", f"{first.read_amplification:.2f} voxels read per voxel written"
         + (" (first step)" if len(plan.steps) > 1 else "")),
        ("bytes in, out", f"{size(total.bytes_in)}, {size(total.bytes_out)} ({_kinds(plan)})"),
    ]
    if plan.probed:
        rows += [
            ("memory per worker", "?" if total.memory_mb is None
             else f"{total.memory_mb:.0f} MB at its peak"),
            ("wall time", _wall(plan)),
            ("core hours", "?" if total.core_hours is None else f"{total.core_hours:.3g}"),
        ]
        if plan.gpus:
            rows.append(("GPU hours", "?" if total.gpu_hours is None else f"{total.gpu_hours:.3g}"))
    if plan.better_block is not None:
        rows.append(("better block_shape", _better(plan)))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _wall(plan: Plan) -> str:
    total = plan.total
    fixed = f", of which {duration(total.fixed_s)} to start and end"
    if total.wall_s is None:
        return f"at least {duration(total.known_wall_s)}{fixed}; not known for every step"
    return f"about {duration(total.wall_s)}{fixed}"


def _better(plan: Plan) -> str:
    found = plan.better_block
    reads = f"{found.read_amplification:.2f} voxels read per voxel written"
    if found.wall_s is None:
        return f"{found.block_shape}: {reads}"
    saved = 100 * (1 - found.wall_s / found.now_s)
    return (
        f"{found.block_shape}: {saved:.0f} % less time for all blocks, {duration(found.wall_s)} instead "
        f"of {duration(found.now_s)} ({reads})"
    )


def _kinds(plan: Plan) -> str:
    kinds = {name for s in plan.steps if s.left for name in (s.bytes_in_are, s.bytes_out_are)}
    if kinds == {MEASURED}:
        return MEASURED
    return "before compression" if MEASURED not in kinds else "compressed where measured"


def _remarks(plan: Plan) -> list[str]:
    notes = [step.note for step in plan.steps if step.note]
    given_up = sum(step.quarantined for step in plan.steps)
    if given_up:
        notes.append(f"{given_up} blocks are quarantined; `em-blocks retry` would try them again")
    return [f"Note: {note}." for note in dict.fromkeys([*notes, *plan.notes])]


def size(n: float | None) -> str:
    """Return bytes with a unit that a person reads."""
    if n is None:
        return "?"
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n >= factor:
            return f"{n / factor:.3g} {unit}"
    return f"{n / 1e3:.3g} kB"


def duration(seconds: float | None) -> str:
    """Return seconds in a unit that a person reads."""
    if seconds is None:
        return "?"
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
