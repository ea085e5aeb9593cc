"""Several models used as one: their probabilities for an example are averaged (a soft vote)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedmpi.flow import Task


class SoftVote(nn.Module):
    """Members of one kind; only those with a `vote` are asked, and all of them as long as nobody has one.

    The outputs are those of one model with the mean of the members' probabilities (or numbers): the task's `vote` makes
    them of `(members, N, ...)`.
    """

    def __init__(self, members: Sequence[nn.Module], task: Task) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.votes = [True] * len(members)
        self.together = getattr(task, "vote", lambda outputs: outputs.mean(0))

    def forward(self, x: Tensor) -> Tensor:
        asked = [member for member, votes in zip(self.members, self.votes, strict=True) if votes] or self.members
        outputs: Tensor = self.together(torch.stack([member(x) for member in asked]))
        return outputs

    def voting(self) -> SoftVote:
        """Return the ensemble of the members with a vote."""
        if any(self.votes):
            self.members = nn.ModuleList([self.members[place] for place, votes in enumerate(self.votes) if votes])
            self.votes = [True] * len(self.members)
        return self
