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
struct ResultFile {
  std::vector<Json> lines;  // of the items that are done, as they were written
  int64_t bytes = 0;        // that are whole: behind them a line was cut
};

// What stands in `path`; nothing when there is no such file. `run` is the first line that this run
// would write. A last line without its end is left out. Throws Error: kIo; kBadInput for a file
// that is none of an evaluation or is broken; kUsage for another run, with the first key that
// differs:
//   out.jsonl: made with "dtype": "float32", this run has "bfloat16"; give another -o or ...
ResultFile ReadResults(const std::string& path, const Json& run);

// Appends whole lines behind those of ReadResults; each is handed to the operating system at once.
class ResultWriter {
 public:
  // Cuts what stands behind `found`'s whole lines, and writes `run` into a new file. Throws
  // Error(kIo).
  ResultWriter(const std::string& path, const Json& run, const ResultFile& found);
  ~ResultWriter();
  ResultWriter(const ResultWriter&) = delete;
  ResultWriter& operator=(const ResultWriter&) = delete;

  void Append(const Json& line);

 private:
  std::string path_;
  int file_;
};

}  // namespace samebits
