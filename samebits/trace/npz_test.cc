// .npz archives, written here with libzip, whole and damaged.
#include "samebits/trace/npz.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zip.h>

#include <cstring>

#include "samebits/base/errors_testing.h"

namespace samebits {
namespace {

using testing::HasSubstr;

// An array as numpy writes it.
std::string Npy(const std::string& header, const std::string& data, int version = 1) {
  std::string text = header + "\n";
  std::string bytes = "\x93NUMPY";
  bytes += static_cast<char>(version);
  bytes += '\0';
  const auto length = static_cast<uint32_t>(text.size());
  for (int i = 0; i < (version == 1 ? 2 : 4); ++i) bytes += static_cast<char>(length >> 8 * i);
  return bytes + text + data;
}

std::string Descr(const std::string& dtype, const std::string& shape,
                  const std::string& fortran = "False") {
  return "{'descr': '" + dtype + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }";
}

template <typename T>
std::string Bytes(std::initializer_list<T> values) {
  std::string bytes;
  for (const T value : values) {
    char raw[sizeof(T)];
    std::memcpy(raw, &value, sizeof(T));
    bytes.append(raw, sizeof(T));
  }
  return bytes;
}

class NpzTest : public testing::Test {
 protected:
  std::string Write(const std::vector<std::pair<std::string, std::string>>& arrays,
                    bool deflate = false) {
    std::string path = folder_ / "t.npz";
    int code = 0;
    zip_t* archive = zip_open(path.c_str(), ZIP_CREATE | ZIP_TRUNCATE, &code);
    for (const auto& [name, bytes] : arrays) {
      zip_source_t* source = zip_source_buffer(archive, bytes.data(), bytes.size(), 0);
      const zip_int64_t index = zip_file_add(archive, name.c_str(), source, 0);
      zip_set_file_compression(archive, static_cast<zip_uint64_t>(index),
                               deflate ? ZIP_CM_DEFLATE : ZIP_CM_STORE, 0);
    }
    EXPECT_EQ(zip_close(archive), 0);
    return path;
  }
  std::string Message(const std::string& npy) {
    const std::vector<std::pair<std::string, std::string>> arrays = {{"x.npy", npy}};
    const std::string path = Write(arrays);
    try {
      OpenNpz(path);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  TempFolder folder_;
};

TEST_F(NpzTest, TensorsAndMetadata) {
  const std::vector<std::pair<std::string, std::string>> arrays = {
      {"lm_head.npy", Npy(Descr("<f4", "(2, 3)"), Bytes<float>({1, 2, 3, 4, 5, 6}))},
      {"columns.npy", Npy(Descr("<f4", "(2, 3)", "True"), Bytes<float>({1, 4, 2, 5, 3, 6}), 2)},
      {"brain.npy", Npy(Descr("|V2", "(2,)"), Bytes<uint16_t>({0x3f80, 0x4000}), 3)},
      {"wide.npy", Npy(Descr("<f8", "(1,)"), Bytes<double>({1.5}))},
      {"input_ids.npy", Npy(Descr("<i8", "(2,)"), Bytes<int64_t>({7, 9}))},
      {"positions.npy", Npy(Descr("<i4", "(1, 2)"), Bytes<int32_t>({0, -1}))},
      {"dtype.npy", Npy(Descr("<U2", "()"), Bytes<uint32_t>({'b', 0xe9}))}};
  for (const bool deflate : {false, true}) {
    const TensorFile file = OpenNpz(Write(arrays, deflate));
    ASSERT_EQ(file.tensors.size(), 4);
    const TensorView& rows = *file.Find("columns");
    EXPECT_EQ(rows.shape, (Shape{2, 3}));
    EXPECT_EQ(std::memcmp(rows.data, file.Find("lm_head")->data, 24), 0);
    EXPECT_EQ(file.Find("brain")->dtype, DType::kBF16);
    EXPECT_EQ(file.Find("wide")->as<float>()[0], 1.5F);
    EXPECT_EQ(file.metadata.at("input_ids"), "[7,9]");
    EXPECT_EQ(file.metadata.at("positions"), "[[0,-1]]");
    EXPECT_EQ(file.metadata.at("dtype"), "b\xc3\xa9");
  }
}

TEST_F(NpzTest, DamagedArraysAreErrors) {
  const std::string four = Bytes<float>({1});
  EXPECT_THAT(Message(Npy(Descr("<f4", "(2,)"), four)), HasSubstr("needs 8 bytes"));
  EXPECT_THAT(Message(Npy(Descr("<f4", "(1,)"), four + four)), HasSubstr("needs 4 bytes"));
  EXPECT_THAT(Message(Npy(Descr("<f4", "(999999999999999, 999)"), four)), HasSubstr("shape"));
  EXPECT_THAT(Message(Npy(Descr(">f4", "(1,)"), four)), HasSubstr("big-endian"));
  EXPECT_THAT(Message(Npy(Descr("|O", "(1,)"), four)), HasSubstr("dtype"));
  EXPECT_THAT(Message(Npy(Descr("<c8", "(1,)"), four + four)), HasSubstr("dtype"));
  EXPECT_THAT(Message(Npy("{'descr': '<f4'}", four)), HasSubstr("expected the keys"));
  EXPECT_THAT(Message(Npy(Descr("<f4", "(1,)"), four, 9)), HasSubstr("npy version 9"));
  EXPECT_THAT(Message("no array at all"), HasSubstr("no .npy array"));
  EXPECT_THAT(Message(Npy(Descr("<f8", "(1,)"), Bytes<double>({0.1}))), HasSubstr("no float32"));
}

TEST_F(NpzTest, DamagedArchivesAreErrors) {
  const std::string path = Write({{"x.npy", Npy(Descr("<f4", "(1,)"), Bytes<float>({1}))}}, true);
  const std::string whole = ReadBytes(path);
  int errors = 0;
  for (size_t length = 1; length < whole.size(); ++length) {  // cut anywhere
    const auto* bytes = reinterpret_cast<const std::byte*>(whole.data());
    try {
      ParseNpz({bytes, length}, "cut");
    } catch (const Error&) {
      ++errors;
    }
  }
  EXPECT_EQ(errors, static_cast<int>(whole.size()) - 1);
}

// A megabyte of zeros in a kilobyte is data; more than deflate can hold is a lie.
TEST_F(NpzTest, StatedSizesAreChecked) {
  const std::string zeros(1 << 20, '\0');
  const std::string path = Write({{"x.npy", Npy(Descr("<f4", "(262144,)"), zeros)}}, true);
  EXPECT_EQ(OpenNpz(path).tensors[0].view.bytes(), 1 << 20);
  std::string bytes = ReadBytes(path);
  // The uncompressed size stands in the local header (byte 22) and in the central directory.
  const size_t central = bytes.find("PK\x01\x02");
  for (const size_t at : {size_t{22}, central + 24}) bytes.replace(at, 4, "\xff\xff\xff\x3f");
  EXPECT_THROW(OpenNpz(folder_.Write("bomb.npz", bytes)), Error);
}

}  // namespace
}  // namespace samebits
