#!/usr/bin/env bash
# The forms that scripts rely on: help with an example everywhere, tokenize, run and trace from every
# kind of prompt, chats from a pipe, hub ids, completion. On the embedded model.
#   commands_test.sh BINARY SOURCE_DIR
set -euo pipefail
samebits=$1
model=$2/models/nano
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HOME=$work XDG_STATE_HOME=$work/state HF_HUB_CACHE=$work/hub
cases=0
failed=0

# same WHAT EXPECTED ACTUAL
same() {
  cases=$((cases + 1))
  if [[ $2 != "$3" ]]; then
    printf '%s:\n  expected: %s\n  found:    %s\n' "$1" "${2:0:300}" "${3:0:300}"
    failed=$((failed + 1))
  fi
}

# holds WHAT TEXT ACTUAL: ACTUAL must contain TEXT.
holds() {
  cases=$((cases + 1))
  if [[ $3 != *"$2"* ]]; then
    printf '%s: no "%s" in: %s\n' "$1" "$2" "${3:0:600}"
    failed=$((failed + 1))
  fi
}

# refused TEXT COMMAND...: exit 2 and TEXT on stderr, nothing on stdout.
refused() {
  local text=$1 code=0
  shift
  "$samebits" "$@" > "$work/out" 2> "$work/err" < /dev/null || code=$?
  same "exit code of $*" 2 "$code"
  holds "$*" "$text" "$(< "$work/err")"
  same "stdout of $*" "" "$(< "$work/out")"
}

# Help, with one example each, and a completion that knows every command.
commands=$("$samebits" --help | sed -n '/^Subcommands:/,$p' | sed -n 's/^  \([a-z]\+\) .*/\1/p')
for wanted in inspect run chat tokenize trace eval check diff bench completion; do
  holds "commands" "$wanted" "$commands"
done
bash_completion=$("$samebits" completion bash)
zsh_completion=$("$samebits" completion zsh)
for command in $commands; do
  help=$("$samebits" "$command" --help)
  holds "help of $command" "Example:" "$help"
  holds "bash completion" " $command) options=" "$bash_completion"
  holds "zsh completion" "      $command)" "$zsh_completion"
done
complete_words() {  # what bash offers for the last of these words
  bash -c 'eval "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _samebits
           echo "${COMPREPLY[*]}"' bash "$bash_completion" "$@"
}
same "completion of a command" "tokenize tolerance" "$(complete_words samebits to)"
same "completion of an option" "--temperature" "$(complete_words samebits run models --tem)"
same "completion of a value" "bfloat16" "$(complete_words samebits run models --dtype bf)"
refused "expected bash or zsh" completion fish

# tokenize: there and back, from a file, standard input, a chat.
text="What is 17 + 25?"
ids=$(printf '%s' "$text" | "$samebits" tokenize "$model")
same "back" "$text" "$("$samebits" tokenize "$model" --ids "$ids")"
printf '%s' "$text" > "$work/text"
same "a file" "$ids" "$("$samebits" tokenize "$model" "$work/text")"
same "a dash" "$ids" "$("$samebits" tokenize "$model" - < "$work/text")"
same "json" "{\"ids\": [${ids//,/, }]}" "$("$samebits" tokenize "$model" "$work/text" --json)"
count=$(tr -cd , <<< "$ids" | wc -c)
same "count" "$((count + 1))" "$("$samebits" tokenize "$model" "$work/text" --count)"
printf 'two\nlines\n' > "$work/other"
other=$("$samebits" tokenize "$model" "$work/other")
same "several files" "$ids"$'\n'"$other" "$("$samebits" tokenize "$model" "$work/text" "$work/other")"
same "several files, json" \
  "{\"files\": [{\"file\": \"$work/text\", \"ids\": [${ids//,/, }]}, {\"file\": \"$work/other\", \"ids\": [${other//,/, }]}]}" \
  "$("$samebits" tokenize "$model" "$work/text" "$work/other" --json --threads 3)"
same "several files, count" "$((count + 1)) $work/text" \
  "$("$samebits" tokenize "$model" "$work/text" "$work/other" --count | head -1)"
refused "expected 1 to 1024" tokenize "$model" "$work/text" --threads -1
refused "not more than one" tokenize "$model" "$work/text" "$work/other" --ids 1
same "no text, no tokens" '{"ids": []}' "$("$samebits" tokenize "$model" --json < /dev/null)"
printf '[{"role": "user", "content": "%s"}]' "$text" > "$work/messages.json"
printf '{"messages": [{"role": "user", "content": "%s"}], "tools": null}' "$text" > "$work/chat.json"
chat=$("$samebits" tokenize "$model" --chat "$work/messages.json" --json)
holds "chat text" '"text": "<|im_start|>user\nWhat is 17 + 25?<|im_end|>\n<|im_start|>assistant\n"' \
  "$chat"
same "chat as an object" "$chat" "$("$samebits" tokenize "$model" --chat "$work/chat.json" --json)"
mkdir "$work/tokenizer"
cp "$model"/tokenizer*.json "$work/tokenizer"
same "only the tokenizer's files" "$chat" \
  "$("$samebits" tokenize "$work/tokenizer" --chat "$work/messages.json" --json)"
rm "$work/tokenizer/tokenizer_config.json"
refused "no chat template" tokenize "$work/tokenizer" --chat "$work/messages.json"
refused "not more than one" tokenize "$model" "$work/text" --ids 1
refused "its ids end at" tokenize "$model" --ids 99999
refused "no_such_file" tokenize "$model" "$work/no_such_file"
for bad in '' '{' '{"messages": 5}' '[5]' '"text"'; do
  printf '%s' "$bad" > "$work/bad.json"
  refused "bad.json" tokenize "$model" --chat "$work/bad.json"
done

# run: the same answer from text, a pipe, a chat and ids.
answer=$("$samebits" run "$model" "$text")
same "the answer" "42" "$(grep -o '[0-9]*' <<< "$answer" | tail -1)"
same "a pipe" "$answer" "$(echo "$text" | "$samebits" run "$model")"
same "a dash for a prompt" "$answer" "$(echo "$text" | "$samebits" run "$model" -)"
same "a chat" "$answer" "$("$samebits" run "$model" --chat "$work/messages.json" < /dev/null)"
chat_ids=$(sed 's/.*\[\(.*\)\].*/\1/; s/ //g' <<< "$chat")
same "ids" "$answer" "$("$samebits" run "$model" --ids "$chat_ids")"
first=${answer:0:1}
same "a stop text" "" "$("$samebits" run "$model" "$text" --stop "$first")"
holds "a stop token" '"stop_reason": "eos_token"' \
  "$("$samebits" run "$model" "$text" --stop '<|im_end|>' --json)"
holds "the log-probs" '"logprob": ' "$("$samebits" run "$model" "$text" --json)"
refused "give a prompt" run "$model"
refused "--system" run "$model" --ids 1 --system x

# The same answer from a model in the cache; a missing one says how it would come there.
snapshot=$work/hub/models--someone--nano/snapshots/0123abcd
mkdir -p "$snapshot" "$work/hub/models--someone--nano/refs"
for file in "$model"/*.json "$model"/*.safetensors; do ln -s "$file" "$snapshot"; done
printf 0123abcd > "$work/hub/models--someone--nano/refs/main"
same "a hub id" "$answer" "$("$samebits" run someone/nano "$text")"
refused "hf download someone/else" run someone/else "$text"

# trace: nodes by pattern, from text.
"$samebits" trace "$model" "$text" -o "$work/all.safetensors" 2> "$work/err"
"$samebits" trace "$model" "$text" -o "$work/some.safetensors" --nodes 'model.layers.0.*_proj' \
  --nodes lm_head 2> "$work/err"
holds "chosen nodes" "8 tensors" "$("$samebits" inspect "$work/some.safetensors")"
code=0
"$samebits" diff "$work/all.safetensors" "$work/some.safetensors" > "$work/out" 2>&1 || code=$?
refused "no tensor" trace "$model" --ids 1,2 -o "$work/none.safetensors" --nodes 'nothing*'

# chat from a pipe: two turns, a reset, what is saved can be read again.
talk=$(printf '%s\n' "$text" "What is 3 + 4?" "/save $work/saved.json" /reset "$text" /exit ignored |
  "$samebits" chat "$model" 2> "$work/err")
same "answers" 3 "$(wc -l <<< "$talk")"
same "the first answer" "$answer" "$(head -1 <<< "$talk")"
same "the same after a reset" "$answer" "$(tail -1 <<< "$talk")"
holds "saved" '"content": "What is 3 + 4?"' "$(< "$work/saved.json")"
holds "saved and read" '"ids": [' "$("$samebits" tokenize "$model" --chat "$work/saved.json" --json)"
# What the cache holds changes nothing: the second answer is that of the whole conversation.
printf '{"messages": [{"role": "user", "content": "%s"}, {"role": "assistant", "content": "%s"},
  {"role": "user", "content": "What is 3 + 4?"}]}' "$text" "$answer" > "$work/two.json"
same "the second answer" "$(sed -n 2p <<< "$talk")" \
  "$("$samebits" run "$model" --chat "$work/two.json" < /dev/null)"
cp "$model"/config.json "$model"/model.safetensors "$work/tokenizer"
refused "no chat template" chat "$work/tokenizer"
refused "no chat template" run "$work/tokenizer" --chat "$work/messages.json"

echo "$cases cases, $failed failed"
[[ $failed -eq 0 ]]
