"""Does a connection live, whatever its feeds do? Signs of life and how long ago they were. Pure."""

from __future__ import annotations

#: A connection without any frame for so long is asked whether it lives, and given up so long after the question.
PING_AFTER_S, PONG_WITHIN_S = 15.0, 12.0


class Life:
    """When data, any frame and a pong last came; monotonic seconds, None for never."""

    __slots__ = ("asked_s", "data_s", "frame_s", "opened_s", "pings", "pong_s", "pongs")

    def __init__(self, opened_s: float) -> None:
        self.opened_s = opened_s
        self.data_s: float | None = None
        self.frame_s: float | None = None
        self.pong_s: float | None = None
        #: When the question "are you there?" was sent; None while nothing makes us ask.
        self.asked_s: float | None = None
        #: How often we asked, and how often anything of the kind came.
        self.pings = self.pongs = 0

    def frame(self, now_s: float) -> None:
        """A data frame came: data, an ack, anything."""
        self.frame_s, self.asked_s = now_s, None

    def pong(self, now_s: float) -> None:
        """A ping or pong came."""
        self.pong_s, self.asked_s = now_s, None
        self.pongs += 1

    def silent_s(self, now_s: float) -> float:
        """Seconds since anything came, or since the opening."""
        return now_s - max(self.opened_s, self.frame_s or 0.0, self.pong_s or 0.0)

    def asks(self, now_s: float) -> bool:
        """True once when it is time to ask."""
        if self.asked_s is None and self.silent_s(now_s) > PING_AFTER_S:
            self.asked_s = now_s
            self.pings += 1
            return True
        return False

    def gone(self, now_s: float) -> bool:
        """Whether the question has had no answer in time."""
        return self.asked_s is not None and now_s - self.asked_s > PONG_WITHIN_S

    def silences(self, now_s: float) -> dict[str, float | None]:
        """Seconds since data, since any data frame, since a pong (or ping); None where there never was one."""
        found = {"data": self.data_s, "frame": self.frame_s, "pong": self.pong_s}
        return {name: None if at_s is None else round(now_s - at_s, 3) for name, at_s in found.items()}
