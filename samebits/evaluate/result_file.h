// The file of an evaluation: JSON lines, the first of which says what was run, then one for each
// item that is done, in the order in which they ended. A run that was interrupted goes on where it
// stopped; a run of something else is refused. docs/evaluation.md lists the keys.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "samebits/base/json.h"

namespace samebits {

// Of what another run left.
struct FoundResults {
  // Of each item that is done what Evaluation::Restore reads; its samples, which can be long, not.
  std::vector<Json> lines;
  int64_t bytes = 0;  // that are whole: behind them a line was cut
};

// What stands in a file with this text. `run` is the first line that this run would write. A last
// line without its end is left out. Throws Error: kBadInput for a text that is none of an
// evaluation or is broken; kUsage for another run, with the first key that differs:
//   out.jsonl: made with "dtype": "float32", this run has "bfloat16"; give another -o or ...
FoundResults ParseResults(std::string_view text, const std::string& path, const Json& run);

// The file while a run writes it. Nobody else can: it is locked (flock) until the end of the
// process or of this object, where the file system has locks.
class ResultFile {
 public:
  // Opens the file or makes an empty one, locks it and reads what another run left; changes nothing
  // of that. Throws Error: as ParseResults; kIo; kUsage when another process writes it.
  ResultFile(const std::string& path, const Json& run);
  ~ResultFile();
  ResultFile(const ResultFile&) = delete;
  ResultFile& operator=(const ResultFile&) = delete;

  const std::vector<Json>& lines() const { return found_.lines; }

  // First: cuts what stands behind the whole lines, and writes the line of the run into a new file.
  // Throws Error(kIo).
  void Begin();
  // Adds a line and hands it to the operating system at once. When that refuses (a full disk),
  // nothing of the line stays and Error(kIo) is thrown.
  void Append(const Json& line);
  // Last: waits for the disk, which may find only then that it is full. Throws Error(kIo).
  void Finish();

 private:
  [[noreturn]] void FailToWrite(int error) const;

  std::string path_;
  Json run_;
  int file_;
  FoundResults found_;  // its bytes grow with the file
};

}  // namespace samebits
