"""Numbers and times as progress lines show them."""


def duration(seconds: float) -> str:
    """5025 -> "1 h 23 min"."""
    seconds = int(seconds)
    if seconds < 60:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 3600 else f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def grouped(number: int) -> str:
    """12345 -> "12 345"."""
    return f"{number:,}".replace(",", " ")
