#include "samebits/checkpoint/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>

#include "samebits/base/error.h"

namespace samebits {
namespace {

// What the signal handler may read: a slot is in use when `begin` is not zero.
struct Slot {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::array<char, 512> message{};
  std::atomic<size_t> length{0};
};

constexpr int kSlots = 1024;
std::array<Slot, kSlots> g_slots;
std::mutex g_mutex;

int TakeSlot(const std::string& path, const std::byte* data, size_t size) {
  const std::scoped_lock lock(g_mutex);
  for (int i = 0; i < kSlots; ++i) {
    Slot& slot = g_slots[i];
    if (slot.begin.load() != 0) continue;
    const std::string message =
        fmt::format("samebits: {}: the file became shorter than its {} bytes while it was in use\n",
                    path, size);
    const size_t length = std::min(message.size(), slot.message.size());
    std::memcpy(slot.message.data(), message.data(), length);
    slot.length.store(length);
    slot.end.store(reinterpret_cast<uintptr_t>(data) + size);
    slot.begin.store(reinterpret_cast<uintptr_t>(data));
    return i;
  }
  return -1;  // more files than slots: the handler will not know this one by name
}

void OnBusError(int signal, siginfo_t* info, void*) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (const Slot& slot : g_slots) {
    const uintptr_t begin = slot.begin.load();
    if (begin == 0 || address < begin || address >= slot.end.load()) continue;
    // Only async-signal-safe calls from here.
    [[maybe_unused]] const ssize_t written =
        write(STDERR_FILENO, slot.message.data(), slot.length.load());
    _exit(2);
  }
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

}  // namespace

MappedFile::MappedFile(const std::string& path) {
  // O_NONBLOCK: opening a pipe must not wait for its other end. Files do not care.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) Fail(ErrorCode::kIo, "{}: can not be opened: {}", path, std::strerror(errno));
  struct stat status {};
  if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    close(fd);
    Fail(ErrorCode::kIo, "{}: not a regular file", path);
  }
  size_ = static_cast<size_t>(status.st_size);
  if (size_ == 0) {
    close(fd);
    return;
  }
  void* memory = mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0);
  const int error = errno;
  close(fd);
  if (memory == MAP_FAILED) {
    Fail(ErrorCode::kIo, "{}: can not be mapped: {}", path, std::strerror(error));
  }
  // A wish: where the file system can, what is read from now on lies in pages of 2 MB, which a CPU
  // finds 512 times faster, and comes in larger pieces.
  madvise(memory, size_, MADV_HUGEPAGE);
  data_ = static_cast<const std::byte*>(memory);
  slot_ = TakeSlot(path, data_, size_);
}

MappedFile::~MappedFile() {
  if (data_ == nullptr) return;
  if (slot_ >= 0) g_slots[slot_].begin.store(0);
  munmap(const_cast<std::byte*>(data_), size_);
}

void InstallTruncationHandler() {
  struct sigaction action {};
  action.sa_sigaction = &OnBusError;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace samebits
