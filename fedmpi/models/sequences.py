"""Models of sequences, with an output for every position."""

from __future__ import annotations

from torch import Tensor, nn


class CharLSTM(nn.Module):
    """Character indices `(N, T)` int64 to logits `(N, T, vocabulary)`, each from the characters up to its own."""

    def __init__(self, vocabulary: int, embedding: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, hidden, layers, batch_first=True)
        self.output = nn.Linear(hidden, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(self.embedding(x))
        logits: Tensor = self.output(states)
        return logits


def char_lstm(
    shape: tuple[int, ...], outputs: int, embedding: int = 8, hidden: int = 256, layers: int = 2
) -> nn.Module:
    """The character LSTM of McMahan et al. 2017, section 3, on characters of a vocabulary of `outputs`.

    `embedding` is the size of a character's vector, `hidden` the units of each LSTM layer, `layers` their number.
    820,522 parameters at a vocabulary of 90 (Reddi et al. 2021) where a gate has one bias; PyTorch's have two, which
    makes 822,570.
    """
    if len(shape) != 1:
        raise ValueError(f"takes sequences of characters (length,); these examples have shape {tuple(shape)}")
    if min(embedding, hidden, layers) < 1:
        raise ValueError(f"embedding, hidden and layers are {embedding}, {hidden}, {layers}; each should be at least 1")
    if layers > 100:
        raise ValueError(f"layers is {layers}; it should be at most 100")
    return CharLSTM(outputs, embedding, hidden, layers)
