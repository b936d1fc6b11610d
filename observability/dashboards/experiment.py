"""The dashboard of one experiment."""

from __future__ import annotations

from observability.dashboards.panels import TRAINING_PHASES, Board, Kind, Panel, Query, Row, Variable

OURS = 'namespace=~"$namespace", experiment="$experiment"'
_RATE = "$__rate_interval"
NAMESPACE = Variable("namespace", "Namespace", "label_values(resnet_experiment_status_phase, namespace)", several=True)
_EXPERIMENT = Variable(
    "experiment", "Experiment", 'label_values({__name__=~"resnet_training_world_size|resnet_experiment_status_phase", '
    'namespace=~"$namespace"}, experiment)', several=False,
)  # fmt: skip


def _of(metric: str, more: str = "") -> str:
    return f"{metric}{{{OURS}{', ' if more else ''}{more}}}"


def _max(metric: str, more: str = "") -> str:
    """One value of the experiment, whichever of its pods tells it."""
    return f"max({_of(metric, more)})"


def _stat(title: str, unit: str, query: str, description: str, width: int = 3) -> Panel:
    return Panel(title, description, unit, [Query(query, title)], width, Kind.STAT)


BOARD = Board(
    "experiment",
    "ResNet experiment",
    "One training: how far it is, how well it learns, how fast it runs, and what it would lose.",
    [NAMESPACE, _EXPERIMENT],
    [
        Row("Overview", [
            Panel(
                "Phase", "What the training does now, as its first rank tells it.", "none",
                [Query(f"max by (phase) ({_of('resnet_training_phase')}) == 1", "{{phase}}")], 3, Kind.NAME,
            ),
            Panel(
                "Progress", "Optimizer steps done, of all that are planned.", "percentunit",
                [Query(_of("experiment:resnet_training_progress:ratio"), "steps")], 3, Kind.STAT, 0, 1,
            ),
            Panel(
                "Epoch", "The epoch in progress, and how many there are to be.", "none",
                [Query(_max("resnet_training_epoch"), "now"), Query(_max("resnet_training_epochs"), "of")],
                4, Kind.STAT,
            ),
            _stat("Time left", "s", _max("resnet_training_eta_seconds"), "At the present speed, validations included."),
            _stat(
                "Deadline", "s", f"{_max('resnet_experiment_deadline_timestamp_seconds')} - time()",
                "Until spec.activeDeadlineSeconds ends the experiment; empty where there is none.",
            ),
            _stat("Top-1", "percentunit", _max("resnet_validation_top1_ratio"), "Of the last validation.", 2),
            _stat(
                "Images/s", "locale", _max("resnet_training_images_per_second"),
                "Of the whole gang, between two log lines.",
            ),
            _stat("Attempt", "none", _max("resnet_experiment_attempt"), "Number of the newest attempt.", 3),
        ]),
        Row("Learning", [
            Panel(
                "Loss", "Cross-entropy: of rank 0 at each log interval, smoothed over ten minutes, and of the "
                "validations. The training's may stand above the validation's: its images are augmented.", "none",
                [
                    Query(_max("resnet_training_loss"), "training"),
                    Query(_of("experiment:resnet_training_loss:avg"), "training, smoothed"),
                    Query(_max("resnet_validation_loss"), "validation"),
                ],
            ),
            Panel(
                "Validation accuracy", "Share of the validation images whose class is the first guess, or among five.",
                "percentunit",
                [
                    Query(_max("resnet_validation_top1_ratio"), "top-1"),
                    Query(_max("resnet_validation_top5_ratio"), "top-5"),
                ],
                kind=Kind.STEPS, low=0, high=1,
            ),
            Panel(
                "Loss trend", "Change of the smoothed loss per hour: below zero it learns. It needs an hour of data to "
                "be steady.", "none",
                [Query(_of("experiment:resnet_training_loss:trend"), "per hour")],
            ),
            Panel(
                "Learning rate", "It changes once an epoch, or at each step with mlperfMode.", "none",
                [Query(_max("resnet_training_learning_rate"), "rate")], kind=Kind.STEPS, low=0,
            ),
            Panel(
                "Loss scale", "Of mixed precision in fp16; 1 where there is none. One that falls and falls means "
                "gradients that overflow.", "locale",
                [Query(_max("resnet_training_gradient_scale"), "scale")], kind=Kind.STEPS, low=0,
            ),
            Panel(
                "Steps without a finite loss", "On the rank that had the most. Ten in a row end the training.", "none",
                [Query(f"max(increase({_of('resnet_training_nonfinite_steps_total')}[{_RATE}]))", "steps")],
                low=0, alarm=1,
            ),
        ]),
        Row("Speed", [
            Panel(
                "Throughput", "Images per second of the whole gang: between log lines, and with all pauses "
                "(validation, checkpoints, restarts) counted in.", "locale",
                [
                    Query(_max("resnet_training_images_per_second"), "while it trains"),
                    Query(_of("experiment:resnet_training_images:rate"), "pauses included"),
                ],
                low=0,
            ),
            Panel(
                "Throughput per device", "Images per second and device, pauses left out. A gang of another size is a "
                "line of its own.", "locale",
                [Query(_of("experiment:resnet_training_device_speed:avg"), "{{world_size}} ranks")], low=0,
            ),
            Panel(
                "Efficiency", "Throughput per device over its best of the last day in a gang of the same size.",
                "percentunit",
                [Query(_of("experiment:resnet_training_efficiency:ratio"), "{{world_size}} ranks")],
                low=0, high=1,
            ),
            Panel(
                "Step time", "Of rank 0; in synchronous training all ranks take as long. The 99th percentile far above "
                "the median means steps that now and then wait.", "s",
                [
                    Query(_of(f"experiment:resnet_training_step_seconds:{name}"), name)
                    for name in ("p50", "p95", "p99")
                ],
                low=0,
            ),
            Panel(
                "What a step spends its time on", "Of rank 0's step time: busy is forward and backward, data is "
                "waiting for images, communication is the rest: exchange of gradients, waits for peers, the update.",
                "percentunit",
                [Query(_of("experiment:resnet_training_step_share:ratio"), "{{part}}")], kind=Kind.STACK, low=0, high=1,
            ),
            Panel(
                "Phases", "1 while the training is in that phase. Much beside train is time without training.", "none",
                [Query(f"max by (phase) ({_of('resnet_training_phase')})", "{{phase}}")],
                kind=Kind.STACK, low=0, high=1, colors=TRAINING_PHASES,
            ),
        ]),
        Row("Ranks", [
            Panel(
                "Computing, by rank", "Share of the time in which a rank computes, its waits for data and peers left "
                "out. The rank above all others is the straggler.", "percentunit",
                [Query(
                    f"sum by (rank) (rate({_of('resnet_training_rank_busy_seconds_total')}[{_RATE}]))", "rank {{rank}}"
                )],
                low=0,
            ),
            Panel(
                "Waited for, by rank", "Share of the time in which the fastest rank has done its part and this one has "
                "not. From 10 % on, for a quarter of an hour, it is told as a straggler.", "percentunit",
                [Query(_of("rank:resnet_training_rank_excess:ratio"), "rank {{rank}}")], low=0, alarm=0.1,
            ),
            Panel(
                "Memory, by rank", "What a rank holds on its device; on the CPU, of the machine.", "bytes",
                [Query(f"max by (rank) ({_of('resnet_accelerator_memory_bytes')})", "rank {{rank}}")], low=0,
            ),
            Panel(
                "Slowdown, by rank", "Time that a rank computes for a step over the median of the others'. The "
                "training itself names a straggler from 1.25 on.", "none",
                [Query(f"max by (rank) ({_of('resnet_training_rank_slowdown_ratio')})", "rank {{rank}}")],
                low=0, alarm=1.25,
            ),
            Panel(
                "Gang", "Ranks of the whole gang.", "none", [Query(_max("resnet_training_world_size"), "ranks")],
                kind=Kind.STEPS, low=0,
            ),
            Panel(
                "Images that can't be decoded", "Files met so far, each counted once over all ranks and epochs. "
                "Another of its class stands in for each.", "none",
                [Query(_of("experiment:resnet_training_bad_images:count"), "files")],
                kind=Kind.STEPS, low=0, alarm=1,
            ),
        ]),
        Row("Checkpoints", [
            Panel(
                "Would be lost", "Seconds of training that a crash now would cost: since the newest checkpoint, or "
                "since the first step.", "s",
                [Query(_of("experiment:resnet_checkpoint_age:seconds"), "age"),
                 Query(_max("resnet_checkpoint_interval_seconds"), "asked for: at most")],
                6, low=0,
            ),
            Panel(
                "Write time", "Of the newest checkpoint. The training goes on meanwhile.", "s",
                [Query(_max("resnet_checkpoint_write_seconds"), "write")], 6, Kind.STEPS, low=0,
            ),
            Panel(
                "Size", "Of the newest checkpoint.", "bytes",
                [Query(_max("resnet_checkpoint_bytes"), "size")], 6, Kind.STEPS, low=0,
            ),
            Panel(
                "Failed writes", "Five in a row end the attempt.", "none",
                [Query(f"max(increase({_of('resnet_checkpoint_failures_total')}[{_RATE}]))", "failures")],
                6, Kind.STEPS, low=0, alarm=1,
            ),
        ]),
        Row("Starts and restarts", [
            Panel(
                "Attempts", "Number of the newest attempt over time: each step up is a new start.", "none",
                [Query(_max("resnet_experiment_attempt"), "attempt")], kind=Kind.STEPS, low=0,
            ),
            Panel(
                "Restarts by reason", "Attempts that ended in the time shown and were followed by another. What each "
                "reason means: docs/architecture.md, section 6.", "none",
                [Query(
                    f"sum by (reason) (increase({_of('resnet_experiment_restarts_total')}[$__range])) > 0.5 "
                    f"or label_replace(sum(increase({_of('resnet_experiment_restarts_total')}[$__range])) < 0.5, "
                    '"reason", "none", "", "")',
                    "{{reason}}",
                )],
                kind=Kind.BARS, low=0,
            ),
            Panel(
                "Time to first step", "From the newest attempt's claim to its first step: scheduling, pulling, "
                "scanning the data, compiling.", "s",
                [Query(_max("resnet_experiment_first_step_seconds"), "first step")], kind=Kind.STEPS, low=0,
            ),
        ]),
    ],
    links=["fleet", "operator"],
)  # fmt: skip
