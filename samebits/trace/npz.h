// Reads numpy's .npz: a zip archive of .npy arrays
// (https://numpy.org/neps/nep-0001-npy-format.html, versions 1 to 3). Arrays of integers and
// strings that are named like keys of a trace's metadata become metadata; arrays of f2, f4 and
// bfloat16 (which numpy writes as V2) are tensors; f8 is read when each value is a float32. Every
// size is checked against what the archive and the header state before memory is taken. Left out:
// writing, object arrays (they are code), big-endian numbers.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "samebits/trace/tensor_file.h"

namespace samebits {

bool LooksLikeZip(std::span<const std::byte> first_bytes);

// Throws Error(kIo, kBadInput, kUnsupported).
TensorFile OpenNpz(const std::string& path);
// `bytes` must outlive the call alone: what is read is copied.
TensorFile ParseNpz(std::span<const std::byte> bytes, const std::string& place);

}  // namespace samebits
