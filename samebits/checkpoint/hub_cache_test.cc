// Folders and ids: the variables in their order, references, and what is no id.
#include "samebits/checkpoint/hub_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "samebits/base/errors_testing.h"

namespace samebits {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class HubCache : public testing::Test {
 protected:
  HubCache() {
    for (const char* name :
         {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"}) {
      unsetenv(name);
    }
    Set("HOME", folder_ / "home");
  }
  static void Set(const char* name, const std::string& value) { setenv(name, value.c_str(), 1); }

  // A cached model under `cache`; gives the snapshot's path.
  std::string Plant(const std::string& cache, const std::string& name, const std::string& commit) {
    const std::string repository = folder_ / (cache + "/models--" + name);
    fs::create_directories(repository + "/snapshots/" + commit);
    fs::create_directories(repository + "/refs");
    std::ofstream(repository + "/refs/main") << commit;
    return repository + "/snapshots/" + commit;
  }

  TempFolder folder_;
};

TEST_F(HubCache, AFolderIsItself) { EXPECT_EQ(ResolveModel(folder_.path()), folder_.path()); }

TEST_F(HubCache, TheVariablesInTheirOrder) {
  const std::string home = Plant("home/.cache/huggingface/hub", "org--name", "c1");
  EXPECT_EQ(ResolveModel("org/name"), home);
  const std::string xdg = Plant("xdg/huggingface/hub", "org--name", "c2");
  Set("XDG_CACHE_HOME", folder_ / "xdg");
  EXPECT_EQ(ResolveModel("org/name"), xdg);
  const std::string hf_home = Plant("hf/hub", "org--name", "c3");
  Set("HF_HOME", folder_ / "hf");
  EXPECT_EQ(ResolveModel("org/name"), hf_home);
  const std::string old = Plant("old", "org--name", "c4");
  Set("HUGGINGFACE_HUB_CACHE", folder_ / "old");
  EXPECT_EQ(ResolveModel("org/name"), old);
  const std::string cache = Plant("cache", "org--name", "c5");
  Set("HF_HUB_CACHE", folder_ / "cache");
  EXPECT_EQ(ResolveModel("org/name"), cache);
}

TEST_F(HubCache, TheReferenceChooses) {
  Set("HF_HUB_CACHE", folder_ / "hub");
  Plant("hub", "gpt2", "older");
  const std::string main = Plant("hub", "gpt2", "newer");
  EXPECT_EQ(ResolveModel("gpt2"), main);
  fs::remove(folder_ / "hub/models--gpt2/refs/main");
  EXPECT_THAT(ErrorOf(ErrorCode::kIo, [] { ResolveModel("gpt2"); }), HasSubstr("no snapshot"));
  fs::remove(folder_ / "hub/models--gpt2/snapshots/older");
  EXPECT_EQ(ResolveModel("gpt2"), main);
}

TEST_F(HubCache, AHostileReferenceLeadsNowhere) {
  Set("HF_HUB_CACHE", folder_ / "hub");
  Plant("hub", "a--b", "commit");
  for (const char* reference : {"../../..", "..", ".", "", "/", "missing", "a/b"}) {
    folder_.Write("hub/models--a--b/refs/main", reference);
    EXPECT_THAT(ErrorOf(ErrorCode::kIo, [] { ResolveModel("a/b"); }), HasSubstr("hf download a/b"))
        << reference;
  }
}

TEST_F(HubCache, WhatIsMissingSaysHowToGetIt) {
  EXPECT_THAT(ErrorOf(ErrorCode::kIo, [] { ResolveModel("Qwen/Qwen2.5-0.5B-Instruct"); }),
              HasSubstr("hf download Qwen/Qwen2.5-0.5B-Instruct"));
  EXPECT_THAT(ErrorOf(ErrorCode::kIo, [&] { ResolveModel(folder_.Write("file", "")); }),
              HasSubstr("not a folder"));
  for (const char* no_id :
       {"/no/such", "../x", "a/b/c", "a b", "", "a/", "/a", "-x", "a/..", "ü"}) {
    const std::string message = ErrorOf(ErrorCode::kIo, [&] { ResolveModel(no_id); });
    EXPECT_THAT(message, HasSubstr("not a folder")) << no_id;
    EXPECT_THAT(message, testing::Not(HasSubstr("hf download"))) << no_id;
  }
}

}  // namespace
}  // namespace samebits
