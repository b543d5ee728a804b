// Values that a scalar setting may have had in a port: the usual ones, and what its numbers
// suggest.
#pragma once

#include <vector>

#include "samebits/diagnose/replay.h"

namespace samebits {

std::vector<double> EpsCandidates(double configured);

// theta of cos or sin, from the usual ones and from the angles that the trace shows.
std::vector<double> ThetaCandidates(const Replay& base, const ReplaySource& source);

// The scale of the scores, from the usual mistakes and from the ratio that the trace shows.
std::vector<double> ScaleCandidates(const Replay& base, const ReplaySource& source);

}  // namespace samebits
