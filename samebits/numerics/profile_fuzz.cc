// Any text either is a profile or gives an Error; what a profile holds is within bounds, and rules
// are applied only to products that they were made for.
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "samebits/base/error.h"
#include "samebits/checkpoint/digest.h"
#include "samebits/numerics/profile.h"

namespace samebits {
namespace {

// A mutated text has the digest of the one before, and all behind that check would stay unseen.
std::string WithDigest(std::string_view text) {
  Json json = ParseJson(text, "input");
  if (!json.is_object() || !json.contains("digest")) return std::string(text);
  json.erase("digest");
  const std::string digest = Sha256(json.dump(-1, ' ', true, Json::error_handler_t::replace));
  json["digest"] = digest;
  return json.dump(-1, ' ', true, Json::error_handler_t::replace);
}

void Multiply(const SumRule& rule, int64_t rows, int64_t in, int64_t out) {
  const std::vector<float> x(static_cast<size_t>(rows * in), 1.0F);
  const std::vector<float> w(static_cast<size_t>(in * out), 1.0F);
  std::vector<float> y(static_cast<size_t>(rows * out));
  LinearArgs args{DType::kF32, DType::kF32, x.data(), w.data(), nullptr, y.data(), rows, in, out};
  Product(ProductOf(args, {1, 2, 3}), rule, 0, rows, 0, out);
}

void Read(std::string_view text) {
  const Profile profile = Profile::Parse(text, "input");
  if (profile.threads() < 1 || profile.Unproven().size() > text.size()) std::abort();
  for (const auto& [name, alignment] : profile.weight_alignment()) {
    if (alignment < 0 || alignment > 63) std::abort();
  }
  for (const int64_t size : {1, 5, 8, 9}) {
    for (const bool linear : {true, false}) {
      const ProductShape shape =
          linear ? ProductShape{.rows = size, .in_features = 8, .out_features = size}
                 : ProductShape{.rows = size,
                                .keys = size,
                                .head_dim = 8,
                                .matrices = 1,
                                .batch = 1,
                                .kv_heads = 1};
      try {
        const auto op = linear ? ProductOp::kLinear : ProductOp::kScores;
        Multiply(*profile.Find(op, shape).rule, size, 8, size);
      } catch (const Error&) {  // not covered, or a rule for another size
      }
    }
  }
}

}  // namespace
}  // namespace samebits

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const bool fitting : {false, true}) {
    try {
      samebits::Read(fitting ? samebits::WithDigest(text) : std::string(text));
    } catch (const samebits::Error&) {  // the expected outcome
    }
  }
  return 0;
}
