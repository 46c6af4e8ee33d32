// SPDX-License-Identifier: MIT
// GGUF files that lie: each is refused in one sentence that names the field, the file's value and
// what is expected, before memory or time is spent on it.

#include <linnet/gguf.hpp>

#include <ctime>

#include "io/models.hpp"
#include "support/allocations.hpp"

namespace test::gguf_hostile_test {

namespace {

constexpr std::uint64_t huge = ~std::uint64_t{0};

std::string text(const std::string& s) { return raw(std::uint64_t{s.size()}) + s; }
std::string number(std::uint32_t x) { return raw(x); }
std::string wide(std::uint64_t x) { return raw(x); }
/// A metadatum: key, number of the type, value.
std::string entry(const std::string& key, std::uint32_t kind, const std::string& value) {
  return text(key) + number(kind) + value;
}
std::string array(std::uint32_t kind, std::uint64_t count, const std::string& values) {
  return number(kind) + wide(count) + values;
}
/// The description of a tensor: dimensions from the fastest, number of the type.
std::string tensor(const std::string& name, const std::vector<std::uint64_t>& shape,
                   std::uint32_t type, std::uint64_t offset) {
  std::string all = text(name) + number(static_cast<std::uint32_t>(shape.size()));
  for (const std::uint64_t n : shape) all += wide(n);
  return all + number(type) + wide(offset);
}

/// A good file, to be changed: two metadata and two tensors.
struct file_parts {
  std::string magic = "GGUF";
  std::uint32_t version = 3;
  std::uint64_t tensors = 2, metadata = 2;
  std::string keys = entry("k", 4, number(7)) + entry("s", 8, text("abc"));
  std::string infos = tensor("a", {3, 2}, 0, 0) + tensor("b", {32}, 8, 32);
  std::size_t alignment = 32;
  std::string data = std::string(32, 'd') + std::string(34, 'e');

  std::string head() const {
    return magic + number(version) + wide(tensors) + wide(metadata) + keys + infos;
  }
  std::string all() const {
    std::string made = head();
    made.resize((made.size() + alignment - 1) / alignment * alignment);
    return made + data;
  }
};

struct hostile {
  std::string message;
  std::string file;
};

/// A good file with other metadata in the place of "s".
std::string with_key(const std::string& one) {
  file_parts f;
  f.keys = entry("k", 4, number(7)) + one;
  return f.all();
}
std::string with_tensor(const std::string& one) {
  file_parts f;
  f.infos = tensor("a", {3, 2}, 0, 0) + one;
  return f.all();
}
template <class F>
std::string changed(F&& change) {
  file_parts f;
  change(f);
  return f.all();
}
/// All of a good file before `part` of it, then `rest` and nothing more.
std::string cut_to(const std::string& head_with, const std::string& rest) {
  file_parts f;
  f.infos.clear();
  f.tensors = 0;
  f.keys = entry("k", 8, text("as long as an entry")) + head_with;
  return f.head() + rest;
}

std::vector<hostile> all_hostile() {
  using parts = file_parts;
  const std::string a = tensor("a", {3, 2}, 0, 0);
  return {
      // The header.
      {"file size: expected at least 24 bytes, got 0", ""},
      {"file size: expected at least 24 bytes, got 23", parts().head().substr(0, 23)},
      {"magic: expected GGUF, got ggml", changed([](parts& f) { f.magic = "ggml"; })},
      {"magic: expected GGUF, got ?PNG", changed([](parts& f) { f.magic = "\x89PNG"; })},
      {"version: expected 2 or 3, got 0", changed([](parts& f) { f.version = 0; })},
      {"version: expected 2 or 3, little-endian, got 1, big-endian",
       changed([](parts& f) { f.version = 0x01000000; })},
      {"version: expected 2 or 3, got 1", changed([](parts& f) { f.version = 1; })},
      {"version: expected 2 or 3, got 4", changed([](parts& f) { f.version = 4; })},
      {"version: expected 2 or 3, little-endian, got 3, big-endian",
       changed([](parts& f) { f.version = 0x03000000; })},
      {"number of tensors: expected at most 65536, got 18446744073709551615",
       changed([](parts& f) { f.tensors = huge; })},
      {"number of metadata: expected at most 65536, got 9223372036854775808",
       changed([](parts& f) { f.metadata = std::uint64_t{1} << 63; })},
      {"number of tensors: expected at most 65536, got 65537",
       changed([](parts& f) { f.tensors = 65537; })},
      {"number of tensors: expected at most 8, what fits in the 202 bytes that follow, got 9",
       changed([](parts& f) { f.tensors = 9; })},
      {"number of metadata: expected at most 14, what fits in the 202 bytes that follow, got 15",
       changed([](parts& f) { f.metadata = 15; })},
      {"number of metadata: expected at most 0, what fits in the 0 bytes that follow, got 1",
       "GGUF" + number(3) + wide(0) + wide(1)},
      // Keys.
      {"key 1: length: expected 1 to 65535, got 0", with_key(entry("", 4, number(1)))},
      {"key 1: length: expected 1 to 65535, got 65536",
       with_key(entry(std::string(65536, 'x'), 4, number(1)))},
      {"key 1: length: expected at most 15, what fits in the 15 bytes that follow, got 16",
       cut_to(wide(16), std::string(15, 'x'))},
      {"key 1: length: expected at most 40, what fits in the 40 bytes that follow, got "
       "18446744073709551615",
       cut_to(wide(huge), std::string(40, 'x'))},
      {"key 1: length: expected 8 bytes, got 7, the end of the file",
       cut_to("", std::string(7, 'x'))},
      {"x?y: type: expected 0 to 12, got 13", with_key(entry("x\ny", 13, number(1)))},
      {"x: type: expected 0 to 12, got 4294967295", with_key(entry("x", 0xffffffff, number(1)))},
      {"x: type: expected 4 bytes, got 3, the end of the file",
       cut_to(text("x"), std::string(3, '\0'))},
      {"k: expected each key once, got this one twice", with_key(entry("k", 8, text("again")))},
      {"general.alignment: expected each key once, got this one twice", changed([](parts& f) {
         f.metadata = 3;
         f.keys = entry("general.alignment", 4, number(32)) + entry("k", 4, number(7)) +
                  entry("general.alignment", 4, number(32));
       })},
      // Values.
      {"x: value: expected 8 bytes, got 3, the end of the file",
       cut_to(text("x") + number(10), std::string(3, '\0'))},
      {"x: expected a bool, 0 or 1, got 2", with_key(entry("x", 7, "\2"))},
      {"x: expected a bool, 0 or 1, got 255", with_key(entry("x", 9, array(7, 3, "\1\xff\1")))},
      {"x: length: expected at most 11, what fits in the 11 bytes that follow, got 12",
       cut_to(text("x") + number(8) + wide(12), std::string(11, 'x'))},
      {"x: length: expected at most 11, what fits in the 11 bytes that follow, got "
       "18446744073709551608",
       cut_to(text("x") + number(8) + wide(huge - 7), std::string(11, 'x'))},
      {"x, text 1: length: expected at most 11, what fits in the 11 bytes that follow, got "
       "18446744073709551615",
       cut_to(text("x") + number(9) + array(8, 2, text("fine") + wide(huge)),
              std::string(11, 'x'))},
      {"x, text 2: length: expected 8 bytes, got 7, the end of the file",
       cut_to(text("x") + number(9) + array(8, 3, text("12345") + text("6")), std::string(7, 'x'))},
      {"x: number of elements: expected at most 3, what fits in the 25 bytes that follow, got 4",
       cut_to(text("x") + number(9) + array(10, 4, ""), std::string(25, 'x'))},
      {"x: number of elements: expected at most 3, what fits in the 25 bytes that follow, got "
       "2305843009213693952",
       cut_to(text("x") + number(9) + array(10, std::uint64_t{1} << 61, ""), std::string(25, 'x'))},
      {"x: number of elements: expected at most 3, what fits in the 25 bytes that follow, got "
       "18446744073709551615",
       cut_to(text("x") + number(9) + array(8, huge, ""), std::string(25, 'x'))},
      {"x: number of elements: expected at most 25, what fits in the 25 bytes that follow, got "
       "4294967296",
       cut_to(text("x") + number(9) + array(0, std::uint64_t{1} << 32, ""), std::string(25, 'x'))},
      {"x: type of elements: expected 0 to 12, got 99", with_key(entry("x", 9, array(99, 0, "")))},
      {"x: type of elements: expected no array in an array, got 9, an array",
       with_key(entry("x", 9, array(9, 1, array(4, 1, number(1)))))},
      // Alignment.
      {"general.alignment: expected u32, a power of two from 8 to 1048576, got u32 0",
       with_key(entry("general.alignment", 4, number(0)))},
      {"general.alignment: expected u32, a power of two from 8 to 1048576, got u32 24",
       with_key(entry("general.alignment", 4, number(24)))},
      {"general.alignment: expected u32, a power of two from 8 to 1048576, got u32 4",
       with_key(entry("general.alignment", 4, number(4)))},
      {"general.alignment: expected u32, a power of two from 8 to 1048576, got u32 2147483648",
       with_key(entry("general.alignment", 4, number(1u << 31)))},
      {"general.alignment: expected u32, a power of two from 8 to 1048576, got u64 "
       "9223372036854775808",
       with_key(entry("general.alignment", 10, wide(std::uint64_t{1} << 63)))},
      {"general.alignment: expected u32, a power of two from 8 to 1048576, got string 32",
       with_key(entry("general.alignment", 8, text("32")))},
      {"general.alignment: expected u32, a power of two from 8 to 1048576, got an array of 1 u32",
       with_key(entry("general.alignment", 9, array(4, 1, number(32))))},
      {"a: offset: expected 24 bytes for F32 [2, 3] within the 0 bytes of data, got 0",
       changed([](parts& f) {
         f.keys += entry("general.alignment", 4, number(1u << 20));
         f.metadata = 3;
         f.infos = tensor("a", {3, 2}, 0, 0) + tensor("b", {32}, 8, 1u << 20);
       })},
      // Tensors.
      {"tensor 1: name: length: expected 1 to 65535, got 0", with_tensor(tensor("", {1}, 0, 32))},
      {"tensor 1: name: length: expected at most 80, what fits in the 80 bytes that follow, got "
       "9223372036854775807",
       with_tensor(wide(huge / 2) + std::string(10, 'x'))},
      {"a: expected each name once, got this one twice", with_tensor(tensor("a", {1}, 0, 32))},
      {"b: dimensions: expected at most 4, got 5",
       with_tensor(tensor("b", {1, 1, 1, 1, 1}, 0, 32))},
      {"b: dimensions: expected at most 4, got 4294967295",
       with_tensor(text("b") + number(0xffffffff))},
      {"b: dimension 1: expected at least 1, got 0", with_tensor(tensor("b", {8, 0}, 0, 32))},
      {"b: dimension 1: expected a product of dimensions below 2^60, got 4294967296",
       with_tensor(tensor("b", {std::uint64_t{1} << 32, std::uint64_t{1} << 32}, 0, 32))},
      {"b: dimension 0: expected a product of dimensions below 2^60, got 9223372036854775808",
       with_tensor(tensor("b", {std::uint64_t{1} << 63}, 0, 32))},
      {"b: dimension 0: expected a product of dimensions below 2^60, got 18446744073709551615",
       with_tensor(tensor("b", {huge, huge, huge, huge}, 0, 32))},
      {"b: dimension 3: expected a product of dimensions below 2^60, got 65536",
       with_tensor(tensor("b", {65536, 65536, 65536, 65536}, 0, 32))},
      {"b: type: expected 0 F32, 1 F16, 30 BF16, 2 Q4_0, 3 Q4_1, 6 Q5_0, 7 Q5_1, 8 Q8_0, 10 Q2_K, "
       "11 Q3_K, 12 Q4_K, 13 Q5_K, 14 Q6_K, got 4",
       with_tensor(tensor("b", {1}, 4, 32))},
      {"b: type: expected 0 F32, 1 F16, 30 BF16, 2 Q4_0, 3 Q4_1, 6 Q5_0, 7 Q5_1, 8 Q8_0, 10 Q2_K, "
       "11 Q3_K, 12 Q4_K, 13 Q5_K, 14 Q6_K, got 4294967295",
       with_tensor(tensor("b", {1}, 0xffffffff, 32))},
      {"b: dimension 0: expected a multiple of 32, the block of Q8_0, got 31",
       with_tensor(tensor("b", {31}, 8, 32))},
      {"b: dimension 0: expected a multiple of 256, the block of Q6_K, got 32",
       with_tensor(tensor("b", {32, 256}, 14, 32))},
      {"b: dimension 0: expected a multiple of 32, the block of Q4_0, got 1",
       with_tensor(tensor("b", {}, 2, 32))},
      {"b: offset: expected a multiple of 32, got 33", with_tensor(tensor("b", {32}, 8, 33))},
      {"b: offset: expected a multiple of 64, got 32",
       with_key(entry("general.alignment", 4, number(64)))},
      {"b: offset: expected 34 bytes for Q8_0 [32] within the 66 bytes of data, got 64",
       with_tensor(tensor("b", {32}, 8, 64))},
      {"b: offset: expected 34 bytes for Q8_0 [32] within the 66 bytes of data, got "
       "18446744073709551584",
       with_tensor(tensor("b", {32}, 8, huge - 31))},
      {"b: offset: expected 4611686018427387900 bytes for F32 [1152921504606846975] within the 66 "
       "bytes of data, got 32",
       with_tensor(tensor("b", {(std::uint64_t{1} << 60) - 1}, 0, 32))},
      {"b: offset: expected 34 bytes for Q8_0 [32] within the 65 bytes of data, got 32",
       changed([](parts& f) { f.data.pop_back(); })},
      {"a: offset: expected 24 bytes for F32 [2, 3] within the 0 bytes of data, got 0",
       parts().head()},
      {"b: offset: expected at least 24, the end of the tensor before, got 0, an overlap",
       with_tensor(tensor("b", {32}, 8, 0))},
      {"b: offset: expected at least 36, the end of the tensor before, got 32, an overlap",
       changed([](parts& f) {
         f.infos = tensor("a", {3, 3}, 0, 0) + tensor("b", {32}, 8, 32);
       })},
      {"b: type: expected 4 bytes, got 2, the end of the file", changed([&](parts& f) {
                                                                  f.infos = a + text("b") +
                                                                            number(1) + wide(32);
                                                                  f.data.clear();
                                                                  f.alignment = 1;
                                                                }) + std::string(2, '\0')},
      {"b: offset: expected 8 bytes, got 7, the end of the file",
       changed([&](parts& f) {
         f.infos = a + text("b") + number(1) + wide(32) + number(8);
         f.data.clear();
         f.alignment = 1;
       }) + std::string(7, '\0')},
  };
}

}  // namespace

BOOST_AUTO_TEST_SUITE(gguf_hostile)

BOOST_AUTO_TEST_CASE(refusals) {
  LINNET_REQUIRE_OK(ln::parse_gguf(bytes(file_parts().all()), "f"));
  const std::vector<hostile> files = all_hostile();
  BOOST_TEST(files.size() >= 40u);
  for (const hostile& one : files) {
    std::string got;
    const std::size_t peak = peak_of([&] { got = message(ln::parse_gguf(bytes(one.file), "f")); });
    BOOST_TEST(got == "f: " + one.message);
    BOOST_TEST(peak < 4096u, one.message << ": " << peak << " bytes");
  }
}

// A file that ends early is refused wherever it does; version 2 and other alignments are read.
BOOST_AUTO_TEST_CASE(prefixes) {
  const std::string whole = file_parts().all();
  for (std::size_t n = 0; n < whole.size(); ++n)
    BOOST_TEST(!ln::parse_gguf(bytes(std::string_view(whole).substr(0, n))), n);
  for (const std::size_t alignment : {8u, 32u, 64u, 4096u}) {
    file_parts f;
    f.version = 2;
    f.keys = entry("k", 4, number(7)) +
             entry("general.alignment", 4, number(static_cast<std::uint32_t>(alignment)));
    f.alignment = alignment;
    const std::size_t next = (std::max)(alignment, std::size_t{24});
    f.infos = tensor("a", {3, 2}, 0, 0) + tensor("b", {32}, 8, next);
    f.data = std::string(next, 'd') + std::string(34, 'e');
    const std::string all = f.all();
    const auto file = ln::parse_gguf(bytes(all));
    LINNET_REQUIRE_OK(file);
    BOOST_TEST(file->version() == 2u);
    const auto b = file->find("b")->data;
    BOOST_TEST(b.size() == 34u);
    BOOST_TEST(std::ranges::count(b, std::byte{'e'}) == 34);
  }
}

BOOST_AUTO_TEST_CASE(heap_and_time_of_many_entries) {
  const auto check = [](const char* name, const std::string& file, bool good) {
    const std::clock_t before = std::clock();
    const std::size_t peak =
        peak_of([&] { BOOST_TEST(static_cast<bool>(ln::parse_gguf(bytes(file))) == good, name); });
    const double took = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
    BOOST_TEST(peak > 1000000u, name);
    BOOST_TEST(peak < 16000000u, name << ": " << peak);
    BOOST_TEST(took < 5, name << " took " << took << " s");
  };
  constexpr std::uint64_t n = ln::gguf::most_entries;
  const std::string deep(100, 'k');  // names that differ late
  file_parts keys, twice, infos;
  keys.tensors = twice.tensors = infos.metadata = 0;
  keys.metadata = twice.metadata = infos.tensors = n;
  keys.keys = infos.keys = keys.infos = infos.infos = "";
  for (std::uint64_t i = 0; i < n; ++i) {
    const std::string name = deep + std::to_string(i * 7919 % n);
    keys.keys += entry(name, 0, "\1");
    infos.infos += tensor(name, {1}, 0, i * 32);
  }
  twice.infos = "";
  twice.keys = keys.keys.substr(0, keys.keys.rfind(deep) - 8) + entry(deep + "1", 0, "\1");
  infos.data = std::string(n * 32, '\0');
  check("keys", keys.all(), true);
  check("a key twice", twice.all(), false);
  check("tensors", infos.all(), true);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::gguf_hostile_test
