// A check's JSON as one HTML file that needs nothing else: the page draws itself from the object.
#pragma once

#include <string>

#include "samebits/base/json.h"

namespace samebits {

// `report`: the object of `samebits check --json`. Nothing in it can leave its place in the page.
std::string CheckToHtml(const Json& report);

// Throws Error(kIo) when a file can not be written there; leaves what is there as it is.
void CheckWritable(const std::string& path);

// Throws Error(kIo). The file appears under its name when it is complete.
void WriteFile(const std::string& path, const std::string& text);

}  // namespace samebits
