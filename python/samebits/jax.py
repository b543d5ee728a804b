"""Recording from JAX: `samebits.jax.tap` in the model, a Recorder around the call.

    from samebits.jax import Recorder, tap

    q = tap(f"model.layers.{n}.self_attn.q_proj", x @ kernel + bias)

The same functions as `samebits.tap` and `samebits.Recorder`, which take arrays of JAX and of numpy
alike; JAX itself is not imported. Under jax.jit arrays have no values: run the model eagerly, or
under jax.disable_jit(), while a Recorder is active.
"""

from samebits.trace import Recorder, tap

__all__ = ["Recorder", "tap"]
