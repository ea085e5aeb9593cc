"""`fedmpi train --dry-run`: the resolved job, memory per rank and bytes per round, before anything is started."""

from __future__ import annotations

import tomli_w
from rich.console import Console
from rich.table import Table

from fedmpi.comm import Solo
from fedmpi.flat import FlatModel
from fedmpi.flow import HEADER
from fedmpi.job import Job
from fedmpi.plan import Plan, assemble, resolved_table
from fedmpi.rounds.loops import LOOPS
from fedmpi.training import keepsake_sizes


def show(job: Job, ranks: int) -> None:
    """Print the resolved job, and its figures on so many ranks."""
    plan = assemble(job, loops=LOOPS)
    console = Console(highlight=False)
    console.print(tomli_w.dumps(resolved_table(plan)).strip(), markup=False)
    console.print()
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name, value in figures(plan, ranks).items():
        table.add_row(name, value)
    console.print(table)


def figures(plan: Plan, ranks: int) -> dict[str, str]:
    """Return the figures to know before a long run, each in words."""
    flat = FlatModel(plan.model, plan.strategy.stays(plan.model), plan.dtype)
    layout = plan.layout(flat)
    path = plan.path(Solo(), layout, flat.device)
    down = plan.strategy.down * flat.size * flat.values.itemsize + 8 * (HEADER + flat.whole.size)
    planes = (flat.values.numel() + flat.grads.numel() + layout.width) * flat.values.itemsize
    memory = planes + down + path.bytes
    serving = ranks if plan.job.server.trains or ranks == 1 else ranks - 1
    held = sum(keepsake_sizes(plan.strategy, flat, plan.stages.memory, layout.up).values()) * flat.values.itemsize
    own = {"clients/": f"{held:,} bytes that each client keeps, in four slots of the run folder"} if held else {}
    return {
        "parameters": f"{flat.count:,} trained, {flat.size:,} values travel as {str(plan.dtype)[6:]}",
        "clients": f"{plan.shards.clients:,} with {plan.shards.examples:,} examples; {plan.cohort:,} a round",
        "ranks": f"{ranks}: {serving} serve clients, about {plan.cohort / serving:.1f} each a round",
        **own,
        "bytes down": f"{down:,} to each rank a round",
        "bytes up": f"{path.bytes:,} from each rank a round",
        "memory": f"about {memory / 2**20:,.1f} MiB of buffers a rank, beside torch, activations and mapped shards",
    }
