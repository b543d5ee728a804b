// Any bytes either parse or give an Error; tensors that parse lie within the bytes.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "samebits/base/error.h"
#include "samebits/checkpoint/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::unique_ptr<std::byte, void (*)(void*)> copy(
      static_cast<std::byte*>(std::aligned_alloc(64, (size + 64) / 64 * 64)), &std::free);
  if (size > 0) std::memcpy(copy.get(), data, size);
  try {
    const auto file = samebits::SafetensorsFile::Parse({copy.get(), size}, "input");
    for (const samebits::TensorEntry& entry : file.tensors()) {
      const int64_t bytes = entry.view.bytes();
      if (bytes == 0) continue;
      if (entry.view.data < copy.get() || entry.view.data + bytes > copy.get() + size) std::abort();
    }
  } catch (const samebits::Error&) {  // the expected outcome
  }
  return 0;
}
