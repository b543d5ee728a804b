// Products under rules of a profile, for comparison with another implementation: reads a list of
// cases from standard input as JSON and prints the outputs of the interpreter and of the fast
// kernel. All values are bit patterns of fp32 numbers.
//   {"rule": RULE, "dtype": "bfloat16", "y_dtype": "bfloat16", "rows": 1, "size": 2, "outs": 1,
//    "x": [bits], "w": [bits], "bias": [bits] or null, "old": [bits] or null, "position": [x, w,
//    y]}
#include <bit>
#include <iostream>
#include <iterator>

#include "samebits/base/error.h"
#include "samebits/kernels/replay.h"
#include "samebits/tensor/convert.h"

namespace samebits {
namespace {

// Values of a dtype, from and to bit patterns of fp32.
class Values {
 public:
  Values(DType dtype, const Json& bits) : dtype_(dtype) {
    for (const Json& item : bits) {
      const auto value = std::bit_cast<float>(item.get<uint32_t>());
      wide_.push_back(value);
      narrow_.push_back(dtype == DType::kF16 ? FloatToF16(value) : FloatToBF16(value));
    }
  }
  void* data() {
    return dtype_ == DType::kF32 ? static_cast<void*>(wide_.data())
                                 : static_cast<void*>(narrow_.data());
  }
  Json Bits() const {
    Json bits = Json::array();
    for (size_t i = 0; i < wide_.size(); ++i) {
      const float value = dtype_ == DType::kF32   ? wide_[i]
                          : dtype_ == DType::kF16 ? F16ToFloat(narrow_[i])
                                                  : BF16ToFloat(narrow_[i]);
      bits.push_back(std::bit_cast<uint32_t>(value));
    }
    return bits;
  }

 private:
  DType dtype_;
  std::vector<float> wide_;
  std::vector<uint16_t> narrow_;
};

Json RunCase(const Json& json) {
  const DType dtype = ModelDTypeFromName(StringField(json, "dtype", "case")).value();
  const DType y_dtype = ModelDTypeFromName(StringField(json, "y_dtype", "case")).value();
  const auto rows = json.at("rows").get<int64_t>(), size = json.at("size").get<int64_t>();
  const auto outs = json.at("outs").get<int64_t>();
  Values x(dtype, json.at("x")), w(dtype, json.at("w"));
  Values bias(dtype, json.at("bias").is_null() ? Json::array() : json.at("bias"));
  const bool onto = !json.at("old").is_null();
  const Json empty(std::vector<uint32_t>(static_cast<size_t>(rows * outs)));
  Values expected(y_dtype, onto ? json.at("old") : empty), actual = expected;
  ProductArgs args = ProductOf({.dtype = dtype,
                                .weight_dtype = dtype,
                                .x = x.data(),
                                .w = w.data(),
                                .bias = json.at("bias").is_null() ? nullptr : bias.data(),
                                .y = expected.data(),
                                .rows = rows,
                                .in_features = size,
                                .out_features = outs},
                               {.x = json.at("position")[0].get<int32_t>(),
                                .w = json.at("position")[1].get<int32_t>(),
                                .y = json.at("position")[2].get<int32_t>()});
  args.y_dtype = y_dtype;
  args.accumulate = onto;
  const SumRule rule = ReadSumRule(json.at("rule"), "rule");
  Product(args, rule, 0, rows, 0, outs);
  args.y = actual.data();
  ReplayProduct(BestIsa(), args, rule, 0, rows, 0, outs);
  return {{"interpreter", expected.Bits()}, {"fast", actual.Bits()}};
}

int Main() {
  const std::string text{std::istreambuf_iterator<char>(std::cin), {}};
  Json results = Json::array();
  for (const Json& json : ParseJson(text, "standard input")) results.push_back(RunCase(json));
  std::cout << results.dump() << "\n";
  return 0;
}

}  // namespace
}  // namespace samebits

int main() {
  try {
    return samebits::Main();
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 2;
  }
}
