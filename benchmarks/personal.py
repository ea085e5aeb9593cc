"""Models of clients' own against one for all, where each client holds two of ten classes and few examples.

    python benchmarks/personal.py [--source FOLDER_OF_IDX_FILES] [--strategies ditto ...] [--ranks 3] [--rounds 40]

With `--source` MNIST: 50 clients that train on about 120 examples each and keep 1,080 aside.  Without it scikit-learn's
digits: 20 clients with about 70 to train on.  Trains jobs/personal.toml with each strategy, and each client by itself,
writes a report over all of them and prints what clients get on the examples they keep aside: mean accuracy and that of
the worst tenth, by the common model and by their own.  Ends with an error where own models are no better than FedAvg's.

One rate for every step that a client takes, 0.3: on either set FedAvg's best of 0.03, 0.1, 0.3 and 1, so that what the
others are compared with is at its best.  Nothing was tuned for them.  Only pFedMe's lam is no default: its local step
moves by rate times lam of the way to the client's own model, so lam is 3, which keeps it from going too far.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from machine import machine
from running import command, lines
from sets import DATA

JOB = "jobs/personal.toml"
STRATEGIES = ("fine-tuning", "per-fedavg", "pfedme", "ditto", "apfl", "fedper", "fedrep")
OPTIONS = {
    "per-fedavg": {"strategy.inner_lr": 0.3},
    "pfedme": {"strategy.inner_lr": 0.3, "strategy.lam": 3.0},
}


def shards(source: str | None) -> Path:
    """The shard set, made the first time."""
    folder = DATA / ("mnist-personal" if source else "digits-labels")
    if not folder.exists():
        what = (
            ["idx", "--source", source, "--clients", "50", "--holdout", "0.9"]
            if source
            else ["digits", "--clients", "20"]
        )
        command("shard", *what, "--partition", "labels", "--out", str(folder))
    return folder


def told(line: dict[str, Any], kind: str) -> tuple[float, str]:
    """Clients' mean accuracy by a kind of model (NaN where there is none), and the table's cell."""
    if kind not in line["evaluation"]:
        return math.nan, "-"
    scores = line["evaluation"][kind]["accuracy"]
    return scores["mean"], f"{scores['mean']:.4f}  {scores['worst_tenth']:.4f}"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--source")
    arguments.add_argument("--strategies", nargs="+", default=STRATEGIES)
    arguments.add_argument("--ranks", default="3")
    arguments.add_argument("--rounds", default="40")
    given = arguments.parse_args()
    data = shards(given.source)
    runs, names = Path("runs") / f"personal-{data.name}", list(dict.fromkeys(["fedavg", *given.strategies]))
    print(machine())
    print(f"{data.name}, {given.rounds} rounds   common model        own models          seconds")
    print("                           mean    worst tenth mean    worst tenth")
    least, behind = math.nan, []
    for name in names:
        fields: dict[str, Any] = {
            "name": name,
            "strategy": name,
            "rounds": given.rounds,
            "data.shards": data,
            **OPTIONS.get(name, {}),
        }
        words = [word for field, value in fields.items() for word in ("--set", f"{field}={value}")]
        words = ["train", JOB, "-n", given.ranks, "--out", str(runs / name), "--quiet", *words]
        command(*words, "--overwrite")
        line = lines(runs / name)[-1]
        (common, both), (own, theirs) = told(line, "clients"), told(line, "personal")
        print(f"{name:26} {both:19} {theirs:19} {line['seconds']['elapsed']:.0f}", flush=True)
        if name == "fedavg":
            least = common
            command(*words, "--baseline", "local")
        elif own <= least:
            behind.append(name)
    alone = lines(runs / "fedavg" / "baselines" / "local")[-1]
    print(f"{'each client by itself':26} {'-':19} {told(alone, 'clients')[1]:19} {alone['seconds']['elapsed']:.0f}")
    print(command("report", *(str(runs / name) for name in names), "--out", str(runs)), end="")
    if behind:
        raise SystemExit(f"own models no better than FedAvg's common one: {', '.join(behind)}")


if __name__ == "__main__":
    main()
