// Any bytes either are an archive of arrays or give an Error.
#include <cstdint>
#include <cstdlib>

#include "samebits/base/error.h"
#include "samebits/trace/npz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto file = samebits::ParseNpz({reinterpret_cast<const std::byte*>(data), size}, "input");
    for (const samebits::NamedTensor& tensor : file.tensors) {
      if (file.Find(tensor.name) == nullptr) std::abort();
      int64_t sum = 0;  // every byte is there
      for (int64_t i = 0; i < tensor.view.bytes(); ++i)
        sum += static_cast<int>(tensor.view.data[i]);
      if (sum < 0) std::abort();
    }
  } catch (const samebits::Error&) {  // the expected outcome
  }
  return 0;
}
