"""What a config builds, against what a run makes of it."""
import jax
import pytest

from cc_jax import build, sharding, train
from cc_jax.config import Config, ConfigError
from cc_jax.data import pipeline
from cc_jax.saved import load_tokenizer
from configs import shapes_cc, siglip_b16_cc_finetune


@pytest.mark.parametrize("concepts", [{}, {"rows": None, "per_row": 1}, {"embedding": "span"}])
def test_the_batch_has_the_shapes_of_one_from_the_data(shapes_dir, concepts):
    values = shapes_cc.get_config(f"data={shapes_dir},runlocal").to_dict()
    values["concepts"] |= concepts
    config = Config(values)
    made = build.build(config, build.make_mesh(config), 10)
    batches = pipeline.training_batches(train.open_source(config), train.make_example(config, load_tokenizer(config)),
                                        config.batch_size, 1, 0, phrase_rows=made.phrase_rows)
    real = sharding.place(next(batches), made.mesh)
    batches.close()
    assert jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), made.batch) == {
        name: (x.shape, x.dtype, x.sharding) for name, x in real.items()}


def test_the_state_is_built_as_it_will_be_made(shapes_dir):
    values = shapes_cc.get_config(f"data={shapes_dir},runlocal").to_dict()
    values["average"], values["loss"]["distill"] = 0.9, 0.5
    config = Config(values)
    made = build.build(config, build.make_mesh(config), 10)
    state = made.init_state()
    real = made.begin_from(state, state.params)
    assert jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), made.state) == jax.tree.map(
        lambda x: (x.shape, x.dtype, x.sharding), real)


def test_a_length_in_epochs_needs_no_data():
    config = Config(siglip_b16_cc_finetune.get_config().to_dict())
    assert build.length_without_data(config) >= config.optim.warmup_steps


def test_a_batch_that_does_not_divide_is_refused():
    config = Config({"batch_size": 7, "mesh": {"data": -1}, "microbatches": 2})
    with pytest.raises(ConfigError, match="batch_size=7 does not divide over 2 microbatches"):
        build.make_mesh(config)
