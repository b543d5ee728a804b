#include "apps/samebits/progress.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "apps/samebits/ranks.h"

namespace samebits {

ProgressLine::ProgressLine() : terminal_(isatty(STDERR_FILENO) != 0) {}

void ProgressLine::Show(int64_t done, int64_t total, std::string_view what) {
  if (!terminal_ || total <= 0) return;
  constexpr int64_t kWidth = 24;
  const auto filled = static_cast<size_t>(std::clamp<int64_t>(done * kWidth / total, 0, kWidth));
  fmt::print(stderr, "\r\033[K[{:<{}}] {} of {} {}", std::string(filled, '#'), kWidth, done, total,
             what);
  std::fflush(stderr);
  drawn_ = true;
}

void ProgressLine::Clear() {
  if (drawn_) fmt::print(stderr, "\r\033[K");
  drawn_ = false;
}

double PerSecond(int64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

namespace {

bool InMemory(void* begin, size_t bytes, size_t page) {
  std::vector<unsigned char> resident((bytes + page - 1) / page);
  if (mincore(begin, bytes, resident.data()) != 0) return true;  // no telling: nothing to do
  return std::all_of(resident.begin(), resident.end(),
                     [](unsigned char r) { return (r & 1) != 0; });
}

}  // namespace

void PageIn(const Checkpoint& checkpoint, ProgressLine& progress) {
  constexpr int64_t kLarge = 256 << 20, kBlock = 64 << 20;
  constexpr int64_t kMegabyte = 1'000'000;
  if (!progress.shown() || ProcessRanks() != nullptr) return;
  int64_t total = 0;
  for (const SafetensorsFile& file : checkpoint.files()) {
    for (const TensorEntry& entry : file.tensors()) total += entry.view.bytes();
  }
  if (total < kLarge) return;
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  int64_t done = 0;
  for (const SafetensorsFile& file : checkpoint.files()) {
    for (const TensorEntry& entry : file.tensors()) {
      for (int64_t at = 0; at < entry.view.bytes(); at += kBlock) {
        const int64_t count = std::min(kBlock, entry.view.bytes() - at);
        const std::byte* data = entry.view.data + at;
        const size_t before = reinterpret_cast<uintptr_t>(data) % page;  // of its first page
        auto* pages = const_cast<std::byte*>(data - before);
        const size_t bytes = before + static_cast<size_t>(count);
        if (!InMemory(pages, bytes, page)) {
          progress.Show(done / kMegabyte, total / kMegabyte, "MB of the weights");
          madvise(pages, bytes, MADV_POPULATE_READ);  // a wish: the engine reads them all the same
        }
        done += count;
      }
    }
  }
  progress.Clear();
}

}  // namespace samebits
