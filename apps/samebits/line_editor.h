// Lines that a person types: edited, with a history that lasts (libedit). Plain lines when standard
// input is no terminal.
#pragma once

#include <memory>
#include <optional>
#include <string>

namespace samebits {

class LineEditor {
 public:
  // `history_file` is read now and written at the end; empty: no history is kept.
  LineEditor(std::string prompt, std::string history_file);
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  // The next line without its end; nullopt at the end of the input (Ctrl-D). A SIGINT whose handler
  // returns empties the line.
  std::optional<std::string> Read();
  bool interactive() const { return impl_ != nullptr; }

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;  // null: no terminal
};

// $XDG_STATE_HOME/samebits/NAME or ~/.local/state/samebits/NAME; the folder is made. Empty when it
// can not be.
std::string StateFile(const std::string& name);

}  // namespace samebits
