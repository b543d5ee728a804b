// What `samebits bench` measures, and how it is shown.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "samebits/engine/runtime.h"

namespace samebits {

struct Spread {
  double median = 0, min = 0, max = 0;
};
Spread SpreadOf(std::vector<double> values);

// Multiplications and additions of linear layers and attention, and the bytes that have to be read
// at least: the weights once for each pass (of the embedding one row; tied weights are read as the
// head's), and the keys and values that are seen.
struct Work {
  double flops = 0, bytes = 0;
};

// One thing that is measured: a prompt that is read, or tokens that are decoded behind one.
struct BenchRun {
  std::string kind;    // "prefill" or "decode"
  int64_t tokens = 0;  // of one sequence
  int64_t depth = 0;   // tokens that are there before
  int64_t batch = 1;   // sequences
  Work work;
  bool bound_by_memory = false;
  std::vector<double> seconds;  // of the rounds
  std::vector<double> shares;   // of the time that the limit allows; empty: it is not known
  std::vector<std::pair<std::string, double>> operations;  // their shares of the time
  Traffic traffic;                                         // of rank 0 in one round
  Traffic layer_traffic;                                   // of one of its layers

  Spread Speed() const;  // tokens a second, of all sequences together
};

struct BenchResult {
  std::string model, cpu;
  RuntimeOptions how;
  int rounds = 0;
  double exchange_delay_ms = 0;
  Spread read_bytes_per_s, flops_per_s;  // flops: of the model's dtype, 0: not known
  double fma_flops_per_s = 0;            // fused multiply-adds in fp32
  std::vector<BenchRun> runs;
};

std::string BenchText(const BenchResult& result);
std::string BenchJson(const BenchResult& result);
// A roofline: arithmetic a byte against arithmetic a second, with the limits and the runs.
std::string BenchPlot(const BenchResult& result);

}  // namespace samebits
