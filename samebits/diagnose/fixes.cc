#include <map>

#include "samebits/diagnose/hypotheses.h"

namespace samebits {

std::string FixFor(const std::string& cause) {
  static const std::map<std::string, std::string> kFixes = {
      {"weight-not-transposed",
       "Checkpoints store [out, in]: transpose the weight on loading (in JAX: kernel = weight.T). "
       "Square weights raise no shape error."},
      {"weights-swapped", "Load each tensor under its own name."},
      {"gate-up-swapped", "The activation belongs on gate_proj; up_proj is multiplied as it is."},
      {"bias-missing", "The checkpoint has a bias for this projection: load and add it."},
      {"bias-twice", "Add the bias once; with several ranks or fused layers, on one of them only."},
      {"norm-eps", "Take rms_norm_eps from config.json."},
      {"norm-weight-plus-one",
       "Multiply by the weight itself: this family does not store weight - 1."},
      {"norm-low-precision", "Compute the mean of squares and the root in fp32, then cast."},
      {"rope-theta", "Take rope_theta from config.json."},
      {"rope-interleaved",
       "Hugging Face rotates the halves: pair (i, i + head_dim/2); either do the same or permute "
       "the "
       "rows of q_proj and k_proj."},
      {"rope-rotation-direction", "y = x cos + rotate_half(x) sin, rotate_half(x) = (-x2, x1)."},
      {"rope-position-offset", "Positions count from 0."},
      {"rope-scaling",
       "Read rope_scaling (rope_parameters in newer files) of config.json and scale the inverse "
       "frequencies as it says; with yarn cos and sin are multiplied by attention_factor, too."},
      {"qk-norm", "Normalise each head of q and k (q_norm, k_norm) before the rotary embedding."},
      {"sliding-window",
       "A token sees sliding_window tokens, itself included: token - sliding_window < key <= "
       "token. "
       "Take the window, and the layers that have it, from config.json: sliding_window, "
       "use_sliding_window, max_window_layers, layer_types."},
      {"rope-missing", "Apply the rotary embedding to q and to k."},
      {"attention-scale", "Scale the scores once, by head_dim ** -0.5."},
      {"gqa-head-order",
       "Query head h belongs to key-value head h // (num_attention_heads / num_key_value_heads): "
       "repeat each key-value head in place (repeat), do not tile."},
      {"mask-missing", "Apply the causal mask before the softmax."},
      {"mask-offset", "A token sees itself and all before it: key j <= query t."},
      {"activation", "Take hidden_act from config.json."},
      {"cast-truncation", "Round to nearest even when casting fp32 down; do not cut bits off."},
      {"softmax-low-precision", "Cast the scores to fp32, take the softmax, cast back."},
      {"activation-low-precision", "Cast to fp32 before SiLU and back behind it."},
      {"residual-source", "The residual is the input of the norm, not its output."},
      {"head-layout",
       "A projection's output is [num_heads, head_dim]: reshape in that order, and split a fused "
       "weight where it was joined."},
      {"rope-row-permutation",
       "Permute the rows of q_proj and k_proj only when the rotation uses pairs (2i, 2i+1); with "
       "rotate_half leave them as stored."},
      {"layer-order", "Sort layers by number, not by name: 0, 1, 2, ..., 10."},
      {"bias-on-wrong-op", "Load each bias with the weight of the same name."},
      {"lm-head-tying",
       "tie_word_embeddings of config.json says whether lm_head has a weight of its own."},
      {"weight-random",
       "This weight is not the checkpoint's: look for keys that loading reported missing."},
      {"weight-dtype-chain",
       "Load the weights in the dtype in which they are stored, without a stop in another."},
      {"rope-partial",
       "The whole head is rotated, with frequencies theta^(-2i/head_dim), unless config.json has a "
       "partial_rotary_factor."},
      {"embedding-scale", "This family does not scale its embedding."},
      {"norm-missing", "Normalise here: x / sqrt(mean(x^2) + eps), times the weight."},
      {"norm-mean-subtracted", "RMSNorm subtracts no mean: x / sqrt(mean(x^2) + eps)."},
      {"rope-low-precision",
       "Compute inverse frequencies, positions, angles, cos and sin in float32, then cast."},
      {"accumulator-low-precision",
       "Accumulate products in float32 from operands as they are (preferred_element_type, "
       "allow_tf32 = False, precision = highest)."},
      {"residual-low-precision", "Keep the residual in the model's dtype."},
      {"overflow-f16", "Compute scores in bfloat16 or float32: float16 ends at 65504."},
      {"softcap", "This family caps neither scores nor logits."},
      {"head-dim", "Take head_dim from config.json; it is not hidden_size / num_attention_heads."},
      {"cache-low-precision",
       "Keep k and v in the model's dtype (llama.cpp: -ctk f32 -ctv f32), or run the reference "
       "with the same cache."},
      {"cache-offset", "A cached step's position is the number of tokens before it."},
      {"trace-tap-point",
       "The port computes the right value and records another: move the tap behind the operation."},
      {"trace-dtype", "State the dtype that the model ran in, and record tensors as it held them."},
      {"trace-inputs", "Write the ids and positions that the model was given into the trace."},
      {"trace-stale", "Copy a tensor when it is recorded: its buffer was used again."},
      {"unexplained", "No known cause reproduces these values: look at this operation first."},
  };
  const auto found = kFixes.find(cause);
  return found == kFixes.end() ? "" : found->second;
}

}  // namespace samebits
