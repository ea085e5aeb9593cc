"""The heart-disease benchmark on made-up hospitals: what it makes of their files, its loop, and fedmpi against it."""

from __future__ import annotations

import csv
import importlib
import random
import statistics
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fedmpi
from fedmpi.data import ShardSet
from fedmpi.job import read

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))  # its scripts import one another by their bare names
heart_disease, heart_loop = (importlib.import_module(name) for name in ("heart_disease", "heart_loop"))

SIZES = {"cleveland": 31, "hungarian": 22, "switzerland": 13, "va": 18}
ADAPTIVE = {"beta1": 0.9, "beta2": 0.99, "tau": 1e-6}
DRAW, START = np.random.default_rng(3), np.array([0.3, -0.2, 0.1])
CLIENTS = [(DRAW.normal(size=(n, 2)), DRAW.integers(0, 2, n).astype(float)) for n in (24, 16, 8)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files as UCI's and FLamby's: what is missing is "?", and the split names complete rows alone."""
    folder, draw = tmp_path_factory.mktemp("heart"), random.Random(1)
    with (folder / "flamby_split.csv").open("w", newline="") as file:
        split = csv.writer(file)
        split.writerow(["center", "center_id", "row_in_processed_file", "split", "y"])
        for center, (name, size) in enumerate(SIZES.items()):
            lines = []
            for row in range(size):
                cells = [f"{draw.gauss(5, 2):.2f}" for _ in range(13)] + [str(draw.randrange(5))]
                cells[2], cells[6] = str(1 + row % 4), f"{row % 3}.0"
                cells[4] = "0" if name == "switzerland" else cells[4]
                cells[11] = "?"
                if row % 7 == 3:
                    cells[draw.choice((1, 6, 9))] = "?"
                else:
                    split.writerow([name, center, row, "test" if row % 5 == 1 else "train", int(cells[13] != "0")])
                lines.append(",".join(cells))
            (folder / f"processed.{name}.data").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def shards(source: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return fedmpi.write_shards(
        tmp_path_factory.mktemp("shards") / "heart", heart_disease.hospitals(source), task="binary"
    )


def plain(source: Path, name: str, part: str) -> tuple[list[list[float]], list[int]]:
    """A hospital's standardised rows and labels, a number at a time."""
    rows = [line.split(",") for line in (source / f"processed.{name}.data").read_text().splitlines()]
    with (source / "flamby_split.csv").open(newline="") as file:
        told = [line for line in csv.DictReader(file) if line["center"] == name]
    named = [(line["split"], rows[int(line["row_in_processed_file"])]) for line in told]
    wide = []
    for where, row in named:
        numbers = [float(row[column]) for column in (0, 1, 3, 4, 5, 7, 8, 9)]
        dummies = [float(row[2] == kind) for kind in "234"] + [float(row[6] == kind) for kind in ("1.0", "2.0")]
        wide.append((where, numbers + dummies, int(row[13] != "0")))
    columns = list(zip(*(values for where, values, _ in wide if where == "train"), strict=True))
    means, spreads = [statistics.fmean(column) for column in columns], [statistics.stdev(column) for column in columns]
    chosen = [(values, y) for where, values, y in wide if where == part]
    x = [
        [(value - mean) / (spread or 1.0) for value, mean, spread in zip(values, means, spreads, strict=True)]
        for values, _ in chosen
    ]
    return x, [y for _, y in chosen]


@pytest.mark.parametrize("name", SIZES)
def test_each_hospital_is_standardised_by_what_it_trains_on(source: Path, name: str) -> None:
    x, y, x_heldout, y_heldout = heart_disease.hospitals(source)[name]
    assert x.shape[1] == 13
    for part, found in {"train": (x, y), "test": (x_heldout, y_heldout)}.items():
        expected = plain(source, name, part)
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found[1], expected[1])


def test_the_majority_is_what_most_of_each_hospital_have(source: Path, shards: ShardSet) -> None:
    labels = [plain(source, name, "test")[1] for name in SIZES]
    right = [max(y.count(0), y.count(1)) / len(y) for y in labels]
    assert heart_disease.majority(shards) == pytest.approx(100 * statistics.fmean(right))


def test_the_loops_gradient_is_the_cross_entropys() -> None:
    draw = np.random.default_rng(2)
    x, y, model = draw.normal(size=(6, 3)), draw.integers(0, 2, 6).astype(float), draw.normal(size=4)
    weights = torch.tensor(model, requires_grad=True)
    logits = torch.tensor(x) @ weights[:-1] + weights[-1]
    torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(y)).backward()
    np.testing.assert_allclose(heart_loop.gradient(model, x, y), weights.grad.numpy(), rtol=1e-12)


def looped(strategy: str, clients: int = 3, rounds: int = 1, server_lr: float = 1.0, **options: float) -> np.ndarray:
    """What a strategy makes of a start in so many rounds, each client taking four steps over all that it has."""

    def order(round: int, client: int, examples: int) -> list[np.ndarray]:
        return [np.arange(examples)] * 4

    told = {"strategy": strategy, "options": options, "rounds": rounds, "lr": 0.5, "server_lr": server_lr}
    return heart_loop.federate(START, CLIENTS[:clients], order, **told)


def test_one_client_or_no_pull_is_federated_averaging() -> None:
    np.testing.assert_array_equal(looped("fedprox", rounds=3, mu=0.0), looped("fedavg", rounds=3))
    np.testing.assert_allclose(looped("scaffold", clients=1, rounds=3), looped("fedavg", clients=1, rounds=3))


def test_a_stronger_pull_stays_nearer() -> None:
    moves = [np.linalg.norm(looped("fedprox", mu=mu) - START) for mu in (0.0, 0.5, 1.0)]
    assert moves[0] > moves[1] > moves[2]


def test_controls_lead_to_the_optimum_of_the_mean_loss() -> None:
    # Karimireddy et al. 2020, section 5: where federated averaging drifts to a point between the clients' own optima.
    def slope(model: np.ndarray) -> float:
        sizes, slopes = [len(y) for _, y in CLIENTS], [heart_loop.gradient(model, x, y) for x, y in CLIENTS]
        return float(np.abs(np.average(slopes, axis=0, weights=sizes)).max())

    assert slope(looped("scaffold", rounds=300)) < 1e-9
    assert slope(looped("fedavg", rounds=300)) > 1e-3


@pytest.mark.parametrize(("name", "scale"), [("fedadagrad", 1.0), ("fedadam", 0.01), ("fedyogi", 0.01)])
def test_a_first_adaptive_step_has_one_length_in_every_direction(name: str, scale: float) -> None:
    # Reddi et al. 2021: m = (1 - beta1) D over the root of v = D^2, or of (1 - beta2) D^2; tau is next to nothing.
    step = 0.02 * 0.1 / np.sqrt(scale) * np.sign(looped("fedavg") - START)
    np.testing.assert_allclose(looped(name, server_lr=0.02, **ADAPTIVE) - START, step, rtol=1e-3)


@pytest.mark.parametrize("name", heart_disease.SETTINGS)
def test_fedmpi_comes_to_the_loops_weights(name: str, shards: ShardSet) -> None:
    settings, _ = heart_disease.SETTINGS[name]
    job = read(ROOT / heart_disease.JOB, [f"strategy.name={name}", *settings, "rounds=4", "local.steps=11"])
    start, model = heart_disease.start(job.seed), heart_disease.flat(fedmpi.train(job, shards=shards).model)
    apart = np.abs(model - heart_disease.loop(job, shards)).max()
    assert apart < heart_disease.CLOSE
    assert np.abs(model - start).max() > 100 * apart
