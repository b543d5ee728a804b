// Any text either is a configuration within the bounds or gives an Error.
#include <cstdint>
#include <cstdlib>

#include "samebits/base/error.h"
#include "samebits/checkpoint/checkpoint.h"
#include "samebits/checkpoint/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const samebits::ModelConfig config =
        samebits::ParseModelConfig({reinterpret_cast<const char*>(data), size}, "input");
    if (config.head_dim < 2 || config.num_attention_heads % config.num_key_value_heads != 0) {
      std::abort();
    }
    if (samebits::ExpectedTensors(config).empty()) std::abort();
  } catch (const samebits::Error&) {  // the expected outcome
  }
  return 0;
}
