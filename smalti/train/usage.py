"""The collapse alarm: how much of the codebook is in use, over a fixed number of codes."""

import torch
from torch import Tensor

WINDOW_CODES_PER_ENTRY = 32  # the window is 32 K codes, whatever the batch size
GRACE_WINDOWS = 48  # no alarm in the first ones: usage falls after the k-means start and comes back by itself
ALARM_BELOW, REARM_ABOVE = 0.5, 0.6
NONE_YET = -1.0
ADVICE = (
    "remedies: a smaller code_dim (8 to 16), a larger restart_below, l2-normalised codes (--normalize) or a smaller "
    "learning rate for a VQ-VAE; a larger beta or a lower first temperature for a dVAE"
)


def usage(counts: Tensor) -> float:
    """Fraction of the K codes (K,) that were used at least once."""
    return (counts > 0).float().mean().item()


def perplexity(counts: Tensor) -> float:
    """exp of the entropy of the histogram (K,) of codes: K when all are used alike."""
    share = counts.double() / counts.sum().clamp(min=1)
    return torch.special.entr(share).sum().exp().item()


class CodeUsage:
    """Counts codes over a window of 32 K codes and says once when their usage has collapsed.

    Args:
        codebook_size: K.
    """

    def __init__(self, codebook_size: int):
        self.window = WINDOW_CODES_PER_ENTRY * codebook_size
        self.counts = torch.zeros(codebook_size, dtype=torch.int64)
        self.latest = torch.full((2,), NONE_YET, dtype=torch.float64)  # usage and perplexity of the last full window
        self.armed = torch.ones((), dtype=torch.bool)
        self.windows = torch.zeros((), dtype=torch.int64)

    def observe(self, codes: Tensor) -> str | None:
        """Count codes of any shape; returns the alarm's text when a window ends with too few in use."""
        self.counts += torch.bincount(codes.flatten().cpu(), minlength=len(self.counts))
        if self.counts.sum() < self.window:
            return None
        self.latest = torch.tensor([usage(self.counts), perplexity(self.counts)], dtype=torch.float64)
        self.counts.zero_()
        self.windows += 1
        used = self.latest[0].item()
        if used > REARM_ABOVE:
            self.armed.fill_(True)
        if used >= ALARM_BELOW or not self.armed or self.windows <= GRACE_WINDOWS:
            return None
        self.armed.fill_(False)
        share = f"{used:.0%} of {len(self.counts)} codes in use over the last {self.window:,} codes"
        return f"codebook collapse: {share}; {ADVICE}"

    def report(self) -> dict[str, float]:
        """Usage and perplexity of the last full window; nothing before the first."""
        used, spread = self.latest.tolist()
        return {} if used == NONE_YET else {"usage": used, "perplexity": spread}

    def state(self) -> dict[str, Tensor]:
        """All that a resumed run needs."""
        return {"counts": self.counts, "latest": self.latest, "armed": self.armed, "windows": self.windows}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`."""
        self.counts, self.latest = state["counts"], state["latest"]
        self.armed, self.windows = state["armed"], state["windows"]
