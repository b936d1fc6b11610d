"""What `bench.controller` found, as tables."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from bench.report import Report, Table

STAGES = ("jobs", "running", "succeeded")
NOTES = [
    "The API server is the bottleneck of every column: it checks and stores each write, on the same cores. The bare "
    "client writes a status, the job and an event in the first stage, a status and an event in the others; the "
    "operator besides reads what it must not take from a cache, notes each job in status, and writes the first figures "
    "of each training. The operator on kopf makes the same writes in the first stage; it renders nothing and reads "
    "nothing again.",
    "The three are measured one after another, so a ratio below 1 says that something else had the cores meanwhile. "
    "CPU and memory of the operator are its own, whatever else runs.",
]


@dataclass
class Found:
    """What one operator, or the bare client, needed for so many experiments; seconds, percent of a core, MiB."""

    wall: dict[str, float] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)  # experiments of that stage
    cpu: dict[str, float] = field(default_factory=dict)
    servers: dict[str, float] = field(default_factory=dict)  # CPU of API server and etcd meanwhile
    steady: dict[str, float] = field(default_factory=dict)
    latency: list[float] = field(default_factory=list)
    peak: float = 0.0

    def rate(self, stage: str) -> float:
        """Experiments a second."""
        return self.done[stage] / self.wall[stage]

    def cost(self, stage: str) -> float:
        """CPU of the client and of the servers for one experiment, in milliseconds."""
        return 1000 * (self.cpu[stage] + self.servers[stage]) / self.done[stage]


def percentile(values: list[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def rates(count: int, us: Found, bare: Found, kopf: Found | None) -> list[list[str]]:
    """Rows of the first table."""
    rows = []
    for stage in STAGES:
        theirs = kopf if kopf is not None and stage in kopf.wall else None
        row = [f"{count}, {stage}", *(f"{x.wall[stage]:.1f} s ({x.rate(stage):.1f}/s)" for x in (us, bare))]
        row += [f"{bare.rate(stage) / us.rate(stage):.2f}"]
        row += [f"{theirs.rate(stage):.1f}/s", f"{us.rate(stage) / theirs.rate(stage):.1f}"] if theirs else ["", ""]
        rows.append(row)
    return rows


def costs_in_all(count: int, us: Found, bare: Found, kopf: Found | None) -> list[list[str]]:
    """Rows of the second table."""
    rows = []
    for stage in STAGES:
        row = [f"{count}, {stage}", f"{us.cost(stage):.1f}", f"{bare.cost(stage):.1f}"]
        row += [f"{us.cost(stage) / bare.cost(stage):.2f}"]
        theirs = kopf is not None and stage in kopf.cpu
        row += [f"{kopf.cost(stage):.1f}", f"{kopf.cost(stage) / us.cost(stage):.1f}"] if kopf and theirs else ["", ""]
        rows.append(row)
    return rows


def costs(count: int, us: Found, kopf: Found | None) -> list[str]:
    """A row of the third table."""
    each_of = [f"{1000 * us.cpu[stage] / us.done[stage]:.1f}" for stage in STAGES]
    theirs = f"{1000 * kopf.cpu['jobs'] / kopf.done['jobs']:.1f}" if kopf is not None else ""
    return [str(count), *each_of, theirs, f"{us.peak:.0f}", f"{kopf.peak:.0f}" if kopf is not None else ""]


def report(found: dict[int, tuple[Found, Found, Found | None]], command: str, about: dict[str, str]) -> Report:
    """The bench's section of the page."""
    tables = [
        Table(
            "Time from the moment it leads until the last experiment shows it; the ratio is that of the times to the "
            "bare client, and that of the rates to kopf.",
            ["experiments, stage", "resnet-operator", "bare client", "ratio", "kopf", "faster"],
            [row for count, (us, bare, kopf) in found.items() for row in rates(count, us, bare, kopf)],
        ),
        Table(
            "CPU of the client, the API server and etcd together, for one experiment, in milliseconds: what sets the "
            "times above, whatever else runs.",
            ["experiments, stage", "resnet-operator", "bare client", "ratio", "kopf", "of ours"],
            [row for count, (us, bare, kopf) in found.items() for row in costs_in_all(count, us, bare, kopf)],
        ),
        Table(
            "CPU of the operator for one experiment, in milliseconds, and the most resident memory, in MiB.",
            ["experiments", *STAGES, "kopf, jobs", "memory", "kopf"],
            [costs(count, us, kopf) for count, (us, _, kopf) in found.items()],
        ),
    ]
    for count, (us, _, _) in found.items():
        if us.steady:
            whole, reading, idle = us.steady["all"], us.steady["reading"], us.steady["idle"]
            rows = [
                ["all of it", f"{whole:.1f} %"],
                ["writing and looking at what was written", f"{whole - reading:.1f} %"],
                ["asking /progress, and looking at answers that change nothing", f"{reading - idle:.1f} %"],
                ["watches, looks every 30 s, lease", f"{idle:.1f} %"],
            ]
            tables.append(
                Table(f"{count} running experiments, asked every 10 s: share of a core.", ["part", "CPU"], rows)
            )
            shown = [f"{1000 * percentile(us.latency, share):.0f} ms" for share in (0.5, 0.99, 1.0)]
            caption = (
                f"Beside these, {len(us.latency)} pods end, 10 a second: from a pod's end to the status that says so."
            )
            tables.append(Table(caption, ["median", "99 %", "longest"], [shown]))
    return Report("controller", "The operator", command, about, tables, NOTES)
