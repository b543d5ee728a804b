// How many threads a program should start: what the affinity mask, the cores and the cgroup's quota
// leave.
#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "samebits/base/error.h"
#include "samebits/kernels/thread_pool.h"

namespace samebits {
namespace {

// The quota in CPUs of one folder of cgroup v2; nothing: none.
std::optional<double> QuotaV2(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || period <= 0) return std::nullopt;
  return std::strtod(quota.c_str(), nullptr) / period;
}

std::optional<double> QuotaV1(const std::string& folder) {
  double quota = 0, period = 0;
  std::ifstream(folder + "/cpu.cfs_quota_us") >> quota;  // -1: no limit
  std::ifstream(folder + "/cpu.cfs_period_us") >> period;
  if (quota <= 0 || period <= 0) return std::nullopt;
  return quota / period;
}

// The smallest quota of a group and the groups around it. `group`: as in /proc/self/cgroup; inside
// a container it may name a place that is not mounted there, then the mount itself counts.
template <typename Quota>
std::optional<double> Smallest(const std::string& mount, std::string group, Quota&& quota) {
  std::optional<double> smallest = quota(mount);
  if (group.find("..") != std::string::npos) return smallest;
  while (group.size() > 1) {
    const std::optional<double> here = quota(mount + group);
    if (here && (!smallest || *here < *smallest)) smallest = here;
    group.erase(group.rfind('/'));
  }
  return smallest;
}

bool HasController(std::string_view controllers, std::string_view name) {
  while (!controllers.empty()) {
    const size_t end = std::min(controllers.find(','), controllers.size());
    if (controllers.substr(0, end) == name) return true;
    controllers.remove_prefix(std::min(end + 1, controllers.size()));
  }
  return false;
}

}  // namespace

std::optional<int> CgroupCpus(const std::string& root) {
  std::ifstream file(root + "/proc/self/cgroup");
  std::optional<double> smallest;
  std::string line, v2 = "/", v1 = "/";
  while (std::getline(file, line)) {  // "0::/path" or "4:cpu,cpuacct:/path"
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (controllers.empty()) v2 = line.substr(second + 1);
    if (HasController(controllers, "cpu")) v1 = line.substr(second + 1);
  }
  const std::string mount = root + "/sys/fs/cgroup";
  for (const std::optional<double>& quota :
       {Smallest(mount, v2, QuotaV2), Smallest(mount + "/unified", v2, QuotaV2),
        Smallest(mount + "/cpu", v1, QuotaV1), Smallest(mount + "/cpu,cpuacct", v1, QuotaV1)}) {
    if (quota && (!smallest || *quota < *smallest)) smallest = quota;
  }
  if (!smallest) return std::nullopt;
  // Down: with 1.5 CPUs a second thread would be stopped for half of each period.
  return static_cast<int>(std::clamp(*smallest, 1.0, 1e6));
}

int DefaultThreads(const std::string& root) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return 1;
  std::set<std::pair<int, int>> cores;  // (package, core)
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    const std::string topology =
        fmt::format("{}/sys/devices/system/cpu/cpu{}/topology/", root, cpu);
    int package = 0, core = cpu;  // what can not be read counts as a core
    if (!(std::ifstream(topology + "physical_package_id") >> package)) package = 0;
    if (!(std::ifstream(topology + "core_id") >> core)) core = cpu;
    cores.insert({package, core});
  }
  const int physical = std::max(1, static_cast<int>(cores.size()));
  return std::min(physical, CgroupCpus(root).value_or(physical));
}

}  // namespace samebits
