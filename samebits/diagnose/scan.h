// Values that a scalar setting may have had in a port: the usual ones, and what its numbers
// suggest.
#pragma once

#include <functional>
#include <vector>

#include "samebits/diagnose/judge.h"
#include "samebits/diagnose/replay.h"

namespace samebits {

std::vector<double> EpsCandidates(const Replay& base, const ReplaySource& source);

// theta of cos or sin, from the usual ones and from the angles that the trace shows.
std::vector<double> ThetaCandidates(const Replay& base, const ReplaySource& source);

// Whether somebody may have had this value by mistake. A scale within a thousandth of the right one
// is nobody's: an accumulator with few bits looks like that.
bool PlausibleScale(double value, double configured);

// The scale of the scores, from the usual mistakes and from the ratio that the trace shows.
std::vector<double> ScaleCandidates(const Replay& base, const ReplaySource& source);

// The sliding window that the recorded probs of the last token show; 0: none.
int64_t WindowInTrace(const Replay& base, const ReplaySource& source);

// The value around `start` under which the fewest values are outside (then: differ), on a
// logarithmic grid that is narrowed around its best point, beginning with factors up to `spread`.
// Where a range of values does as well, the roundest decimal number in it.
double RefineScalar(double start, double spread, const std::function<Judgement(double)>& judge);

// All values around `value` that leave no more outside than it does: [low, high] by bisection.
struct ValueRange {
  double low, high;
};
ValueRange FittingRange(double value, const std::function<Judgement(double)>& judge);

}  // namespace samebits
