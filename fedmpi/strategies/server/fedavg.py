"""Federated averaging: clients train, the server takes the weighted mean of their updates.

McMahan, Moore, Ramage, Hampson, Aguera y Arcas 2017, "Communication-Efficient Learning of Deep Networks from
Decentralized Data", algorithm 1.  With a server optimiser it is FedOpt: Reddi et al. 2021, "Adaptive Federated
Optimization", algorithm 1.
"""

from fedmpi.strategies.strategy import Strategy


class FedAvg(Strategy):
    """Federated averaging: the weighted mean of clients' updates moves the model (McMahan et al. 2017)."""
