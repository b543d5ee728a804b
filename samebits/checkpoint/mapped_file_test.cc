// Mapping files, and what happens when one is cut short while it is mapped.
#include "samebits/checkpoint/mapped_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <memory>
#include <vector>

#include "samebits/base/errors_testing.h"

namespace samebits {
namespace {

TEST(MappedFile, ShowsTheBytes) {
  const TempFolder folder;
  const std::string text = "some bytes";
  const MappedFile file(folder.Write("x", text));
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()),
            text);
  EXPECT_TRUE(MappedFile(folder.Write("empty", "")).bytes().empty());
}

TEST(MappedFile, WhatCanNotBeMapped) {
  const TempFolder folder;
  EXPECT_NE(ErrorOf(ErrorCode::kIo, [&] { MappedFile(folder / "absent"); }).find("No such file"),
            std::string::npos);
  EXPECT_NE(ErrorOf(ErrorCode::kIo, [&] { MappedFile{folder.path()}; }).find("not a regular file"),
            std::string::npos);
  EXPECT_NE(ErrorOf(ErrorCode::kIo, [] { MappedFile("/dev/zero"); }).find("not a regular file"),
            std::string::npos);
}

TEST(MappedFile, MoreFilesThanTheHandlerKnows) {
  const TempFolder folder;
  const std::string path = folder.Write("x", "x");
  std::vector<std::unique_ptr<MappedFile>> files;
  files.reserve(1100);
  for (int i = 0; i < 1100; ++i) files.push_back(std::make_unique<MappedFile>(path));
  EXPECT_EQ(files.back()->bytes().size(), 1U);
}

// Reads a page that is no longer there.
void ReadTruncated(const std::string& path, size_t size, size_t left) {
  InstallTruncationHandler();
  const MappedFile file(path);
  if (truncate(path.c_str(), static_cast<off_t>(left)) != 0) _exit(1);
  const volatile std::byte* at = file.bytes().data();
  [[maybe_unused]] const std::byte value = at[size - 1];
  _exit(0);  // the read went through
}

using MappedFileDeathTest = testing::Test;

TEST(MappedFileDeathTest, TruncatedWhileMapped) {
  const TempFolder folder;
  constexpr size_t kSize = 100'000;
  for (const size_t left : {size_t{0}, size_t{1}, kSize - 8192}) {
    const std::string path = folder.Write("cut.safetensors", std::string(kSize, 'x'));
    EXPECT_EXIT(ReadTruncated(path, kSize, left), testing::ExitedWithCode(2),
                "^samebits: .*/cut.safetensors: the file became shorter than its 100000 bytes "
                "while it was in use");
  }
}

TEST(MappedFileDeathTest, OtherFilesAreNotBlamed) {
  const TempFolder folder;
  const std::string path = folder.Write("cut", std::string(100'000, 'x'));
  const std::string other = folder.Write("other", std::string(100'000, 'x'));
  const MappedFile before(other);
  EXPECT_EXIT(ReadTruncated(path, 100'000, 0), testing::ExitedWithCode(2), "/cut: ");
}

// A bus error elsewhere is not ours to explain.
TEST(MappedFileDeathTest, OtherBusErrorsStayBusErrors) {
  EXPECT_EXIT(
      {
        std::signal(SIGBUS, SIG_DFL);
        InstallTruncationHandler();
        std::raise(SIGBUS);
        _exit(0);
      },
      testing::KilledBySignal(SIGBUS), "");
}

}  // namespace
}  // namespace samebits
