"""The keys of a cohort, three a client, at once and one by one: microseconds a client, the best of some trials.

python benchmarks/keys.py [--clients 1 10 100 1000 10000]
"""

from __future__ import annotations

import argparse
import timeit

import numpy as np
from machine import machine

from fedmpi.flow import key, keys


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 10, 100, 1000, 10_000])
    print(machine())
    for count in parser.parse_args().clients:
        clients = np.arange(count)
        at_once = timeit.repeat(lambda clients=clients: keys(1, 2, clients[:, None], np.arange(3)), number=1)
        each = timeit.repeat(
            lambda count=count: [key(1, 2, at, use) for at in range(count) for use in range(3)], number=1
        )
        first, second = (min(seconds) / count * 1e6 for seconds in (at_once, each))
        print(f"{count:>6} clients: {first:6.2f} us at once, {second:6.2f} us one by one")


if __name__ == "__main__":
    main()
