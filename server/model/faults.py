"""What a log may say of an exception: its kind and where it was raised. Its text may hold what no log may."""

import traceback
from pathlib import PurePath

FRAMES_MAX = 12
CAUSES_MAX = 4


def trail_of(error: BaseException) -> list[str]:
    """The kinds and places of an exception and its causes, innermost frames last, without any of their texts."""
    lines: list[str] = []
    following: BaseException | None = error
    while following is not None and len(lines) < CAUSES_MAX * FRAMES_MAX:
        lines.append(f"{type(following).__module__}.{type(following).__qualname__}")
        frames = traceback.extract_tb(following.__traceback__)[-FRAMES_MAX:]
        lines += [f"{_short(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames]
        following = following.__cause__ or following.__context__
    return lines


def _short(filename: str) -> str:
    return "/".join(PurePath(filename).parts[-3:])
