// Tokens and their ids, both ways, as they stand in tokenizer.json.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace samebits {

class Vocabulary {
 public:
  // Room for so many tokens of so many bytes in all.
  void Reserve(size_t tokens, size_t bytes);
  // False when the token is there already. At most as many as were reserved.
  bool Add(std::string_view token, uint32_t id);
  // After the last Add: makes Token() work. -1, or an id that two tokens have.
  int64_t IndexIds();

  int64_t Find(std::string_view token) const;                        // -1: none
  int64_t FindJoined(std::string_view a, std::string_view b) const;  // of a + b
  std::string_view Token(int64_t id) const;                          // "": none
  bool Has(int64_t id) const;
  size_t count() const { return entries_.size(); }
  int64_t max_id() const { return max_id_; }  // -1: no tokens

 private:
  struct Entry {
    uint32_t offset, length, id;
  };

  std::string_view Text(const Entry& entry) const {
    return std::string_view(bytes_).substr(entry.offset, entry.length);
  }

  std::string bytes_;
  std::vector<Entry> entries_;
  std::vector<uint64_t> slots_;  // upper half of the hash, entry + 1; 0: empty
  std::vector<uint32_t> by_id_;  // entry + 1; 0: none
  uint64_t seed_ = 0;
  int64_t max_id_ = -1;
};

}  // namespace samebits
