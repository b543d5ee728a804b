// Any text either is a map, which can be applied or not, or gives an Error.
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "samebits/base/error.h"
#include "samebits/trace/trace_map.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<float> kValues(720, 1.0F);
  const auto* bytes = reinterpret_cast<const std::byte*>(kValues.data());
  samebits::TensorFile file;
  file.path = "input";
  file.metadata = {{"input_ids", "[1, 2, 3, 4, 5, 6]"}, {"dtype", "float32"}};
  file.tensors = {{"a.0", {samebits::DType::kF32, {1, 6, 120}, bytes}},
                  {"a.1", {samebits::DType::kF32, {120, 6}, bytes}},
                  {"b", {samebits::DType::kF32, {6, 20, 6}, bytes}},
                  {"c", {samebits::DType::kF32, {}, bytes}}};
  try {
    const samebits::TraceMap map =
        samebits::ParseTraceMap({reinterpret_cast<const char*>(data), size}, "input");
    const samebits::TensorFile mapped = samebits::ApplyMap(file, map);
    for (const samebits::NamedTensor& tensor : mapped.tensors) {
      // What is given out lies in the file or in memory of its own, and can be read to its end.
      float sum = 0;
      for (int64_t i = 0; i < tensor.view.elements(); ++i) sum += tensor.view.as<float>()[i];
      if (sum != static_cast<float>(tensor.view.elements())) std::abort();
    }
  } catch (const samebits::Error&) {  // the expected outcome
  }
  return 0;
}
