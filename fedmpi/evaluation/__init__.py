"""The quality of a model: tasks with their metrics, scores of all test examples and of each client's own."""

from fedmpi.evaluation.central import central, ready
from fedmpi.evaluation.metrics import Metric, client_scores, higher_is_better
from fedmpi.evaluation.predict import predictions
from fedmpi.evaluation.score import Scorer
from fedmpi.evaluation.tasks import TASKS, Binary, Classification, NextCharacter, Regression

__all__ = [
    "TASKS",
    "Binary",
    "Classification",
    "Metric",
    "NextCharacter",
    "Regression",
    "Scorer",
    "central",
    "client_scores",
    "higher_is_better",
    "predictions",
    "ready",
]
