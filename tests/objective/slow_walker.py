"""The objective in plain Python: walks each episode by eq. 6, 8 and 9, whatever the units are and however they're read.

A unit is what happens to it at each of its T+1 steps: (its cross entropy, whether it is predicted right).
"""

from collections.abc import Sequence

Unit = Sequence[tuple[float, bool]]


def walk(correct):
    """Observed states and rewards of one episode: eq. 6 and eq. 8, T+1 steps."""
    observed, rewards = 1, []
    for is_correct in correct:
        rewards.append(1 if observed > 0 else 0)
        observed = observed * (observed + int(is_correct)) - 1
        assert observed in (1, 0, -1)
    return rewards


def slow_objective(units: Sequence[Unit], weights: Sequence[float], form: str) -> float:
    """Return the loss of the units that count."""
    lambdas = [1.0, *weights]
    walks = [walk([right for _, right in unit]) for unit in units]
    entropies = [[entropy for entropy, _ in unit] for unit in units]
    total = 0.0
    if form == "step":
        for t, weight in enumerate(lambdas):
            valid = [entropy[t] for entropy, rewards in zip(entropies, walks, strict=True) if rewards[t]]
            total += weight * sum(valid) / len(valid) if valid else 0.0
        return total
    for entropy, rewards in zip(entropies, walks, strict=True):
        returns = sum(weight * reward for weight, reward in zip(lambdas, rewards, strict=True))
        log_probability = sum(value for value, reward in zip(entropy, rewards, strict=True) if reward)
        total += returns * log_probability / (sum(rewards) if form == "episode-mean" else 1)
    return total / len(units) if units else 0.0
