"""The job: a TOML file's frame, its components and their options, and the words of its refusals."""

from fedmpi.job.component import Component
from fedmpi.job.frames import Aggregation, Checkpointing, Cohort, Data, Evaluation, Job, Local, Model, Server, Stop
from fedmpi.job.kinds import LARGE, Count, NonNegative, Positive
from fedmpi.job.reading import read, validate
from fedmpi.job.registry import Registry
from fedmpi.job.regular import regular
from fedmpi.job.rooms import registries
from fedmpi.job.signature import options
from fedmpi.job.words import JobError, because, nearest, shown

__all__ = [
    "LARGE",
    "Aggregation",
    "Checkpointing",
    "Cohort",
    "Component",
    "Count",
    "Data",
    "Evaluation",
    "Job",
    "JobError",
    "Local",
    "Model",
    "NonNegative",
    "Positive",
    "Registry",
    "Server",
    "Stop",
    "because",
    "nearest",
    "options",
    "read",
    "registries",
    "regular",
    "shown",
    "validate",
]
