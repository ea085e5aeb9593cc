"""What is learned: a local rule and a server step, by name."""

from collections.abc import Callable

from fedmpi.strategies.agnostic import Agnostic
from fedmpi.strategies.apfl import APFL
from fedmpi.strategies.ditto import Ditto
from fedmpi.strategies.fedadagrad import FedAdagrad
from fedmpi.strategies.fedadam import FedAdam
from fedmpi.strategies.fedavg import FedAvg
from fedmpi.strategies.fedavgm import FedAvgM
from fedmpi.strategies.fedbn import FedBN
from fedmpi.strategies.feddecorr import FedDecorr
from fedmpi.strategies.feddyn import FedDyn
from fedmpi.strategies.fedexp import FedExP
from fedmpi.strategies.fednova import FedNova
from fedmpi.strategies.fedper import FedPer
from fedmpi.strategies.fedprox import FedProx
from fedmpi.strategies.fedrep import FedRep
from fedmpi.strategies.fedsgd import FedSGD
from fedmpi.strategies.fedyogi import FedYogi
from fedmpi.strategies.finetuning import FineTuning
from fedmpi.strategies.iceadmm import ICEADMM
from fedmpi.strategies.ifca import IFCA
from fedmpi.strategies.iiadmm import IIADMM
from fedmpi.strategies.local import Local
from fedmpi.strategies.mime import Mime
from fedmpi.strategies.mimelite import MimeLite
from fedmpi.strategies.moon import MOON
from fedmpi.strategies.normalised import NormalisedSGD
from fedmpi.strategies.perfedavg import PerFedAvg
from fedmpi.strategies.pfedme import PFedMe
from fedmpi.strategies.qfedavg import QFedAvg
from fedmpi.strategies.scaffold import Scaffold
from fedmpi.strategies.strategy import Server, Strategy, sound

__all__ = ["STRATEGIES", "Server", "Strategy", "sound"]

STRATEGIES: dict[str, Callable[..., Strategy]] = {
    # one model for all
    "fedavg": FedAvg,
    "fedsgd": FedSGD,
    "normalised-sgd": NormalisedSGD,
    "fedavgm": FedAvgM,
    "fedadagrad": FedAdagrad,
    "fedadam": FedAdam,
    "fedyogi": FedYogi,
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
}
