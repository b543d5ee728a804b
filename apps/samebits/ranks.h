// The ranks that mpirun started, this process among them. Every rank runs the same command; only
// rank 0 reads standard input, prints, and writes files. Without mpirun there is nothing of it.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "samebits/engine/communicator.h"

namespace samebits {

// First in main. Under mpirun with more than one rank: joins them; standard output and error of the
// others lead nowhere from here on. From then on a rank that dies, or gives no sign of life
// for some seconds, ends all of them with one message and exit code 2 (rank_watch.h).
// Throws Error(kUnsupported) in a build without MPI.
void StartRanks();

// Null: this process is alone.
Communicator* ProcessRanks();
bool IsRootRank();

// Ranks on this machine, at least 1.
int LocalRanks();

// From now on each exchange takes so much longer: what a slower network would cost.
void DelayExchanges(std::chrono::duration<double> delay);

// Rank 0's text, on all ranks.
std::string FromRoot(std::string text);

// Facts that must be the same everywhere, each with its name. Throws Error(kUsage) on all ranks:
// which rank has another.
void AgreeOn(const std::vector<std::pair<std::string, std::string>>& facts);

// This rank can not go on: prints its message, ends all ranks, exits with 2. Prints and returns
// when this process is alone. When all ranks have the same message it names none of them.
void FailRank(const std::string& message);

// Last in main: waits for the others.
void EndRanks();

}  // namespace samebits
