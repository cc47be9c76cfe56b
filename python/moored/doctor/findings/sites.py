"""Sites: those that a finding names, in the order of what they pay."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from moored.doctor.recording import Counts, Site

SHARE = 0.02
"""A site with less of the whole is not named, beside the first few."""

AT_LEAST = 3


def by(sites: Iterable[Site], cost: Callable[[Counts], int]) -> tuple[int, ...]:
    """Return the keys of the sites that make up the cost, the costliest first."""
    costs = {site.key: cost(site.counts) for site in sites}
    least = SHARE * sum(costs.values())
    ordered = sorted((key for key, ns in costs.items() if ns > 0), key=lambda key: -costs[key])
    return tuple(key for at, key in enumerate(ordered) if at < AT_LEAST or costs[key] >= least)
