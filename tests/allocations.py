"""Counts what is allocated while something runs, by the allocator's own account."""

import warnings
from collections.abc import Callable

import torch


def counted(work: Callable[[], object]) -> int:
    """The most bytes that were allocated at a time while something ran, by the allocator's own account."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            work()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    live, most = 0, 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most
