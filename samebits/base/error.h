// Errors that a user can cause (bad input, environment) and checks for errors that only we can.
// A message says place, what, expected against actual, and a hint where there is one:
//   model.safetensors: tensor 'lm_head.weight': shape [8, 4] bf16 needs 64 bytes, header gives 60
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace samebits {

enum class ErrorCode {
  kBadInput,     // a file or text breaks its format or contradicts another
  kUnsupported,  // legal, and beyond what samebits does
  kIo,           // the operating system refused
  kUsage,        // wrong arguments
};

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

// Throws Error with a formatted message.
template <typename... Args>
[[noreturn]] void Fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

[[noreturn]] void CheckFailed(const char* file, int line, const char* condition,
                              const std::string& message);

}  // namespace samebits

// A programmer's error: on in release, never reachable by input. Prints and aborts.
#define SAMEBITS_CHECK(condition, message)                              \
  do {                                                                  \
    if (!(condition)) {                                                 \
      ::samebits::CheckFailed(__FILE__, __LINE__, #condition, message); \
    }                                                                   \
  } while (false)
