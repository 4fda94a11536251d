"""Codebook-collapse alarm: usage and perplexity over a window of codes."""

import torch
from torch import Tensor

from smalti import processes
from smalti.errors import SmaltiError
from smalti.ops.counts import perplexity, usage

WINDOW_CODES_PER_ENTRY = 32  # the window is 32 K codes at every batch size
GRACE_WINDOWS = 48  # no alarm in the first windows: usage dips after k-means initialisation and recovers
ALARM_BELOW, REARM_ABOVE = 0.5, 0.6
NONE_YET = -1.0
MOST_CODES = 1 << 28  # that are counted, in 8 bytes each
ADVICE = (
    "remedies: a smaller code_dim (8 to 16), a larger restart_below, l2-normalised codes (--compare direction) or a "
    "smaller learning rate for a VQ-VAE; a larger beta or a lower first temperature for a dVAE"
)


class CodeUsage:
    """Counts codes (K of them in each of q codebooks) over windows, and raises an alarm once usage has collapsed.

    Of processes that train together each counts its own; they add them up at the end of a window.

    Raises:
        SmaltiError: more codes than are counted.
    """

    def __init__(self, codebook_size: int, num_codebooks: int = 1):
        if codebook_size * num_codebooks > MOST_CODES:
            told = f"at most {MOST_CODES:,} codes, not {codebook_size * num_codebooks:,}"
            raise SmaltiError(f"training counts how often each code is used, of {told}: give a smaller codebook")
        self.window = WINDOW_CODES_PER_ENTRY * codebook_size * num_codebooks
        self.counts = torch.zeros(num_codebooks, codebook_size, dtype=torch.int64)
        self.seen = 0  # codes in `counts`, known without synchronising with the device
        self.latest = torch.full((2,), NONE_YET, dtype=torch.float64)  # usage and perplexity of the last full window
        self.armed = torch.ones((), dtype=torch.bool)
        self.windows = torch.zeros((), dtype=torch.int64)

    def observe(self, counts: Tensor, seen: int) -> str | None:
        """Add counts (q, K) of `seen` codes; returns the alarm's text if a window ends with usage below one half."""
        self.counts = self.counts.to(counts.device) + counts
        self.seen += seen * processes.world()  # equal parts
        if self.seen < self.window:
            return None
        processes.sum_over(self.counts)
        self.latest = torch.tensor([usage(self.counts), perplexity(self.counts)], dtype=torch.float64)
        self.counts, self.seen = torch.zeros_like(self.counts), 0
        self.windows += 1
        used = self.latest[0].item()
        if used > REARM_ABOVE:
            self.armed.fill_(True)
        if used >= ALARM_BELOW or not self.armed or self.windows <= GRACE_WINDOWS:
            return None
        self.armed.fill_(False)
        share = f"{used:.0%} of {self.counts.numel()} codes in use over the last {self.window:,} codes"
        return f"codebook collapse: {share}; {ADVICE}"

    def report(self) -> dict[str, float]:
        """Usage and perplexity of the last full window; nothing before the first."""
        used, spread = self.latest.tolist()
        return {} if used == NONE_YET else {"usage": used, "perplexity": spread}

    def state(self) -> dict[str, Tensor]:
        """State for the checkpoint, the same in all processes."""
        counts = processes.sum_over(self.counts.clone())
        return {"counts": counts.cpu(), "latest": self.latest, "armed": self.armed, "windows": self.windows}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore `state`."""
        counts, self.latest = state["counts"], state["latest"]
        self.seen, self.counts = int(counts.sum()), counts if processes.is_first() else torch.zeros_like(counts)
        self.armed, self.windows = state["armed"], state["windows"]
