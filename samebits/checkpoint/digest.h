// Tells checkpoints apart, in traces: a trace is replayed with the weights that it was made with.
#pragma once

#include <string>

#include "samebits/checkpoint/checkpoint.h"

namespace samebits {

// "sha256:" and 64 hexadecimal digits, of config.json's bytes and then, for each tensor of all
// shards by name: name, dtype and shape as text ("model.norm.weight", "BF16", "[896]", each with a
// NUL behind it), and its first and its last 4096 bytes (all of it up to 8192). So 15 GB take a few
// milliseconds, and a weight that was edited in its middle alone is not seen. Throws Error(kIo).
std::string CheckpointDigest(const Checkpoint& checkpoint);

// The same form for any bytes.
std::string Sha256(std::string_view bytes);

}  // namespace samebits
