"""Strategies by name: a local rule and a server step each."""

from fedmpi.job import Registry
from fedmpi.strategies.admm.iceadmm import ICEADMM
from fedmpi.strategies.admm.iiadmm import IIADMM
from fedmpi.strategies.drift.feddecorr import FedDecorr
from fedmpi.strategies.drift.feddyn import FedDyn
from fedmpi.strategies.drift.fednova import FedNova
from fedmpi.strategies.drift.fedprox import FedProx
from fedmpi.strategies.drift.mime import Mime
from fedmpi.strategies.drift.mimelite import MimeLite
from fedmpi.strategies.drift.moon import MOON
from fedmpi.strategies.drift.scaffold import Scaffold
from fedmpi.strategies.fair.agnostic import Agnostic
from fedmpi.strategies.fair.qfedavg import QFedAvg
from fedmpi.strategies.personal.apfl import APFL
from fedmpi.strategies.personal.ditto import Ditto
from fedmpi.strategies.personal.fedbn import FedBN
from fedmpi.strategies.personal.fedper import FedPer
from fedmpi.strategies.personal.fedrep import FedRep
from fedmpi.strategies.personal.finetuning import FineTuning
from fedmpi.strategies.personal.ifca import IFCA
from fedmpi.strategies.personal.local import Local
from fedmpi.strategies.personal.perfedavg import PerFedAvg
from fedmpi.strategies.personal.pfedme import PFedMe
from fedmpi.strategies.server.adaptive import fedadagrad, fedadam, fedyogi
from fedmpi.strategies.server.fedavg import FedAvg
from fedmpi.strategies.server.fedavgm import FedAvgM
from fedmpi.strategies.server.fedexp import FedExP
from fedmpi.strategies.server.fedsgd import FedSGD
from fedmpi.strategies.server.normalised import NormalisedSGD
from fedmpi.strategies.sound import sound
from fedmpi.strategies.strategy import ServerStep, Strategy

__all__ = ["STRATEGIES", "ServerStep", "Strategy", "sound"]

STRATEGIES: Registry[Strategy] = Registry(
    "strategy",
    {
        # one model for all
        "fedavg": FedAvg,
        "fedsgd": FedSGD,
        "normalised-sgd": NormalisedSGD,
        "fedavgm": FedAvgM,
        "fedadagrad": fedadagrad,
        "fedadam": fedadam,
        "fedyogi": fedyogi,
        "fedexp": FedExP,
        "fedprox": FedProx,
        "scaffold": Scaffold,
        "fednova": FedNova,
        "feddyn": FedDyn,
        "mime": Mime,
        "mimelite": MimeLite,
        "moon": MOON,
        "feddecorr": FedDecorr,
        "iiadmm": IIADMM,
        "iceadmm": ICEADMM,
        # fair to every client
        "qfedavg": QFedAvg,
        "agnostic": Agnostic,
        # a model for each client
        "local": Local,
        "fine-tuning": FineTuning,
        "ditto": Ditto,
        "pfedme": PFedMe,
        "apfl": APFL,
        "fedper": FedPer,
        "fedrep": FedRep,
        "fedbn": FedBN,
        "per-fedavg": PerFedAvg,
        "ifca": IFCA,
    },
    given=("server",),
    of=Strategy,
)
