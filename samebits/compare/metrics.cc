#include "samebits/compare/metrics.h"
