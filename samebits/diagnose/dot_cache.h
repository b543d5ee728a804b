// Exact products of recorded inputs with weights, kept while the same node is judged under several
// chains and hypotheses: what follows the sum differs between them, the sum does not.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

namespace samebits {

struct DotSums {
  std::vector<double> y, magnitude;
};

class DotCache {
 public:
  static constexpr size_t kBytes = size_t{256} << 20;

  // The sums under `key`, computed when they are not there; the least recently used are dropped.
  std::shared_ptr<const DotSums> Get(const std::string& key,
                                     const std::function<void(DotSums&)>& compute) {
    for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
      if (entry->key != key) continue;
      entries_.splice(entries_.begin(), entries_, entry);
      return entries_.front().sums;
    }
    auto sums = std::make_shared<DotSums>();
    compute(*sums);
    bytes_ += Size(*sums);
    entries_.push_front({key, sums});
    while (bytes_ > kBytes && entries_.size() > 1) {
      bytes_ -= Size(*entries_.back().sums);
      entries_.pop_back();
    }
    return sums;
  }

 private:
  struct Entry {
    std::string key;
    std::shared_ptr<const DotSums> sums;
  };
  static size_t Size(const DotSums& sums) {
    return (sums.y.size() + sums.magnitude.size()) * sizeof(double);
  }

  std::list<Entry> entries_;  // the most recently used first
  size_t bytes_ = 0;
};

}  // namespace samebits
