"""Ring-A-Bell: a genetic search for words whose text states lie where the concept lies (arXiv:2310.10012).

    v  = mean_n ( T(with_n) - T(without_n) )          concept vector over pairs of prompts, shape (L, D)
    E* = T(p) + c v                                   the text states of a prompt p with more of the concept
    minimise over words  | E* - T(words) |^2

T is the text encoder of the base model. The denoiser is not used, so the same words can be tried on any erasure.
Selection, crossover and mutation are those of the authors' notebooks. Differences: words come from the part of the
vocabulary that survives being written as text and tokenized again, and distances are computed for the text as it is
tokenized; the authors score token ids, and lose those that do not survive. Mutated parents are scored again, as theirs
are.
"""

from dataclasses import dataclass
from typing import Any

import torch

from crce.attacks.prompts import AttackedPrompt, read_vocabulary, room_for
from crce.attacks.protocol import Allowance, Attack, stream
from crce.attacks.text import read_data
from crce.attacks.victim import Victim
from crce.backbones import Conditioning


CHECKS = 4  # times that the best texts so far are tried
TRIED = 2  # texts at each of them


@dataclass
class RingABell(Attack):
    """Genetic search over texts."""

    name = "ring-a-bell"
    default_steps = 100

    words: int = 16  # K, words of a text; fewer where the tokenizer has less room
    strength: float = 3.0  # c, the weight of the concept vector
    population: int = 200  # texts of a generation
    crossover: float = 0.5  # share of parents that have children
    mutation: float = 0.25  # share of texts in which one word changes

    def search(self, victim: Victim, prompt: AttackedPrompt, allowance: Allowance) -> dict[str, Any]:
        vocabulary = read_vocabulary(victim.backbone.pipe.tokenizer)
        generator = stream(victim.seed, self.name, prompt.text)
        with victim.original():
            pairs = read_data("texts.yaml")["with_and_without"]
            with_it = states(victim.encode([text.format(prompt.target) for text in pairs]))
            v = (with_it - states(victim.encode([*pairs.values()]))).mean(0)
            wanted = states(victim.encode([prompt.text]))[0] + self.strength * v
        k = min(self.words, room_for(victim.backbone))
        people = torch.randint(len(vocabulary), (self.population, k), generator=generator)
        known: dict[str, float] = {}  # texts of parents recur
        first = best = float("inf")
        tried: set[str] = set()
        checks = {max(1, allowance.budget.steps * (i + 1) // CHECKS) for i in range(CHECKS)}
        while allowance.take():
            texts = [vocabulary.text(row) for row in people.tolist()]
            new = list(dict.fromkeys(text for text in texts if text not in known))
            with victim.original():
                known |= dict(zip(new, distances(wanted, victim, new), strict=True))
            loss = torch.tensor([known[text] for text in texts])
            order = loss.argsort(stable=True)
            best = min(best, float(loss[order[0]]))
            first = min(first, float(loss.median()))
            if allowance.steps in checks or allowance.done:
                fittest = [text for text in dict.fromkeys(texts[i] for i in order.tolist()) if text not in tried]
                tried.update(fittest[:TRIED])
                if any(a.complete for a in victim.attempt(fittest[:TRIED])):
                    break
            known = {texts[i]: known[texts[i]] for i in order.tolist()[: self.population]}
            parents = people[order[: self.population // 2]]
            people = mutate(breed(parents, self.crossover, generator), self.mutation, len(vocabulary), generator)
        return {"distance_random": round(first, 4), "distance_best": round(best, 4), "words": k}


def states(cond: Conditioning) -> torch.Tensor:
    """Token states in float32, shape (B, L, D); zero where the mask marks padding."""
    hidden = cond.hidden.float()
    return hidden if cond.mask is None else hidden * cond.mask[..., None]


def distances(wanted: torch.Tensor, victim: Victim, texts: list[str]) -> list[float]:
    """| E* - T(text) |^2 for each text."""
    size = victim.backbone.prompts_at_once
    parts = [texts[start : start + size] for start in range(0, len(texts), size)]
    return [d for part in parts for d in (states(victim.encode(part)) - wanted).square().sum((1, 2)).tolist()]


def breed(parents: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """Parents, followed by their children.

    With probability `share` a parent and a random mate are cut at the same position in [1, K], and the two ways to
    join the parts are two children. Rows of word numbers, shape (P, K) -> (P + 2 C, K) for C couples.
    """
    p, k = parents.shape
    paired = torch.rand(p, generator=generator) < share
    mates = parents[torch.randint(p, (p,), generator=generator)]
    cut = torch.randint(1, k + 1, (p, 1), generator=generator)
    left = torch.arange(k) < cut
    both = torch.stack([torch.where(left, parents, mates), torch.where(left, mates, parents)], 1)
    return torch.cat([parents, both[paired].flatten(0, 1)])


def mutate(people: torch.Tensor, share: float, words: int, generator: torch.Generator) -> torch.Tensor:
    """With probability `share` replace one word of a row, shape (N, K), by a random one of a vocabulary of `words`."""
    n, k = people.shape
    changed = torch.rand(n, generator=generator) < share
    place = torch.randint(k, (n,), generator=generator)
    word = torch.randint(words, (n,), generator=generator)
    out = people.clone()
    out[changed, place[changed]] = word[changed]
    return out
