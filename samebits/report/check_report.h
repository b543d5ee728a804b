// A CheckResult as JSON (docs/check-json.md) and as text for a terminal.
#pragma once

#include <string>

#include "samebits/base/json.h"
#include "samebits/diagnose/check.h"

namespace samebits {

Json CheckToJson(const CheckResult& result);

// Under a screen: the verdict, what is wrong first, every finding once, what is only rounding, and
// what the trace can not show.
std::string CheckToText(const CheckResult& result);

// "self_attn.q_proj and self_attn.o_proj in all 4 layers"
std::string SummarizeNodes(const std::vector<std::string>& nodes, int64_t layers);

}  // namespace samebits
