#include "apps/samebits/line_editor.h"

#include <histedit.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <cstdlib>
#include <cwchar>
#include <filesystem>
#include <iostream>

namespace samebits {

struct LineEditor::Impl {
  std::string prompt, history_file;
  EditLine* edit = nullptr;
  History* history = nullptr;
  HistEvent event{};
};

namespace {

constexpr wchar_t kControlC = 3;

char* Prompt(EditLine* edit) {
  void* data = nullptr;
  el_get(edit, EL_CLIENTDATA, &data);
  return static_cast<std::string*>(data)->data();
}

// One character of UTF-8 from the terminal. libedit's own would read on after a signal.
int GetCharacter(EditLine*, wchar_t* character) {
  std::mbstate_t state{};
  while (true) {
    char byte = 0;
    const ssize_t count = read(STDIN_FILENO, &byte, 1);
    if (count == 0) return 0;
    if (count < 0) {
      if (errno != EINTR) return -1;
      *character = kControlC;
      return 1;
    }
    const size_t used = std::mbrtowc(character, &byte, 1, &state);
    if (used == static_cast<size_t>(-1)) {  // no UTF-8: dropped
      state = {};
    } else if (used != static_cast<size_t>(-2)) {
      return 1;
    }
  }
}

}  // namespace

LineEditor::LineEditor(std::string prompt, std::string history_file) {
  if (isatty(STDIN_FILENO) == 0 || isatty(STDOUT_FILENO) == 0) return;
  impl_ = std::make_unique<Impl>();
  Impl& impl = *impl_;
  impl.prompt = std::move(prompt);
  impl.history_file = std::move(history_file);
  // Characters only: numbers keep the C locale, in which JSON is written.
  std::setlocale(LC_CTYPE, "");
  if (MB_CUR_MAX == 1) std::setlocale(LC_CTYPE, "C.UTF-8");
  impl.edit = el_init("samebits", stdin, stdout, stderr);
  impl.history = history_init();
  history(impl.history, &impl.event, H_SETSIZE, 1000);
  history(impl.history, &impl.event, H_SETUNIQUE, 1);
  if (!impl.history_file.empty()) {
    history(impl.history, &impl.event, H_LOAD, impl.history_file.c_str());
  }
  el_set(impl.edit, EL_CLIENTDATA, &impl.prompt);
  el_set(impl.edit, EL_PROMPT, &Prompt);
  el_set(impl.edit, EL_EDITOR, "emacs");
  el_set(impl.edit, EL_HIST, history, impl.history);
  el_wset(impl.edit, EL_GETCFN, &GetCharacter);
  el_set(impl.edit, EL_BIND, "^C", "em-kill-line", nullptr);
  el_set(impl.edit, EL_BIND, "^R", "em-inc-search-prev", nullptr);
}

LineEditor::~LineEditor() {
  if (impl_ == nullptr) return;
  if (!impl_->history_file.empty()) {
    history(impl_->history, &impl_->event, H_SAVE, impl_->history_file.c_str());
  }
  history_end(impl_->history);
  el_end(impl_->edit);
}

std::optional<std::string> LineEditor::Read() {
  std::string line;
  if (impl_ == nullptr) {
    if (!std::getline(std::cin, line)) return std::nullopt;
    return line;
  }
  int count = 0;
  const char* text = el_gets(impl_->edit, &count);
  if (text == nullptr || count <= 0) return std::nullopt;
  line.assign(text, static_cast<size_t>(count));
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
  if (!line.empty()) history(impl_->history, &impl_->event, H_ENTER, line.c_str());
  return line;
}

std::string StateFile(const std::string& name) {
  const char* state = std::getenv("XDG_STATE_HOME");
  const char* home = std::getenv("HOME");
  std::filesystem::path folder;
  if (state != nullptr && *state != '\0') {
    folder = state;
  } else if (home != nullptr && *home != '\0') {
    folder = std::filesystem::path(home) / ".local" / "state";
  } else {
    return "";
  }
  folder /= "samebits";
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  return error ? "" : (folder / name).string();
}

}  // namespace samebits
