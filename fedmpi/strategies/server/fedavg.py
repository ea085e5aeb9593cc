"""Federated averaging: clients train, the server takes the weighted mean of what they learned.

McMahan, Moore, Ramage, Hampson, Aguera y Arcas 2017, "Communication-Efficient Learning of Deep Networks from
Decentralized Data", algorithm 1.  With a server optimiser it is FedOpt: Reddi et al. 2021, "Adaptive Federated
Optimization", algorithm 1.
"""

from fedmpi.strategies.strategy import Strategy


class FedAvg(Strategy):
    """Federated averaging (McMahan et al. 2017)."""
