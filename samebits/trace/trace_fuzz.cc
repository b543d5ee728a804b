// Any bytes either are a trace or give an Error.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>

#include "samebits/base/error.h"
#include "samebits/trace/trace.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::unique_ptr<std::byte, void (*)(void*)> copy(
      static_cast<std::byte*>(std::aligned_alloc(64, (size + 64) / 64 * 64)), &std::free);
  if (size > 0) std::memcpy(copy.get(), data, size);
  try {
    const auto trace = samebits::Trace::Parse({copy.get(), size}, "input");
    const samebits::TraceInfo& info = trace.info();
    const size_t ids = info.input_ids.size();
    if (info.positions.size() != ids || info.attention_mask.size() != ids) std::abort();
    const int64_t sequences = info.batch == 0 ? 1 : info.batch;
    if (trace.tokens() * sequences != static_cast<int64_t>(ids)) std::abort();
    if (std::accumulate(info.chunks.begin(), info.chunks.end(), int64_t{0}) != trace.tokens()) {
      std::abort();
    }
  } catch (const samebits::Error&) {  // the expected outcome
  }
  return 0;
}
