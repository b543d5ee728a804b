#include "apps/samebits/rank_watch.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <sstream>
#include <string_view>
#include <thread>
#include <vector>

#include "samebits/base/error.h"

namespace samebits {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr auto kSign = milliseconds(500);      // between signs of life
constexpr auto kSilence = milliseconds(6000);  // without one a rank counts as stalled
constexpr auto kOthers = milliseconds(300);    // for the errors of other ranks
constexpr auto kConnect = milliseconds(8000);

// One byte a kind; an error is followed by four bytes of length and its text.
constexpr char kAlive = 'h', kError = 'e', kDone = 'd', kEnd = 'x', kHello = 'r';

std::atomic<bool> told_to_end{false};  // mpirun asks us to end: another rank has died

std::string HostName() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

void SendAll(int socket, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return;  // the watch sees a lost connection where it reads
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
}

std::string Framed(char kind, const std::string& text) {
  const auto size = static_cast<uint32_t>(text.size());
  std::string frame(1, kind);
  frame.append(reinterpret_cast<const char*>(&size), sizeof(size));
  return frame + text;
}

struct Peer {
  int rank = 0;
  int socket = -1;
  std::string host;
  std::string input;
  Clock::time_point heard = Clock::now();
  bool done = false;
  std::string error;
};

[[noreturn]] void Exit() { _exit(2); }

}  // namespace

struct RankWatch::Impl {
  int rank = 0, size = 1, errors = STDERR_FILENO, listening = -1;
  std::string address;
  std::vector<Peer> peers;  // rank 0: all others; another: rank 0
  std::mutex mutex;         // of own_error
  std::string own_error;
  std::atomic<bool> failed{false}, own_done{false}, stop{false};
  std::thread thread;

  void Print(const std::string& text) const {
    const std::string line = "samebits: " + text + "\n";
    [[maybe_unused]] const ssize_t written = write(errors, line.data(), line.size());
  }
  std::string Name(const Peer& peer) const {
    return fmt::format("rank {} of {} ({})", peer.rank, size, peer.host);
  }
  void Watch();
  void Read(Peer& peer);
  void Take(Peer& peer);
  void Judge();
  [[noreturn]] void Lost(const Peer& peer, const std::string& what);
  [[noreturn]] void EndAll(const std::string& message);
};

void RankWatch::Impl::EndAll(const std::string& message) {
  if (!message.empty()) Print(message);
  for (const Peer& peer : peers) SendAll(peer.socket, std::string(1, kEnd));
  Exit();
}

void RankWatch::Impl::Lost(const Peer& peer, const std::string& what) {
  // Of the ranks that lost rank 0 the first one speaks.
  EndAll(rank <= 1 ? fmt::format("{} {}", Name(peer), what) : "");
}

void RankWatch::Impl::Take(Peer& peer) {
  while (!peer.input.empty()) {
    const char kind = peer.input[0];
    if (kind == kError) {
      uint32_t length = 0;
      if (peer.input.size() < 1 + sizeof(length)) return;
      std::memcpy(&length, peer.input.data() + 1, sizeof(length));
      if (peer.input.size() < 1 + sizeof(length) + length) return;
      peer.error = peer.input.substr(1 + sizeof(length), length);
      peer.input.erase(0, 1 + sizeof(length) + length);
      continue;
    }
    if (kind == kDone) peer.done = true;
    if (kind == kEnd) Exit();  // rank 0 has said why
    peer.input.erase(0, 1);
  }
}

void RankWatch::Impl::Read(Peer& peer) {
  std::array<char, 4096> buffer;
  const ssize_t count = recv(peer.socket, buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count <= 0) {
    close(peer.socket);
    peer.socket = -1;
    if (!peer.done && peer.error.empty()) Lost(peer, "died: its connection is closed");
    return;
  }
  peer.heard = Clock::now();
  peer.input.append(buffer.data(), static_cast<size_t>(count));
  Take(peer);
}

// Rank 0: whether anyone has failed, and what to say.
void RankWatch::Impl::Judge() {
  std::map<std::string, int> said;
  const std::string* first = nullptr;
  std::string name;
  std::string own;
  {
    const std::lock_guard lock(mutex);
    own = own_error;
  }
  if (!own.empty()) {
    first = &own;
    name = fmt::format("rank 0 of {} ({})", size, HostName());
    ++said[own];
  }
  for (const Peer& peer : peers) {
    if (peer.error.empty()) continue;
    if (first == nullptr) {
      first = &peer.error;
      name = Name(peer);
    }
    ++said[peer.error];
  }
  if (first == nullptr) return;
  EndAll(said[*first] == size ? *first : fmt::format("{}: {}", name, *first));
}

void RankWatch::Impl::Watch() {
  Clock::time_point last_sign;
  std::optional<Clock::time_point> failure;
  while (!stop) {
    const Clock::time_point now = Clock::now();
    if (now - last_sign >= kSign) {
      last_sign = now;
      for (const Peer& peer : peers) SendAll(peer.socket, std::string(1, kAlive));
    }
    std::vector<pollfd> waiting;
    for (const Peer& peer : peers) {
      if (peer.socket >= 0) waiting.push_back({peer.socket, POLLIN, 0});
    }
    poll(waiting.data(), waiting.size(), 100);
    bool anyone_failed = failed;
    for (Peer& peer : peers) {
      if (peer.socket >= 0) Read(peer);
      anyone_failed = anyone_failed || !peer.error.empty();
      if (!peer.done && peer.error.empty() && Clock::now() - peer.heard > kSilence) {
        Lost(peer, fmt::format("has stalled: no sign of life for {} s", kSilence.count() / 1000));
      }
    }
    // When mpirun tells us to end, the reason is on its way: a closed connection.
    if ((anyone_failed || told_to_end) && !failure) failure = Clock::now();
    if (!failure) continue;
    const auto since = Clock::now() - *failure;
    if (rank == 0 && since >= kOthers) Judge();
    if (rank != 0 && since >= kSilence) Exit();
    if (told_to_end && since >= 2 * kOthers) Exit();
  }
}

RankWatch::RankWatch(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {
  struct sigaction action {};
  action.sa_handler = [](int) { told_to_end.store(true); };
  sigaction(SIGTERM, &action, nullptr);
}

RankWatch::~RankWatch() {
  impl_->stop = true;
  if (impl_->thread.joinable()) impl_->thread.join();
  for (const Peer& peer : impl_->peers) {
    if (peer.socket >= 0) close(peer.socket);
  }
  if (impl_->listening >= 0) close(impl_->listening);
}

std::string RankWatch::address() const { return impl_->address; }

std::unique_ptr<RankWatch> RankWatch::Root(int size, int errors) {
  auto impl = std::make_unique<Impl>();
  impl->size = size;
  impl->errors = errors;
  impl->listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in own{};
  own.sin_family = AF_INET;
  own.sin_addr.s_addr = htonl(INADDR_ANY);
  socklen_t length = sizeof(own);
  if (impl->listening < 0 ||
      bind(impl->listening, reinterpret_cast<const sockaddr*>(&own), length) != 0 ||
      listen(impl->listening, size) != 0 ||
      getsockname(impl->listening, reinterpret_cast<sockaddr*>(&own), &length) != 0) {
    ::samebits::Fail(ErrorCode::kIo, "ranks: no socket: {}", std::strerror(errno));
  }
  impl->address = HostName();
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) == 0) {
    for (const ifaddrs* at = all; at != nullptr; at = at->ifa_next) {
      if (at->ifa_addr == nullptr || at->ifa_addr->sa_family != AF_INET) continue;
      std::array<char, INET_ADDRSTRLEN> text{};
      inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(at->ifa_addr)->sin_addr, text.data(),
                text.size());
      impl->address += fmt::format(" {}", text.data());
    }
    freeifaddrs(all);
  }
  impl->address += fmt::format(" {}", ntohs(own.sin_port));
  return std::unique_ptr<RankWatch>(new RankWatch(std::move(impl)));
}

void RankWatch::Begin() {
  Impl& impl = *impl_;
  const Clock::time_point until = Clock::now() + kConnect;
  while (static_cast<int>(impl.peers.size()) + 1 < impl.size) {
    pollfd waiting{impl.listening, POLLIN, 0};
    if (Clock::now() > until) {
      ::samebits::Fail(ErrorCode::kIo, "ranks: {} of {} have connected within {} s",
                       impl.peers.size() + 1, impl.size, kConnect.count() / 1000);
    }
    if (poll(&waiting, 1, 100) <= 0) continue;
    const int socket = accept4(impl.listening, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0) continue;
    // kHello, rank, length of the host's name, the name.
    const timeval limit{2, 0};
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    std::array<char, 7> head{};
    uint32_t rank = 0;
    uint16_t name_size = 0;
    std::string name;
    bool good =
        recv(socket, head.data(), head.size(), MSG_WAITALL) == static_cast<ssize_t>(head.size()) &&
        head[0] == kHello;
    if (good) {
      std::memcpy(&rank, head.data() + 1, sizeof(rank));
      std::memcpy(&name_size, head.data() + 5, sizeof(name_size));
      name.resize(name_size);
      good =
          rank > 0 && static_cast<int>(rank) < impl.size &&
          recv(socket, name.data(), name.size(), MSG_WAITALL) == static_cast<ssize_t>(name.size());
    }
    if (!good) {  // somebody else
      close(socket);
      continue;
    }
    Peer peer;
    peer.rank = static_cast<int>(rank);
    peer.socket = socket;
    peer.host = name;
    impl.peers.push_back(std::move(peer));
  }
  for (Peer& peer : impl.peers) peer.heard = Clock::now();
  impl.thread = std::thread([&impl] { impl.Watch(); });
}

std::unique_ptr<RankWatch> RankWatch::Other(int rank, int size, const std::string& root,
                                            int errors) {
  std::istringstream words(root);
  std::vector<std::string> parts;
  for (std::string word; words >> word;) parts.push_back(word);
  SAMEBITS_CHECK(parts.size() >= 2, "a host and a port");
  const auto port = static_cast<uint16_t>(std::stoi(parts.back()));
  int connected = -1;
  for (size_t i = 1; i + 1 < parts.size() && connected < 0; ++i) {
    // A loopback address is rank 0's only on its own machine.
    if (parts[i].starts_with("127.") && parts[0] != HostName()) continue;
    const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const timeval limit{2, 0};
    setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));  // also of connect
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    inet_pton(AF_INET, parts[i].c_str(), &to.sin_addr);
    if (connect(socket, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0) {
      connected = socket;
    } else {
      close(socket);
    }
  }
  if (connected < 0) {
    ::samebits::Fail(ErrorCode::kIo, "ranks: rank {} does not reach rank 0 ({})", rank, root);
  }
  const std::string host = HostName();
  const auto number = static_cast<uint32_t>(rank);
  const auto name_size = static_cast<uint16_t>(host.size());
  std::string hello(1, kHello);
  hello.append(reinterpret_cast<const char*>(&number), sizeof(number));
  hello.append(reinterpret_cast<const char*>(&name_size), sizeof(name_size));
  SendAll(connected, hello + host);
  auto impl = std::make_unique<Impl>();
  impl->rank = rank;
  impl->size = size;
  impl->errors = errors;
  Peer peer;
  peer.socket = connected;
  peer.host = parts[0];
  impl->peers.push_back(std::move(peer));
  std::unique_ptr<RankWatch> watch(new RankWatch(std::move(impl)));
  Impl& own = *watch->impl_;
  own.thread = std::thread([&own] { own.Watch(); });
  return watch;
}

void RankWatch::Fail(const std::string& message) {
  Impl& impl = *impl_;
  if (impl.rank == 0) {
    const std::lock_guard lock(impl.mutex);
    impl.own_error = message;
  } else {
    SendAll(impl.peers[0].socket, Framed(kError, message));
  }
  impl.failed = true;
  while (true) std::this_thread::sleep_for(milliseconds(100));  // the watch ends the process
}

void RankWatch::Done() {
  for (const Peer& peer : impl_->peers) SendAll(peer.socket, std::string(1, kDone));
}

}  // namespace samebits
