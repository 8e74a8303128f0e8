"""What rejection sampling kept and why it threw the rest away: metrics.jsonl, and done.json for the
rows that it wrote in the end.
"""

from dataclasses import dataclass

from align.report.curves import number
from align.report.folder import Stage, read_json

REJECTED = "rejected/"


@dataclass(frozen=True, kw_only=True)
class Part:
    """Samples of one fate; `share` of all samples, in [0, 1]."""

    name: str
    count: int
    share: float


@dataclass(frozen=True, kw_only=True)
class Kept:
    """All samples of a stage by what became of them: kept ones first, then reasons by size."""

    samples: int
    parts: list[Part]
    written: str  # the rows in a sentence, empty before they are written

    @property
    def sentence(self) -> str:
        kept = self.parts[0]
        reasons = ", ".join(f"{part.name} {part.count:,}" for part in self.parts[1:])
        text = f"{kept.count:,} of {self.samples:,} samples kept ({100 * kept.share:.1f} %)"
        return f"{text}; rejected: {reasons}" if reasons else text


def read_kept(stage: Stage) -> Kept | None:
    """Summed over the log's batches; None for a stage that keeps or rejects nothing."""
    rows = [row for row in stage.metrics if number(row.get("kept")) is not None]
    if not rows:
        return None
    counts: dict[str, float] = {"kept": 0.0}
    for row in rows:
        for key, value in row.items():
            if key == "kept" or key.startswith(REJECTED):
                name = key.removeprefix(REJECTED)
                counts[name] = counts.get(name, 0.0) + (number(value) or 0.0)
    logged = sum(number(row.get("samples")) or 0.0 for row in rows)
    unnamed = logged - sum(counts.values())
    if unnamed > 0:  # counted as samples, and neither kept nor given a reason
        counts["no reason given"] = unnamed
    total = sum(counts.values()) or 1.0
    reasons = sorted((name for name in counts if name != "kept"), key=lambda name: -counts[name])
    return Kept(
        samples=round(sum(counts.values())),
        written=_written(stage),
        parts=[
            Part(name=name.replace("_", " "), count=round(counts[name]), share=counts[name] / total)
            for name in ("kept", *reasons)
            if counts[name] or name == "kept"
        ],
    )


def _written(stage: Stage) -> str:
    done, _ = read_json(stage.path / "done.json")
    rows, general = done.get("rows"), done.get("general")
    if not isinstance(rows, int):
        return ""
    text = f"{rows:,} rows written"
    if isinstance(general, int) and general:
        text += f", {general:,} of them general"
    empty, prompts = done.get("prompts_without_a_kept_sample"), done.get("prompts")
    if isinstance(empty, int) and isinstance(prompts, int):
        text += f"; {empty:,} of {prompts:,} prompts without a kept sample"
    return f"{text}."
