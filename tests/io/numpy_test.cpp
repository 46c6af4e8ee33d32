// SPDX-License-Identifier: MIT
// NumPy's files: what NumPy wrote, byte for byte what it writes, and files that lie.

#include <linnet/linnet.hpp>
#include <linnet/numpy.hpp>

#include "support/allocations.hpp"
#include "support/data.hpp"
#include "support/models.hpp"

namespace test::numpy_test {

namespace {

using model = ln::decoder<tiny_decoder_shape>;
using half_model = ln::decoder<tiny_decoder_shape, ln::storage::f16>;

std::string file(const char* name) { return golden(std::string("numpy/") + name); }

/// A .npy file of that header, filled up with spaces, and of so many bytes of values.
std::string npy_file(std::string header, std::size_t values, char major = 1) {
  header += std::string(header.size() < 79 ? 79 - header.size() : 0, ' ') + '\n';
  std::string all = std::string("\x93NUMPY") + major + '\0';
  all += major == 1 ? raw(static_cast<std::uint16_t>(header.size()))
                    : raw(static_cast<std::uint32_t>(header.size()));
  return all + header + std::string(values, '\0');
}
std::string header_with(const std::string& shape, const char* descr = "<f4",
                        const char* order = "False") {
  return std::string("{'descr': '") + descr + "', 'fortran_order': " + order +
         ", 'shape': " + shape + ", }";
}
/// An .npz file of these members, which are stored.
std::string npz_file(const std::vector<std::pair<std::string, std::string>>& members) {
  ln::detail::zip_record directory, all;
  for (const auto& [name, data] : members) {
    const auto at = static_cast<std::uint32_t>(all.text.size()),
               size = static_cast<std::uint32_t>(data.size());
    const std::uint32_t sum = ln::detail::crc32(0, bytes(data));
    ln::detail::add_zip_member(all.add(ln::detail::zip_member_mark), name, sum, size);
    all.text += name + data;
    directory.add(ln::detail::zip_entry_mark).add(std::uint16_t{20});
    ln::detail::add_zip_member(directory, name, sum, size);
    directory.text += std::string(10, '\0');
    directory.add(at).text += name;
  }
  const auto begin = static_cast<std::uint32_t>(all.text.size());
  const auto count = static_cast<std::uint16_t>(members.size());
  all.text += directory.text;
  all.add(ln::detail::zip_end_mark).add(0).add(count).add(count);
  all.add(static_cast<std::uint32_t>(directory.text.size())).add(begin).add(std::uint16_t{0});
  return all.text;
}

template <class T>
std::vector<T> values_of(const ln::npz& from, const char* name) {
  auto values = from.values<T>(name);
  LINNET_REQUIRE_OK(values);
  return *values;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(numpy)

BOOST_AUTO_TEST_CASE(reads_what_numpy_wrote) {
  for (const char* const name : {"v1.npy", "v2.npy", "v3.npy"}) {
    const auto read = ln::read_npy(file(name));
    LINNET_REQUIRE_OK(read);
    BOOST_TEST(read->array().description() == "I32 [2, 3]", name);
    BOOST_TEST(*read->values<std::int32_t>() == (std::vector<std::int32_t>{-2, -1, 0, 1, 2, 3}));
    BOOST_TEST(message(read->values<float>()) ==
               file(name) + ": type: expected F16, F32 or F64, got I32 [2, 3]");
    BOOST_TEST(message(read->values<std::uint8_t>()) ==
               file(name) +
                   ": values: expected numbers that fit into 8 bits, got another at place 0");
  }
  const auto fortran = ln::read_npy(file("fortran.npy"));
  LINNET_REQUIRE_OK(fortran);
  BOOST_TEST(fortran->array().description() == "F32 [3, 4], Fortran order");
  BOOST_TEST(*fortran->values<double>() ==
             (std::vector<double>{0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23}));
  const auto scalar = ln::read_npy(file("scalar.npy"));
  LINNET_REQUIRE_OK(scalar);
  BOOST_TEST(*scalar->values<double>() == (std::vector<double>{-2.5}));
  const auto empty = ln::read_npy(file("empty.npy"));
  LINNET_REQUIRE_OK(empty);
  BOOST_TEST(empty->values<float>()->empty());

  const auto kinds = ln::read_npz(file("kinds.npz"));
  LINNET_REQUIRE_OK(kinds);
  BOOST_TEST(kinds->arrays().size() == 12u);
  using wide = std::vector<std::int64_t>;
  BOOST_TEST(values_of<std::int64_t>(*kinds, "bool") == (wide{1, 0, 1}));
  BOOST_TEST(values_of<std::int64_t>(*kinds, "int8") == (wide{-128, 0, 5, 127}));
  BOOST_TEST(values_of<std::int64_t>(*kinds, "int16") == (wide{-32768, 0, 5, 32767}));
  BOOST_TEST(values_of<std::int64_t>(*kinds, "int32") == (wide{INT32_MIN, 0, 5, INT32_MAX}));
  BOOST_TEST(values_of<std::int64_t>(*kinds, "int64") == (wide{INT64_MIN, 0, 5, INT64_MAX}));
  BOOST_TEST(values_of<std::int64_t>(*kinds, "uint8") == (wide{0, 0, 5, 255}));
  BOOST_TEST(values_of<std::int64_t>(*kinds, "uint16") == (wide{0, 0, 5, 65535}));
  BOOST_TEST(values_of<std::int64_t>(*kinds, "uint32") == (wide{0, 0, 5, UINT32_MAX}));
  BOOST_TEST(values_of<std::uint64_t>(*kinds, "uint64") ==
             (std::vector<std::uint64_t>{0, 0, 5, UINT64_MAX}));
  BOOST_TEST(!kinds->values<std::int64_t>("uint64"));
  for (const char* const name : {"float16", "float32", "float64"})
    BOOST_TEST(values_of<double>(*kinds, name) == (std::vector<double>{-1.5, 0, 0.25, 65504}));
  BOOST_TEST(message(kinds->values<float>("no")) ==
             file("kinds.npz") + ": no: expected an array of this name, got none");
  BOOST_TEST(message(ln::read_npz(file("deflated.npz"))) ==
             file("deflated.npz") +
                 ": a.npy: expected a stored array: write it by numpy.savez, not savez_compressed, "
                 "got a deflated one");
  BOOST_TEST(ln::detail::crc32(0, bytes("123456789")) == 0xcbf43926u);
}

BOOST_AUTO_TEST_CASE(writes_what_numpy_writes) {
  const scratch_folder folder;
  const auto written = [&](const ln::npy_array& array) {
    LINNET_REQUIRE_OK(ln::write_npy(folder.path("a"), array));
    return contents(folder.path("a"));
  };
  const std::int32_t whole[] = {-2, -1, 0, 1, 2, 3};
  BOOST_TEST(written(ln::as_npy(std::span(whole), {2, 3})) == contents(file("v1.npy")));
  const double scalar = -2.5;
  BOOST_TEST(written(ln::as_npy(std::span(&scalar, 1), {})) == contents(file("scalar.npy")));
  BOOST_TEST(written(ln::as_npy(std::span<const float>(), {0, 7})) == contents(file("empty.npy")));
  const float columns[] = {0, 10, 20, 1, 11, 21, 2, 12, 22, 3, 13, 23};
  auto fortran = ln::as_npy(std::span(columns), {3, 4});
  fortran.fortran = true;
  BOOST_TEST(written(fortran) == contents(file("fortran.npy")));

  const float a[] = {1, 2, 3, 4};
  const std::uint16_t e[] = {7, 8, 65535};
  std::vector<ln::npy_array> all{ln::as_npy(std::span(a), {2, 2}, "a"),
                                 ln::as_npy(std::span(e), {3}, "\xc3\xa9")};
  LINNET_REQUIRE_OK(ln::write_npz(folder.path("b"), all));
  BOOST_TEST(contents(folder.path("b")) == contents(file("stored.npz")));
  // Nothing is written that the readers refuse.
  all[1].name = "a";
  BOOST_TEST(message(ln::write_npz("f", all)) ==
             "f: a: expected each name once, got this one twice");
  all[1].name = "\xff";
  BOOST_TEST(!ln::write_npz("f", all));
  all[1] = ln::as_npy(std::span(e), {2}, "e");
  BOOST_TEST(message(ln::write_npz("f", all)) == "f: e: data: expected 4 bytes for U16 [2], got 6");
  all[1].type = ln::dtype::bf16;
  BOOST_TEST(message(ln::write_npy("f", all[1])) ==
             "f: e: type: expected a type that NumPy has: convert it to F32, got BF16");
  BOOST_TEST(!ln::write_npy("f", ln::as_npy(std::span(e), {1, 1, 1, 1, 1, 1, 1, 1, 3})));
  BOOST_TEST(!ln::write_npy("f", ln::as_npy(std::span(e), {-1})));
}

BOOST_AUTO_TEST_CASE(refuses_npy_files_that_lie) {
  const auto refused = [](const std::string& data) {
    return message(ln::parse_npy(bytes(data), "f"));
  };
  const std::string good = npy_file(header_with("(2, 3)"), 24);
  LINNET_REQUIRE_OK(ln::parse_npy(bytes(good)));
  LINNET_REQUIRE_OK(ln::parse_npy(bytes(npy_file(header_with("(2,)"), 8, 3))));
  LINNET_REQUIRE_OK(ln::parse_npy(
      bytes(npy_file("{\"shape\":( ),\"descr\":\"|u1\",\"fortran_order\":True}", 1))));
  for (std::size_t n = 0; n < good.size(); ++n)
    BOOST_TEST(!ln::parse_npy(bytes(std::string_view(good).substr(0, n))), n);
  const std::string descr =
      "f: descr: expected a bool, integer or real of little-endian order such as '<f4': give "
      "numpy.save array.astype('<f4'), got ";
  const std::pair<std::string, std::string> cases[] = {
      {"f: magic: expected \\x93NUMPY, the beginning of a .npy file, got PK????",
       replaced(good, "\x93NUMPY", std::string("PK\3\4\0\0", 6))},
      {"f: version: expected 1.0, 2.0 or 3.0, got 4.0", npy_file(header_with("(1,)"), 4, 4)},
      {"f: version: expected 1.0, 2.0 or 3.0, got 1.1", replaced(good, {"Y\1\0", 3}, "Y\1\1")},
      {"f: header length: expected at most 65535 bytes, got 4294967295",
       std::string("\x93NUMPY\2\0\xff\xff\xff\xff", 12) + std::string(70000, ' ')},
      {"f: header length: expected at most 0 bytes, got 80", good.substr(0, 10)},
      {"f: values: expected 24 bytes for F32 [2, 3], got 25", good + "x"},
      {descr + "'>f4'", npy_file(header_with("(1,)", ">f4"), 4)},
      {descr + "'|f4'", npy_file(header_with("(1,)", "|f4"), 4)},
      {descr + "'|O'", npy_file(header_with("(1,)", "|O"), 4)},
      {descr + "'<c8'", npy_file(header_with("(1,)", "<c8"), 8)},
      {descr + "'<U1'", npy_file(header_with("(1,)", "<U1"), 4)},
      {descr + "named fields", npy_file("{'descr': [('a', '<f4')], 'fortran_order': False}", 4)},
      {"f: fortran_order: expected True or False, got 1, 'shape': (1,), }",
       npy_file(header_with("(1,)", "<f4", "1"), 4)},
      {"f: shape: expected a tuple such as (3, 4), got [1], }", npy_file(header_with("[1]"), 4)},
      {"f: shape: expected a comma behind one extent, got ), }", npy_file(header_with("(1)"), 4)},
      {"f: shape: expected a comma between extents, got 2), }",
       npy_file(header_with("(1, 1 2)"), 8)},
      {"f: shape: expected whole numbers from 0 to 2^63 - 1, got -1,), }",
       npy_file(header_with("(-1,)"), 4)},
      {"f: shape: expected whole numbers from 0 to 2^63 - 1, got a larger one",
       npy_file(header_with("(9223372036854775808,)"), 4)},
      {"f: shape: expected at most 8 extents from 0 up, below 2^63 bytes in all, got F32 "
       "[4294967296, 4294967296]",
       npy_file(header_with("(4294967296, 4294967296)"), 0)},
      {"f: shape: expected at most 8 extents from 0 up, below 2^63 bytes in all, got F32 "
       "[9223372036854775807, 4, 0]",
       npy_file(header_with("(9223372036854775807, 4, 0)"), 0)},
      {"f: shape: expected at most 8 dimensions, got more",
       npy_file(header_with("(1, 1, 1, 1, 1, 1, 1, 1, 1)"), 4)},
      {"f: shape: expected one in every header, got none",
       npy_file("{'descr': '<f4', 'fortran_order': False}", 4)},
      {"f: descr: expected each key once, got this one twice",
       npy_file("{'descr': '<f4', 'descr': '<f4'}", 4)},
      {"f: header: expected descr, fortran_order and shape alone, got evil?",
       npy_file("{'evil\x1b': 1}", 4)},
      {"f: header: expected a dictionary, which begins with {, got __import__('os')",
       npy_file("__import__('os')", 4).substr(0, 10 + 80)},
      {"f: header: expected only spaces behind the dictionary, got x",
       npy_file(header_with("()") + " x", 4)},
  };
  for (const auto& [expected, data] : cases) {
    const std::string got = refused(data);
    BOOST_TEST(got.substr(0, expected.size()) == expected);
    BOOST_TEST(got.find('\n') == got.npos);
  }
  const std::string odd_bool = npy_file(header_with("()", "|b1"), 0) + "\2";
  BOOST_TEST(message(ln::parse_npy(bytes(odd_bool))->values<int>()) ==
             "npy: values: expected 0 or 1, as bools are, got another at place 0");
}

BOOST_AUTO_TEST_CASE(refuses_npz_files_that_lie) {
  const std::string a = npy_file(header_with("(2,)"), 8), b = npy_file(header_with("()"), 4);
  const std::string good = npz_file({{"b.npy", b}, {"a.npy", a}});
  const auto parsed = ln::parse_npz(bytes(good));
  LINNET_REQUIRE_OK(parsed);
  BOOST_TEST(parsed->arrays()[0].name == "a");
  BOOST_TEST(parsed->find("b")->data.size() == 4u);
  LINNET_REQUIRE_OK(ln::parse_npz(bytes(npz_file({}))));
  std::string comment = good + "words";
  comment[good.size() - 2] = 5;
  LINNET_REQUIRE_OK(ln::parse_npz(bytes(comment)));
  for (std::size_t n = 0; n < good.size(); ++n)
    BOOST_TEST(!ln::parse_npz(bytes(std::string_view(good).substr(0, n))), n);
  // Any byte changed: refused, or the same values.
  for (std::size_t n = 0; n < good.size(); ++n) {
    std::string one = good;
    one[n] = static_cast<char>(one[n] ^ 0x55);
    if (const auto still = ln::parse_npz(bytes(one)))
      for (const ln::npy_array& array : still->arrays())
        BOOST_TEST(array.size() == (array.data.size() == 4 ? 1 : 2));
  }
  const std::size_t end = good.size() - 22, directory = end - 2 * 51, second = directory + 51;
  const auto changed = [&](std::size_t at, auto number) {
    std::string one = good;
    one.replace(at, sizeof number, raw(number));
    return message(ln::parse_npz(bytes(one), "f"));
  };
  using half = std::uint16_t;
  using word = std::uint32_t;
  const auto wide = static_cast<word>(good.size());
  BOOST_TEST(changed(end + 10, half{0xffff}) ==
             "f: end of the archive: expected a file below 4 GB and 65,535 arrays: save them as "
             ".npy, got a ZIP64 archive");
  BOOST_TEST(changed(end + 8, half{1}) ==
             "f: end of the archive: expected one file, got a part of several");
  BOOST_TEST(changed(end + 12, word{103}) ==
             "f: beginning of the directory: expected its 103 bytes to end at " +
                 std::to_string(end) + ", got a beginning at " + std::to_string(directory));
  std::string many = good;
  many.replace(end + 8, 4, raw(half{9999}) + raw(half{9999}));
  BOOST_TEST(message(ln::parse_npz(bytes(many), "f")) ==
             "f: number of arrays: expected at most 2, what fits in the directory, got 9999");
  many.replace(end + 8, 4, raw(half{1}) + raw(half{1}));
  BOOST_TEST(message(ln::parse_npz(bytes(many), "f")) ==
             "f: directory: expected 1 arrays, as the end says, got bytes behind them");
  BOOST_TEST(changed(directory + 8, half{1}) == "f: b.npy: expected no encryption, got some");
  BOOST_TEST(
      changed(second + 10, half{14}) ==
      "f: a.npy: expected a stored array: write it by numpy.savez, not savez_compressed, got "
      "compression by method 14");
  BOOST_TEST(changed(second + 16, word{7}) ==
             "f: a.npy: expected the checksum of the directory, got another: the file is damaged");
  BOOST_TEST(changed(second + 20, word{1}) == "f: a.npy: expected one size below 4 GB, got others");
  BOOST_TEST(changed(second + 28, half{60000}) ==
             "f: directory: expected names within it, got one behind its end");
  for (const word at : {word{0}, wide, word{0xfffffff0}})
    BOOST_TEST(changed(second + 42, at) ==
               "f: a.npy: expected a member from " + std::to_string(30 + 5 + b.size()) +
                   " on, before the directory, got none at " + std::to_string(at));
  BOOST_TEST(changed(directory + 46, 'c') ==
             "f: c.npy: expected the same name and method at the member, got others");
  BOOST_TEST(changed(directory + 50, 'z') ==
             "f: b.npz: expected names that end in .npy, as those of arrays, got another");
  BOOST_TEST(message(ln::parse_npz(bytes(npz_file({{"a.npy", a}, {"a.npy", a}})), "f")) ==
             "f: a: expected each name once, got this one twice");
  BOOST_TEST(message(ln::parse_npz(bytes(npz_file({{"a.npy", a + "x"}})), "f")) ==
             "f: a: values: expected 8 bytes for F32 [2], got 9");
  BOOST_TEST(message(ln::parse_npz(bytes("PK"), "f")) ==
             "f: end of the archive: expected its record in the last bytes: an .npz file, not cut "
             "off, got none");
}

BOOST_AUTO_TEST_CASE(weights_as_arrays) {
  const scratch_folder folder;
  const std::string path = folder.path("w.npz");
  ln::weights<model> w, again;
  randomize(w);
  LINNET_REQUIRE_OK(ln::save_npz(w, path));
  LINNET_REQUIRE_OK(ln::load_npz(again, path));
  BOOST_TEST(same_bytes(w, again));
  const auto read = ln::read_npz(path);
  LINNET_REQUIRE_OK(read);
  BOOST_TEST(read->find("embedding.weight")->description() == "F32 [11, 8]");
  BOOST_TEST(read->find("norm.weight")->description() == "F32 [8]");
  ln::weights<half_model> half;
  LINNET_REQUIRE_OK(ln::load_npz(half, path));

  // In Fortran order, as numpy.savez keeps a transposed array.
  std::vector<ln::npy_array> all(read->arrays().begin(), read->arrays().end());
  ln::npy_array& table = *std::find_if(all.begin(), all.end(), [](const ln::npy_array& array) {
    return array.name == "embedding.weight";
  });
  const auto rows = read->values<float>("embedding.weight");
  std::vector<float> columns(rows->size());
  for (std::size_t i = 0; i < 11; ++i)
    for (std::size_t j = 0; j < 8; ++j) columns[j * 11 + i] = (*rows)[i * 8 + j];
  table = ln::as_npy(std::span<const float>(columns), {11, 8}, table.name);
  table.fortran = true;
  LINNET_REQUIRE_OK(ln::write_npz(folder.path("fortran.npz"), all));
  ln::weights<model> turned;
  LINNET_REQUIRE_OK(ln::load_npz(turned, folder.path("fortran.npz")));
  BOOST_TEST(same_bytes(w, turned));

  // Refused, and nothing is written.
  const auto refused = [&] {
    LINNET_REQUIRE_OK(ln::write_npz(folder.path("f.npz"), all));
    const std::string why = message(ln::load_npz(turned, folder.path("f.npz")));
    BOOST_TEST(same_bytes(w, turned));
    return why.substr(folder.path("f.npz: ").size());
  };
  table.extents = {8, 11};
  BOOST_TEST(
      refused() ==
      "embedding.weight: expected F32 [11, 8] or another real type (the model type), got F32 "
      "[8, 11], Fortran order");
  table.extents = {11, 8};
  table.name = "other";
  BOOST_TEST(refused() ==
             "embedding.weight: expected F32 [11, 8] or another real type (the model type), got no "
             "such array");
  table.name = "embedding.weight";
  all.push_back(ln::as_npy(std::span(columns.data(), 1), {1}, "more"));
  BOOST_TEST(refused() == "more: expected only tensors of the model type, got F32 [1]");
  all.pop_back();
  columns[3] = std::numeric_limits<float>::infinity();
  LINNET_REQUIRE_OK(ln::write_npz(folder.path("f.npz"), all));
  BOOST_TEST(!ln::load_npz(turned, folder.path("f.npz"), ln::nonfinite::refuse));
  BOOST_TEST(same_bytes(w, turned));
}

BOOST_AUTO_TEST_CASE(memory) {
  const std::string one = npy_file(header_with("()", "|u1"), 1);
  std::vector<std::pair<std::string, std::string>> members;
  for (int i = 0; i < 2000; ++i) members.emplace_back(std::to_string(i) + ".npy", one);
  const std::string many = npz_file(members);
  BOOST_TEST(peak_of([&] { LINNET_REQUIRE_OK(ln::parse_npz(bytes(many))); }) <=
             many.size() + 65536);
  const std::string liar = npy_file(header_with("(1000000000000,)"), 4);
  BOOST_TEST(peak_of([&] { BOOST_TEST(!ln::parse_npy(bytes(liar))); }) <= 8192u);

  const scratch_folder folder;
  const std::string few = npz_file({{"array.npy", one}, {"another.npy", one}}),
                    name = "a longer file name", path = folder.path("file with a long name");
  check_failing_allocations("npz", [&] { return ln::parse_npz(bytes(few), name); });
  const auto read = ln::parse_npz(bytes(few), name);
  check_failing_allocations("values", [&] { return read->values<int>("array"); });
  check_failing_allocations("write", [&] { return ln::write_npz(path, read->arrays()); });
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::numpy_test
