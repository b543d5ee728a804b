#include "samebits/checkpoint/digest.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <openssl/evp.h>

#include <algorithm>
#include <memory>

#include "samebits/base/error.h"
#include "samebits/base/json.h"

namespace samebits {
namespace {

class Hash {
 public:
  Hash() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    SAMEBITS_CHECK(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1,
                   "libcrypto without SHA-256");
  }

  void Add(const void* data, size_t bytes) {
    SAMEBITS_CHECK(EVP_DigestUpdate(context_.get(), data, bytes) == 1, "EVP_DigestUpdate");
  }
  void Add(std::string_view text) { Add(text.data(), text.size()); }

  std::string Finish() {
    unsigned char bytes[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    SAMEBITS_CHECK(EVP_DigestFinal_ex(context_.get(), bytes, &size) == 1, "EVP_DigestFinal_ex");
    std::string text = "sha256:";
    for (unsigned i = 0; i < size; ++i) text += fmt::format("{:02x}", bytes[i]);
    return text;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

}  // namespace

std::string Sha256(std::string_view bytes) {
  Hash hash;
  hash.Add(bytes);
  return hash.Finish();
}

std::string CheckpointDigest(const Checkpoint& checkpoint) {
  constexpr int64_t kEnd = 4096, kConfigBytes = 1 << 24;
  Hash hash;
  hash.Add(ReadTextFile(checkpoint.folder() + "/config.json", kConfigBytes));
  std::vector<const TensorEntry*> tensors;
  for (const SafetensorsFile& file : checkpoint.files()) {
    for (const TensorEntry& tensor : file.tensors()) tensors.push_back(&tensor);
  }
  std::sort(tensors.begin(), tensors.end(),
            [](const TensorEntry* a, const TensorEntry* b) { return a->name < b->name; });
  for (const TensorEntry* tensor : tensors) {
    const TensorView& view = tensor->view;
    const int64_t bytes = view.bytes();
    const std::string shape = fmt::format("[{}]", fmt::join(view.shape, ","));
    for (std::string_view text :
         {std::string_view(tensor->name), DTypeName(view.dtype), std::string_view(shape)}) {
      hash.Add(text);
      hash.Add("\0", 1);
    }
    if (bytes <= 2 * kEnd) {
      hash.Add(view.data, static_cast<size_t>(bytes));
    } else {
      hash.Add(view.data, kEnd);
      hash.Add(view.data + bytes - kEnd, kEnd);
    }
  }
  return hash.Finish();
}

}  // namespace samebits
