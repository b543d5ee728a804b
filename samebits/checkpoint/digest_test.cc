#include "samebits/checkpoint/digest.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>

namespace samebits {
namespace {

TEST(DigestTest, KnownValue) {  // FIPS 180-2, appendix B.1
  EXPECT_EQ(Sha256("abc"),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

// A copy of nano, with `edit` done to its weights file.
std::string DigestOfCopy(const std::function<void(const std::string& folder)>& edit) {
  const std::string folder = testing::TempDir() + "/digest";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directory(folder);
  for (const char* name : {"config.json", "model.safetensors"}) {
    std::filesystem::copy(std::string(SAMEBITS_SOURCE_DIR "/models/nano/") + name, folder);
  }
  edit(folder);
  return CheckpointDigest(Checkpoint::Open(folder));
}

TEST(DigestTest, TellsCheckpointsApart) {
  const std::string nano = CheckpointDigest(Checkpoint::Open(SAMEBITS_SOURCE_DIR "/models/nano"));
  EXPECT_EQ(DigestOfCopy([](const std::string&) {}), nano);
  EXPECT_NE(DigestOfCopy([](const std::string& folder) {
              std::fstream file(folder + "/model.safetensors",
                                std::ios::in | std::ios::out | std::ios::binary);
              file.seekp(-1, std::ios::end);  // the last byte of the last tensor
              const int byte = file.peek();
              file.put(static_cast<char>(byte ^ 1));
            }),
            nano);
  EXPECT_NE(DigestOfCopy([](const std::string& folder) {
              std::ofstream(folder + "/config.json", std::ios::app) << "\n";
            }),
            nano);
}

}  // namespace
}  // namespace samebits
