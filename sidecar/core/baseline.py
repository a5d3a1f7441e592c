"""When to take the profile of calm times that a later dump is compared with. Pure."""

from __future__ import annotations

from sidecar.core.trigger import TriggerPolicy

# The first one is taken as soon as the program answers: it may leak from its first second on. The second one replaces
# it after start-up has settled (caches filled, pools grown), and is kept for the life of the process.
_SETTLED_AFTER_S = 300.0
_RETRY_S = 5.0


def baseline_due(
    policy: TriggerPolicy, *, ratio: float | None, uptime_s: float, taken_at_uptime_s: float | None, tried_s_ago: float
) -> bool:
    """Whether to take a baseline of a process now.

    ``ratio`` is memory over limit (None without a limit: then any time is calm), ``uptime_s`` how long we have known
    the process, ``taken_at_uptime_s`` when its baseline was taken on that scale, ``tried_s_ago`` the last attempt.
    """
    calm = ratio is None or ratio < policy.rearm_ratio
    if not calm or tried_s_ago < _RETRY_S:
        return False
    if taken_at_uptime_s is None:
        return True
    return taken_at_uptime_s < _SETTLED_AFTER_S <= uptime_s
