// Where a model lies: a folder, or a hub id (Qwen/Qwen2.5-0.5B-Instruct) in the local Hugging Face
// cache. Left out: downloading.
#pragma once

#include <string>

namespace samebits {

// The folder itself, or the snapshot of the id: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME/hub,
// XDG_CACHE_HOME/huggingface/hub or ~/.cache/huggingface/hub, the first that is set; in it
// models--ORG--NAME/snapshots/COMMIT with the commit of refs/main, else the only snapshot there is.
// Throws Error(kIo) that names what was looked for and the command that would download it.
std::string ResolveModel(const std::string& model);

}  // namespace samebits
