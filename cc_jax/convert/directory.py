"""What the peers' directories have in common: JSON files, the tokenizer's files, and pickles, which are refused."""
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from cc_jax import strict_json
from cc_jax.convert.weights import Sizes, Weights, WeightsError

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
TOKENIZER_FILES = ("spiece.model", "tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                   "added_tokens.json")
MAX_JSON_BYTES, MAX_TOKENIZER_BYTES = 2**24, 2**27
MAX_SIZE = 2**24        # of anything that a config counts: wide enough for all, too narrow to fill memory


def refuse_pickle(path: str) -> None:
    """Raises WeightsError for a file that only unpickling could read, which can run any code."""
    if path.endswith(PICKLES):
        raise WeightsError(f"{path} is a pickle, which can run any code when it is opened; it is not read. Take the "
                           "model.safetensors or open_clip_model.safetensors beside it, or have its owner save one: "
                           "`safetensors.torch.save_file(model.state_dict(), 'model.safetensors')`.")


def refuse_pickles(path: str) -> None:
    """Raises WeightsError for a directory in which only a pickle holds weights."""
    for file in sorted(epath.Path(path).iterdir()):
        refuse_pickle(str(file))


def read_json(path: str) -> dict[str, Any]:
    """The object in a JSON file. Raises WeightsError where there is none."""
    file = epath.Path(path)
    if not file.exists():
        raise WeightsError(f"{path} is missing; fetch it too.")
    if file.stat().length > MAX_JSON_BYTES:
        raise WeightsError(f"{path} has more than {MAX_JSON_BYTES} bytes; that is no config.")
    try:
        content = strict_json.loads(file.read_bytes())
    except ValueError as error:
        raise WeightsError(f"{path} can't be read as JSON: {error}.") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds {type(content).__name__}, not an object of settings.")
    return content


def number(where: str, block: Mapping[str, Any], name: str) -> int:
    """A size in a config. Raises WeightsError for anything but a sensible whole number; (16, 16) counts as 16."""
    value = block.get(name)
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < MAX_SIZE:
        raise WeightsError(f"{where}: {name}={value!r}; it must be a whole number above 0.")
    return value


def checked_sizes(where: str, sizes: Sizes) -> Sizes:
    """`sizes`, whose heads divide the widths and whose image holds a patch."""
    for tower in (sizes.image, sizes.text):
        if tower.width % tower.num_heads or tower.depth > 1000:
            raise WeightsError(f"{where}: {dataclasses.asdict(tower)}; the heads must divide the width, and "
                               "layers be at most 1000.")
    if not 0 < sizes.grid <= 1024:
        raise WeightsError(f"{where}: images of {sizes.res} pixels in patches of {sizes.patch} make {sizes.grid} patches a "
                           "side; it must be 1 to 1024.")
    return sizes


def tokenizer_files(path: str) -> dict[str, bytes]:
    """The tokenizer's files that lie in a directory."""
    files = {}
    for name in TOKENIZER_FILES:
        file = epath.Path(f"{path}/{name}")
        if file.exists() and file.stat().length <= MAX_TOKENIZER_BYTES:
            files[name] = file.read_bytes()
    return files


def write_tokenizer(weights: Weights, path: str, length: int) -> None:
    """Puts the tokenizer where the peers' loaders look for it; a bare SentencePiece file is declared SigLIP's."""
    files = dict(weights.tokenizer)
    if "tokenizer_config.json" not in files and "spiece.model" in files:
        files["tokenizer_config.json"] = (json.dumps(dict(
            tokenizer_class="SiglipTokenizer", model_max_length=length, do_lower_case=True, unk_token="<unk>",
            eos_token="</s>", pad_token="</s>", model_input_names=["input_ids"]), indent=2) + "\n").encode()
    for name, content in files.items():
        epath.Path(f"{path}/{name}").write_bytes(content)
