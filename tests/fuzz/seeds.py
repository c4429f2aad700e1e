"""Inputs that once did what must not happen, in `seeds/TARGET/`: as they are where they are text, else in Base64."""
import base64
import hashlib
from pathlib import Path

FOLDER = Path(__file__).parent / "seeds"


def of(target: str) -> list[bytes]:
    return [base64.b64decode(path.read_bytes()) if path.suffix == ".b64" else path.read_bytes()
            for path in sorted((FOLDER / target).glob("*"))]


def keep(target: str, data: bytes, folder: Path = FOLDER) -> Path:
    """Writes an input among the seeds of a target; returns its file."""
    is_text = data.isascii() and all(32 <= byte < 127 or byte == 10 for byte in data)
    path = folder / target / (hashlib.sha256(data).hexdigest()[:8] + (".txt" if is_text else ".b64"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if is_text else base64.encodebytes(data))
    return path
