// Any bytes either are a trace or give an Error.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "samebits/base/error.h"
#include "samebits/trace/trace.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::unique_ptr<std::byte, void (*)(void*)> copy(
      static_cast<std::byte*>(std::aligned_alloc(64, (size + 64) / 64 * 64)), &std::free);
  if (size > 0) std::memcpy(copy.get(), data, size);
  try {
    const auto trace = samebits::Trace::Parse({copy.get(), size}, "input");
    if (trace.info().positions.size() != trace.info().input_ids.size()) std::abort();
  } catch (const samebits::Error&) {  // the expected outcome
  }
  return 0;
}
