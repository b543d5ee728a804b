// The forms that an operation takes in ports: where it rounds (a chain: harmless, and the main
// source of false alarms), and whether casts truncate (a bug). A form comes from the port's code,
// so it holds for all nodes of a group together.
#pragma once

#include <string>
#include <vector>

#include "samebits/diagnose/replay.h"

namespace samebits {

struct Form {
  std::vector<std::string> chains;  // ids of harmless differences; empty: as Hugging Face
  bool truncate = false;
  bool truncate_weights = false;
  double exp_error = 0;                               // of the chain exp-approximate
  exact::Products tf32 = exact::Products::kTf32Even;  // how products-tf32 rounds

  bool operator==(const Form&) const = default;
  void Apply(Replay& replay) const;
};

// What a chain means and how to get rid of it.
struct ChainText {
  std::string what, advice;
};
ChainText DescribeChain(const std::string& id);

// Nodes whose code a port shares: "linear with bias", "rms_norm", "scores", ...
std::string GroupName(const Replay& replay);

// Forms whose accumulator is not IEEE fp32 with full products: tried when no other form and no
// cause explains a group. An approximate exponential is given the smallest error that fits, by its
// caller.
std::vector<Form> AccumulatorForms(const Replay& replay, DType model,
                                   const std::vector<std::string>& chains);

// The forms of a group, Hugging Face's first. `wider`: the recorded tensor has more bits than the
// model's dtype; `weights_rounded`: the checkpoint's weights have.
std::vector<Form> FormsOf(const Replay& replay, DType model, bool wider, bool weights_rounded);

}  // namespace samebits
