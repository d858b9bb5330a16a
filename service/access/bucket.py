"""A token bucket: so many requests at once, and so many a second on the long run."""

import math


class TokenBucket:
    """Holds up to `burst` tokens, gains `rate_per_s`, gives one per request. Starts full.

    Over any time t, at most burst + rate_per_s * t requests pass. The time comes from outside, in seconds of one clock.
    Should that clock go back, the step itself earns nothing, and tokens come from there on as before.
    """

    __slots__ = ("_at", "_burst", "_rate_per_s", "_tokens")

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._rate_per_s, self._burst = rate_per_s, burst
        self._tokens = float(burst)
        self._at = -math.inf

    def take(self, now: float) -> int:
        """Take a token: 0, or if there is none, in how many whole seconds (at least 1) there will be one."""
        if now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate_per_s)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0
        return max(1, math.ceil((1 - self._tokens) / self._rate_per_s))
