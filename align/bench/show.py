"""bench.json, the tables, and the plot of the updates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.table import Table

from align.bench.case import Case, least_tokens
from align.bench.shapes import flops


def reckoned(found: dict[str, Any], peak_tflops: float) -> dict[str, Any]:
    """The result with what follows from it: tokens, and the share of the machine's FLOP/s."""
    if found["kind"] != "update" or "case" not in found:
        return found
    case = Case.of(found["case"])
    counted = found["trl"]["timings"][0]["computed"]
    computed = {"ours": found["ours"]["opened"]["tokens"], "trl": counted}
    found["tokens"] = computed | {"least": least_tokens(case)}
    if peak_tflops:
        config = json.loads((Path(case.model) / "config.json").read_text())
        needed = flops(config, case)
        found["utilisation"] = {
            side: needed / found[side]["seconds"] / (peak_tflops * 1e12) for side in computed
        }
    return found


def save(report: dict[str, Any], out: Path) -> None:
    """Whole or not at all, so that an interrupted bench keeps what it has."""
    partial = out / "bench.json.partial"
    partial.write_text(json.dumps(report, indent=1))
    partial.replace(out / "bench.json")


def line(found: dict[str, Any]) -> str:
    """A case in one line."""
    if "failed" in found:
        return f"{found['name']}: failed: {found['failed']}"
    if "trl" not in found:
        return f"{found['name']}: ours {found['ours']['seconds']:.3f} s"
    ours, trl = found["ours"]["seconds"], found["trl"]["seconds"]
    said = f"{found['name']}: ours {ours:.3f} s, TRL {trl:.3f} s ({found['case']['peer']['name']})"
    if found.get("differs"):
        return f"{said}; no ratio: {found['differs']}"
    return f"{said}, {found['ratio']:.2f} times as fast"


def tables(report: dict[str, Any]) -> list[Table]:
    """What a person reads at the end."""
    cases = [one for one in report["cases"] if "case" in one]
    found = [_seconds(cases)]
    updates = [one for one in cases if one["kind"] == "update"]
    if updates:
        found.append(_tokens(updates))
    found += [_parts(one) for one in cases if one["kind"] == "step"]
    return found


def _seconds(cases: list[dict[str, Any]]) -> Table:
    table = Table(title="Medians, and the median of the alternations' ratios")
    for name in ("case", "TRL's setting"):
        table.add_column(name)
    figures = ("ours s", "TRL s", "times", "cores", "TRL's", "peak MiB", "TRL's", "loss", "TRL's")
    for name in figures:
        table.add_column(name, justify="right")
    for one in cases:
        if "trl" not in one:
            table.add_row(one["name"], "", f"{one['ours']['seconds']:.3f}")
            continue
        first = {side: one[side]["timings"][0].get("losses", [None]) for side in ("ours", "trl")}
        losses = [_number(first[side][-1]) for side in ("ours", "trl")]
        ratio = f"{one['ratio']:.2f}" if "ratio" in one else "refused"
        table.add_row(
            one["name"], one["case"]["peer"]["name"],
            f"{one['ours']['seconds']:.3f}", f"{one['trl']['seconds']:.3f}", ratio,
            *(_cores(one[side]) for side in ("ours", "trl")),
            *(_peak(one[side]) for side in ("ours", "trl")), *losses,
        )  # fmt: skip
    return table


def _cores(side: dict[str, Any]) -> str:
    """Cores used, and how many timings had far fewer."""
    few = len(side.get("disturbed", ()))
    return _number(side.get("cores"), "{:.2f}") + (f" ({few} disturbed)" if few else "")


def _peak(side: dict[str, Any]) -> str:
    """Peak memory; where it could not be forgotten between timings, that of the whole process."""
    whole = side.get("peak_since") == "process"
    return _number(side.get("peak_mib"), "{:.0f}") + (" (process)" if whole else "")


def _tokens(updates: list[dict[str, Any]]) -> Table:
    table = Table(title="Updates: tokens computed, and how near the ratio is to theirs")
    table.add_column("case")
    names = ("least", "ours", "over", "TRL", "TRL / ours", "times", "gradients apart", "FLOP use")
    for name in names:
        table.add_column(name, justify="right")
    for one in updates:
        tokens = one["tokens"]
        share = one.get("utilisation")
        table.add_row(
            one["name"], str(tokens["least"]), str(tokens["ours"]),
            f"{tokens['ours'] / tokens['least'] - 1:.1%}", str(tokens["trl"]),
            f"{tokens['trl'] / tokens['ours']:.2f}", _number(one.get("ratio")),
            _number(one.get("check", {}).get("distance"), "{:.1e}"),
            f"{share['ours']:.1%} / {share['trl']:.1%}" if share else "",
        )  # fmt: skip
    return table


def _parts(one: dict[str, Any]) -> Table:
    """Where a whole step's seconds go, of each side's median timing."""
    table = Table(title="The whole step")
    table.add_column("part")
    for name in ("ours s", "share", "TRL s", "share"):
        table.add_column(name, justify="right")
    middle = {side: _middle(one[side]["timings"]) for side in ("ours", "trl")}
    names = ("sample", "score", "train", "sync", "pack", "own", "seconds")
    for name in names:
        row = []
        for side in ("ours", "trl"):
            timing = middle[side]
            value = timing["seconds"] if name == "seconds" else timing["parts"].get(name)
            row += [_number(value, "{:.3f}"), _number(value, "{:.1%}", timing["seconds"])]
        table.add_row("whole" if name == "seconds" else name, *row)
    for name in ("completions", "generated"):
        each = [middle[side]["seconds"] / middle[side][name] for side in ("ours", "trl")]
        table.add_row(f"ms / {name}", f"{1e3 * each[0]:.2f}", "", f"{1e3 * each[1]:.2f}", "")
    said = {"tokens sampled": "generated", "tokens trained on": "computed",
            "groups without an advantage": "idle_groups"}  # fmt: skip
    for text, name in said.items():
        table.add_row(text, *(x for s in ("ours", "trl") for x in (f"{middle[s][name]:g}", "")))
    norms = [f"{middle[side]['norms'][0]:.3g}" for side in ("ours", "trl")]
    table.add_row("gradient norm", norms[0], "", norms[1], "")
    return table


def _middle(timings: list[dict[str, Any]]) -> dict[str, Any]:
    return sorted(timings, key=lambda one: one["seconds"])[len(timings) // 2]


def _number(value: float | None, form: str = "{:.4g}", by: float = 1.0) -> str:
    return "" if value is None else form.format(value / by)


def plot(report: dict[str, Any], out: Path) -> None:
    """Ratio over prompt length by group size, updates.svg and updates.png."""
    groups: dict[int, list[tuple[int, float, float]]] = {}
    for one in report["cases"]:
        if one["kind"] == "update" and "ratio" in one:
            least = one["tokens"]["trl"] / one["tokens"]["least"]
            case = one["case"]
            groups.setdefault(case["group"], []).append((case["prompt"], one["ratio"], least))
    if not groups:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.add_subplot()
    for number, (group, points) in enumerate(sorted(groups.items())):
        prompts, ratio, least = zip(*sorted(points), strict=True)
        axes.plot(prompts, ratio, "o-", color=f"C{number}", label=f"group of {group}")
        axes.plot(prompts, least, ":", color=f"C{number}")
    axes.plot([], [], ":", color="grey", label="TRL's tokens / the least")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted({p for points in groups.values() for p, _, _ in points}))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_ylim(bottom=0)
    axes.axhline(1, color="grey", linewidth=0.8)
    axes.set_xlabel("prompt, tokens")
    axes.set_ylabel("times as fast as TRL")
    axes.legend()
    axes.spines[["top", "right"]].set_visible(False)
    for kind in ("svg", "png"):
        figure.savefig(out / f"updates.{kind}", dpi=150)
