// A file mapped read-only. A file that somebody truncates while it is mapped raises SIGBUS on
// access; InstallTruncationHandler turns that into a message that names the file and exit code 2.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace samebits {

class MappedFile {
 public:
  // Throws Error(kIo) with the path and the system's reason. An empty file maps to an empty span.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  int slot_ = -1;  // in the table that the signal handler reads
};

// For programs, once at start: SIGBUS within a mapped file prints "PATH: the file became shorter
// while it was in use" and ends the process with exit code 2; any other SIGBUS is not touched.
void InstallTruncationHandler();

}  // namespace samebits
