"""Feature vectors of which every process has some, as one table; and the first code vectors, made of them."""

import torch
from torch import Tensor

from smalti import processes
from smalti.ops.counts import code_counts
from smalti.ops.nearest import nearest_code

KMEANS_ITERATIONS = 10
JITTER = 0.1  # of vectors picked twice, in standard deviations of the vectors: equal code vectors could never part
ROWS = 1024  # at most so many vectors are held against all others


class Rows:
    """Vectors (N, D) in the order of the processes that have them, N over all.

    What is asked of them is the same in every process, which must all ask for it. No process ever holds the others'
    vectors but those that are picked.

    Args:
        own: the vectors (n, D) of this process.
        together: whether there are others; otherwise these are all.
        seed: of what is picked at random: that of the first process is everybody's.
    """

    def __init__(self, own: Tensor, together: bool, seed: int):
        self.own, self.together, self.first, self.total = own, together, 0, len(own)
        if together:
            counts, seeds = processes.gathered(torch.tensor([len(own), seed], device=own.device)).unbind(1)
            before = counts.cumsum(0) - counts
            self.first, self.total, seed = torch.stack([before[processes.rank()], counts.sum(), seeds[0]]).tolist()
        self.generator = None if own.is_meta else torch.Generator(own.device).manual_seed(seed)

    def __len__(self) -> int:
        return self.total

    def sum(self, of_own: Tensor) -> Tensor:
        """The sum over all processes of what each has made of its own vectors."""
        return processes.sum_over(of_own) if self.together else of_own

    def at(self, places: Tensor) -> Tensor:
        """The vectors at some places in [0, N), (n, D)."""
        if not self.together:
            return self.own[places]
        mine = (places >= self.first) & (places < self.first + len(self.own))
        if not len(self.own):
            return self.sum(self.own.new_zeros(len(places), self.own.shape[1]))
        here = self.own[(places - self.first).clamp(0, len(self.own) - 1)]
        return self.sum(torch.where(mine[:, None], here, 0.0))

    def pick(self, num: int) -> Tensor:
        """`num` vectors at random: without repetition where N allows it, else with a little noise."""
        order = torch.randperm(self.total, device=self.own.device, generator=self.generator)
        chosen = self.at(order.repeat(-(-num // self.total))[:num])
        if num > self.total:
            again = chosen[self.total :]
            noise = torch.randn(again.shape, device=again.device, generator=self.generator)
            chosen[self.total :] += JITTER * self._deviation() * noise
        return chosen

    def _deviation(self) -> Tensor:
        """The standard deviation of each component, (D,)."""
        mean = self.sum(self.own.sum(0)) / self.total
        return (self.sum((self.own - mean).square().sum(0)) / self.total).sqrt()

    def means(self, num: int) -> Tensor:
        """The (num, D) means of k-means, which begins with vectors picked at random."""
        means = self.pick(num)
        for _ in range(KMEANS_ITERATIONS):
            codes = nearest_code(self.own, means)
            counts = self.sum(code_counts(codes, num).to(self.own))[:, None]
            sums = self.sum(torch.zeros_like(means).index_add_(0, codes, self.own))
            means = torch.where(counts > 0, sums / counts.clamp(min=1), self.pick(num))
        return means

    def error(self, vectors: Tensor) -> Tensor:
        """The mean squared distance to the nearest of the `vectors` (K, D), a scalar."""
        own = (self.own - vectors[nearest_code(self.own, vectors)]).square().sum()
        return self.sum(own) / self.total

    def apart(self) -> Tensor:
        """The mean squared distance of some of them to the nearest other one; 0 of a single one."""
        if self.total < 2:
            return self.own.new_zeros(())
        places = torch.arange(0, self.total, -(-self.total // ROWS), device=self.own.device)
        far = self.own.new_full((len(places), 1), torch.inf)  # of a process without vectors
        squared = torch.cat([torch.cdist(self.at(places), self.own).square(), far], dim=1)
        mine = (places >= self.first) & (places < self.first + len(self.own))
        squared[mine, places[mine] - self.first] = torch.inf
        nearest = squared.amin(1)
        return (processes.least_over(nearest) if self.together else nearest).mean()
