"""What a run does to its workdir before it trains: takes it, and finds out what to go on from."""
import jax
from etils import epath

from cc_jax import checkpoint, provenance
from cc_jax.config import ConfigError
from cc_jax.data.tokenizer import FILES, Tokenizer, is_in
from cc_jax.lock import WorkdirLock
from cc_jax.saved import read_tokenizer


def claim(workdir: str, lock: WorkdirLock, values: dict, tokenizer: Tokenizer, force: bool) -> tuple[int | None, dict]:
    """Takes a workdir for a run: (the step to resume after, what the run is made of, for its checkpoints).

    Of several processes the first goes first, and does what changes the workdir. Raises ConfigError where it is in use, or
    holds a run of another config, dataset or tokenizer.
    """
    first = jax.process_index() == 0
    if first:
        lock.take()
    checkpoint.claim_workdir(workdir, values, force)
    made_of = provenance.collect(values, provenance.dataset_fingerprint(values["data"]["dir"], values["data"]["split"]),
                                 tokenizer.fingerprint) if first else {}
    if first:
        lock.sign()
        checkpoint.clear_unfinished(workdir)
        checkpoint.set_damaged_aside(workdir)
    keep_tokenizer(tokenizer, workdir, force)
    newest = max(checkpoint.saved_steps(workdir), default=None)
    if first and newest and not force:
        provenance.check_same(checkpoint.read_provenance(workdir, newest), made_of, f"of step {newest} in {workdir}")
    return newest, made_of


def keep_tokenizer(tokenizer: Tokenizer, workdir: str, force: bool) -> None:
    """Puts the tokenizer into the workdir, so that a checkpoint can be used without its dataset.

    Raises ConfigError if the workdir's is another one: a resumed run would read its tokens as others.
    """
    if not is_in(workdir):
        if jax.process_index() == 0:
            tokenizer.save(workdir)
    elif (kept := read_tokenizer(workdir).fingerprint) != tokenizer.fingerprint and not force:
        raise ConfigError(f"the run in {workdir} has the tokenizer {kept}, the dataset or config.data.tokenizer now has "
                          f"{tokenizer.fingerprint}; put the run's own back ({workdir}/tokenizer*), use another --workdir, "
                          "or go on all the same with --config.checkpoint.force=True.")
    elif kept != tokenizer.fingerprint and jax.process_index() == 0:
        tokenizer.save(workdir)
        for name in {*FILES} - {tokenizer.file_name}:
            (epath.Path(workdir) / name).unlink(missing_ok=True)
