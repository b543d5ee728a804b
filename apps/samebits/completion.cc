// samebits completion: what bash and zsh complete, drawn from the options themselves.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>
#include <string>
#include <vector>

#include "apps/samebits/commands.h"
#include "apps/samebits/model_options.h"
#include "samebits/base/error.h"

namespace samebits {
namespace {

// Options with few values.
const std::map<std::string, std::string>& Values() {
  static const std::map<std::string, std::string> values = {
      {"--dtype", "float32 bfloat16 float16"}, {"--cpu", "native avx512bf16 avx512 avx2 portable"}};
  return values;
}

std::vector<const CLI::App*> Subcommands(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

// "-o", "--output" of every option, positional ones left out.
std::vector<std::string> Names(const CLI::Option& option) {
  std::vector<std::string> names;
  for (const std::string& name : option.get_snames()) names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) names.push_back("--" + name);
  return names;
}

std::string Bash(const CLI::App& app) {
  std::string commands, cases;
  for (const CLI::App* command : Subcommands(app)) {
    commands += (commands.empty() ? "" : " ") + command->get_name();
    std::vector<std::string> options;
    for (const CLI::Option* option : command->get_options()) {
      for (const std::string& name : Names(*option)) options.push_back(name);
    }
    cases +=
        fmt::format("    {}) options=\"{}\" ;;\n", command->get_name(), fmt::join(options, " "));
  }
  std::string values;
  for (const auto& [option, words] : Values()) {
    values += fmt::format("    {}) COMPREPLY=($(compgen -W \"{}\" -- \"$word\")); return ;;\n",
                          option, words);
  }
  return fmt::format(
      "# bash completion for samebits; made by `samebits completion bash`\n"
      "_samebits() {{\n"
      "  local word=${{COMP_WORDS[COMP_CWORD]}} options=\"\"\n"
      "  if [[ $COMP_CWORD -eq 1 ]]; then\n"
      "    COMPREPLY=($(compgen -W \"{} --help --version\" -- \"$word\"))\n"
      "    return\n"
      "  fi\n"
      "  case ${{COMP_WORDS[COMP_CWORD-1]}} in\n{}  esac\n"
      "  case ${{COMP_WORDS[1]}} in\n{}  esac\n"
      "  if [[ $word == -* ]]; then\n"
      "    COMPREPLY=($(compgen -W \"$options\" -- \"$word\"))\n"
      "  else\n"
      "    COMPREPLY=()\n"
      "  fi\n"
      "}}\n"
      "complete -o default -F _samebits samebits\n",
      commands, values, cases);
}

// Text in single quotes for zsh's _arguments and _describe.
std::string Quoted(const std::string& text) {
  std::string result;
  for (char c : text) {
    if (c == '\'') {
      result += "'\\''";
    } else if (c == ':' || c == '[' || c == ']') {
      result += std::string("\\") + c;
    } else {
      result += c == '\n' ? ' ' : c;
    }
  }
  return result;
}

std::string Zsh(const CLI::App& app) {
  std::string commands, cases;
  for (const CLI::App* command : Subcommands(app)) {
    commands +=
        fmt::format("    '{}:{}'\n", command->get_name(), Quoted(command->get_description()));
    std::string arguments;
    for (const CLI::Option* option : command->get_options()) {
      for (const std::string& name : Names(*option)) {
        const auto values = Values().find(name);
        std::string argument;
        if (values != Values().end()) {
          argument = fmt::format(":value:({})", values->second);
        } else if (option->get_items_expected_max() > 0) {
          argument = ":value:_files";
        }
        arguments += fmt::format(" \\\n        '{}[{}]{}'", name, Quoted(option->get_description()),
                                 argument);
      }
    }
    cases += fmt::format("      {})\n      _arguments{} \\\n        '*:file:_files'\n      ;;\n",
                         command->get_name(), arguments);
  }
  return fmt::format(
      "#compdef samebits\n"
      "# zsh completion for samebits; made by `samebits completion zsh`\n"
      "_samebits() {{\n"
      "  local -a commands=(\n{}  )\n"
      "  if (( CURRENT == 2 )); then\n"
      "    _describe command commands\n"
      "    return\n"
      "  fi\n"
      "  local command=${{words[2]}}\n"
      "  shift words\n"
      "  (( CURRENT-- ))\n"
      "  case $command in\n{}  esac\n"
      "}}\n"
      "_samebits \"$@\"\n",
      commands, cases);
}

}  // namespace

void RegisterCompletion(CLI::App& app, int&) {
  auto shell = std::make_shared<std::string>();
  CLI::App* command =
      app.add_subcommand("completion", "what bash or zsh needs to complete options");
  command->footer("Example: source <(samebits completion bash)");
  command->add_option("SHELL", *shell, "bash or zsh")->required();
  command->callback([shell, &app] {
    if (*shell != "bash" && *shell != "zsh") {
      Fail(ErrorCode::kUsage, "completion {}: expected bash or zsh", *shell);
    }
    fmt::print("{}", *shell == "bash" ? Bash(app) : Zsh(app));
    FlushOutput();
  });
}

}  // namespace samebits
