// SPDX-License-Identifier: MIT
// Packed weights that lie in files and arrays: the same logits without a copy, and hostile bytes.

#include <cstdint>
#include <linnet/linnet.hpp>

#include "support/allocations.hpp"
#include "support/data.hpp"
#include "support/models.hpp"

namespace test::packed_file_test {

namespace {

namespace storage = ln::storage;
using model = ln::decoder<tiny_decoder_shape>;
template <class S>
using stored = ln::quantized<model, S>;

/// Bytes at an aligned address, which can be changed and cut off.
class aligned_bytes {
 public:
  explicit aligned_bytes(std::string_view text)
      : block_(std::ssize(text) + 64), size_(text.size()) {
    std::memcpy(block_.data(), text.data(), size_);
  }
  std::span<const std::byte> first(std::size_t n) const {
    return {static_cast<const std::byte*>(block_.data()), n};
  }
  std::span<const std::byte> all() const { return first(size_); }
  std::byte& operator[](std::size_t i) { return static_cast<std::byte*>(block_.data())[i]; }

 private:
  ln::memory_block block_;
  std::size_t size_;
};

template <class M, class T>
std::vector<T> logits_of(const ln::packed<M, T>& p) {
  auto s = ln::session<M, T>::open(p, {.target = 8});
  LINNET_REQUIRE_OK(s);
  const auto all = s->reset_and_prefill(tokens(5, M::vocabulary, 3));
  return {all.begin(), all.end()};
}

/// Saves packed weights, then runs them where they lie.
template <class M, class T>
void check_same(const ln::packed<M, T>& p) {
  const scratch_folder folder;
  const std::string path = folder.path("w");
  LINNET_REQUIRE_OK(ln::save_packed(p, path));
  const auto expected = logits_of(p);
  const auto mapped = ln::map_packed<M, T>(path);
  LINNET_REQUIRE_OK(mapped);
  BOOST_TEST(same_bytes(*mapped, p));
  BOOST_TEST(same_bits(logits_of(*mapped), expected));
  BOOST_TEST(same_bits(logits_of(mapped->clone()), expected));
  const aligned_bytes file(contents(path));
  const auto viewed = ln::view_packed<M, T>(file.all());
  LINNET_REQUIRE_OK(viewed);
  BOOST_TEST(same_bits(logits_of(*viewed), expected));
  BOOST_TEST((viewed->data() == file.all().data() + (file.all().size() - p.block().size())));
  // Its own file can be written anew meanwhile, with the same bytes.
  LINNET_REQUIRE_OK(ln::save_packed(*mapped, path));
  BOOST_TEST(contents(path) ==
             std::string(reinterpret_cast<const char*>(file.all().data()), file.all().size()));
  BOOST_TEST(same_bytes(*mapped, p));
}

ln::weights<model> some_weights() {
  ln::weights<model> w;
  randomize(w);
  return w;
}
/// The file of packed weights.
template <class M, class T>
std::string saved(const ln::packed<M, T>& p) {
  const scratch_folder folder;
  LINNET_REQUIRE_OK(ln::save_packed(p, folder.path("w")));
  return contents(folder.path("w"));
}
// Bytes that would be gone before they are read.
template <class Bytes>
constexpr bool viewed_from = requires(Bytes (&bytes)()) {
  ln::view_packed<model>(bytes());
};
static_assert(viewed_from<std::span<const std::byte>> && viewed_from<ln::file_bytes&>);
static_assert(!viewed_from<std::vector<std::byte>> && !viewed_from<ln::file_bytes>);

std::string message(const auto& r) { return r ? std::string("none") : r.error().message(); }

}  // namespace

BOOST_AUTO_TEST_SUITE(packed_file)

BOOST_AUTO_TEST_CASE(runs_where_it_lies) {
  const auto w = some_weights();
  check_same(ln::pack(w));
  check_same(ln::pack(ln::quantize<storage::int8>(w)));
  check_same(ln::pack(ln::quantize<storage::int4<>>(w)));
  check_same(ln::pack(ln::quantize<storage::int3<>>(w)));
  check_same(ln::pack(ln::quantize<storage::q4_1>(w)));
  check_same(ln::pack(
      ln::quantize<
          storage::int8_per<storage::granularity::group, storage::symmetry::asymmetric, 8>>(w)));
  ln::weights<model, double> wide;
  randomize(wide);
  check_same(ln::pack(wide));
}

// The type's facts are compared piece by piece, without the heap.
BOOST_AUTO_TEST_CASE(views_ask_for_no_memory) {
  const aligned_bytes file(saved(ln::pack(ln::quantize<storage::int8>(some_weights()))));
  const std::size_t before = bytes_asked_for();
  const auto viewed = ln::view_packed<stored<storage::int8>>(file.all(), "array");
  const std::size_t asked = bytes_asked_for() - before;
  LINNET_REQUIRE_OK(viewed);
  BOOST_TEST(asked == 0u);
}

BOOST_AUTO_TEST_CASE(other_models_are_named) {
  const aligned_bytes file(saved(ln::pack(ln::quantize<storage::int8>(some_weights()))));
  const auto refuses = [&]<class M>(const char* sentence) {
    const auto r = ln::view_packed<M>(file.all(), "w");
    BOOST_TEST(message(r) == sentence);
    BOOST_TEST((!r && r.error().code == ln::errc::mismatch));
  };
  static constexpr ln::decoder_shape wider = [] {
    auto s = tiny_decoder_shape;
    s.d_ff = 9;
    return s;
  }();
  refuses.operator()<model>("w: storage: expected f32 (the model type), got int8");
  refuses.operator()<stored<storage::int8_per<storage::granularity::group>>>(
      "w: storage: expected int8_group (the model type), got int8");
  refuses.operator()<ln::decoder<wider, storage::int8>>(
      "w: d_ff: expected 9 (the model type), got 7");
  refuses.operator()<ln::decoder<tiny_decoder_shape, storage::int8, ln::tie::untied>>(
      "w: head: expected untied (the model type), got tied");
  refuses.operator()<ln::decoder<tiny_decoder_shape, storage::int8, ln::position::learned>>(
      "w: position: expected learned (the model type), got rope");
  refuses.operator()<ln::decoder<tiny_decoder_shape, storage::int8, ln::sharing::ffn>>(
      "w: share: expected ffn (the model type), got nothing");
  // What the file says beyond the type.
  using shared = ln::decoder<tiny_decoder_shape, ln::sharing::ffn>;
  const aligned_bytes more(saved(ln::packed<shared>()));
  BOOST_TEST(message(ln::view_packed<model>(more.all(), "w")) ==
             "w: share: expected nothing (the model type), got ffn");
  const aligned_bytes groups(saved(ln::packed<stored<storage::int4<32>>>()));
  BOOST_TEST(message(ln::view_packed<stored<storage::int4<64>>>(groups.all(), "w")) ==
             "w: storage_group: expected 64 (the model type), got 32");
}

// No byte of the header can be another, and no byte of the file be missing or too many.
BOOST_AUTO_TEST_CASE(hostile_bytes) {
  const std::string good = saved(ln::pack(some_weights()));
  const std::size_t header = good.size() - at(ln::packed<model>::bytes());
  BOOST_REQUIRE(header % 64 == 0u);
  aligned_bytes file(good);
  LINNET_REQUIRE_OK(ln::view_packed<model>(file.all()));
  for (std::size_t i = 0; i < header; ++i)
    for (const int bit : {0, 3, 7}) {
      file[i] ^= std::byte{1} << bit;
      const auto r = ln::view_packed<model>(file.all(), "w");
      BOOST_TEST((!r && r.error().message().find('\n') == std::string::npos), "byte " << i);
      file[i] ^= std::byte{1} << bit;
    }
  for (std::size_t n = 0; n < good.size(); n += n < header + 2 ? 1 : 61)
    BOOST_TEST(!ln::view_packed<model>(file.first(n)), n << " bytes");
  BOOST_TEST(message(ln::view_packed<model>(file.first(31), "w")) ==
             "w: file size: expected at least 32 bytes, got 31");
  BOOST_TEST(message(ln::view_packed<model>(file.first(good.size() - 1), "w")) ==
             "w: file size: expected " + std::to_string(good.size()) +
                 " bytes for this header, got " + std::to_string(good.size() - 1));
  BOOST_TEST(!ln::view_packed<model>(file.first(good.size() + 1)));
  LINNET_REQUIRE_OK(ln::view_packed<model>(file.all()));

  const auto changed = [&](std::size_t place, std::string_view bytes) {
    std::string text = good;
    text.replace(place, bytes.size(), bytes);
    return message(ln::view_packed<model>(aligned_bytes(text).all(), "w"));
  };
  BOOST_TEST(changed(0, "ggufggml") ==
             "w: expected packed weights, which begin with linnetPK, got another beginning");
  BOOST_TEST(changed(8, {"\1\2\3\4", 4}) == "w: byte order: expected this machine's, got another");
  BOOST_TEST(changed(12, {"\1\0\0\0", 4}) == "w: version: expected 2, got 1");
  BOOST_TEST(changed(16, raw(std::uint64_t{64})).find("w: ") == 0u);
  BOOST_TEST(changed(16, raw(UINT64_MAX - 63)).find("w: header size: expected a multiple of 64") ==
             0u);
  BOOST_TEST(changed(24, raw(std::uint64_t{0})) == "w: size of the panels: expected " +
                                                       std::to_string(ln::packed<model>::bytes()) +
                                                       ", got 0");
  std::string moved = " " + good;
  const aligned_bytes off(moved);
  BOOST_TEST(message(ln::view_packed<model>(off.all().subspan(1), "w")) ==
             "w: memory: expected memory that is declared alignas(linnet::alignment), got another "
             "address");
}

using choice = ln::any_model<model, stored<storage::int8>>;

/// Tokens that a session writes behind a prompt.
template <class Session>
std::vector<token> written(Session& s) {
  std::vector<token> all;
  s.generate(tokens(3, model::vocabulary, 5), ln::sampler{{.temperature = 1, .seed = 7}},
             [&](token t) { all.push_back(t); }, {.tokens = 9});
  return all;
}

// A file chooses its type among those that were compiled; the rest is as with the static type.
BOOST_AUTO_TEST_CASE(any_model) {
  const scratch_folder folder;
  const std::string path = folder.path("w");
  constexpr ln::limits l{.target = 16, .chunk = 4};
  constexpr index most = choice::footprint(l);
  static_assert(most >= ln::session<model>::footprint(l) &&
                most >= ln::session<stored<storage::int8>>::footprint(l));
  const auto w = some_weights();
  const auto check = [&]<class M>(const ln::packed<M>& p, index which) {
    LINNET_REQUIRE_OK(ln::save_packed(p, path));
    auto file = choice::open(path);
    LINNET_REQUIRE_OK(file);
    choice opened = std::move(*file);
    BOOST_TEST(opened.which() == which);
    BOOST_TEST(file->which() == -1);
    BOOST_TEST(message(file->session(l)) ==
               "any_model::session: model: expected weights, got none, as they were moved away");
    bool same = false;
    opened.visit([&](const auto& q) { same = std::ranges::equal(q.block(), p.block()); });
    BOOST_TEST(same);
    auto fixed = ln::session<M>::open(p, l);
    const ln::memory_block memory(most);
    const std::span bytes(static_cast<std::byte*>(memory.data()), at(most));
    for (const bool placed : {false, true}) {
      auto any = placed ? opened.session(l, bytes) : opened.session(l);
      LINNET_REQUIRE_OK(any);
      ln::any_session run = std::move(*any);
      BOOST_TEST(!any->valid());
      BOOST_TEST(any->feed(tokens(1, M::vocabulary, 1)).empty());
      BOOST_TEST(any->last_refusal() == to_string(ln::refusal::not_valid));
      BOOST_TEST((written(run) == written(*fixed)));
      BOOST_TEST(std::ranges::equal(run.fed(), fixed->fed()));
      BOOST_TEST(run.position() == fixed->position());
      run.reset();
      BOOST_TEST(run.position() == 0);
      const auto prompt = tokens(6, M::vocabulary, 3);
      const auto expected = fixed->reset_and_prefill(prompt);
      BOOST_TEST(same_bits(run.prefill(prompt), expected));
      BOOST_TEST(same_bits(run.reset_and_prefill(prompt), expected));
      const token next[] = {1, 2};
      BOOST_TEST(same_bits(run.feed(next), fixed->feed(next)));
      BOOST_TEST(run.feed(prompt).empty());
      BOOST_TEST(run.last_refusal() == to_string(ln::refusal::over_chunk));
      BOOST_TEST(run.generate(prompt, ln::greedy{}, [](token) {}, {.tokens = -1}) == 0);
      BOOST_TEST(run.last_refusal() == to_string(ln::refusal::options));
      BOOST_TEST(!run.feed(next).empty());
      BOOST_TEST(run.last_refusal().empty());
      BOOST_TEST((run.capacity() == 16 && run.chunk() == 4 && run.vocabulary() == M::vocabulary));
    }
    const auto less = opened.session(l, bytes.first(at(ln::any_session::footprint<M>(l)) - 1));
    BOOST_TEST(message(less).find("any_session::open: memory: expected ") == 0u);
    BOOST_TEST(message(opened.session({.batch = -1})).find("any_session::open: limits.batch") ==
               0u);
  };
  check(ln::pack(w), 0);
  check(ln::pack(ln::quantize<storage::int8>(w)), 1);
  choice own(ln::pack(w));
  own = choice(ln::pack(ln::quantize<storage::int8>(w)));
  BOOST_TEST((own.which() == 1 && own.session(l)));

  // No session asks for memory after it was opened, and all are refused in one line.
  auto run = own.session(l);
  const std::size_t before = bytes_asked_for();
  run->generate(tokens(3, 11, 5), ln::greedy{}, [](token) {});
  BOOST_TEST(bytes_asked_for() - before == 3 * sizeof(token));
  const std::string list =
      "decoder (d_model 8, layers 2, storage f32); decoder (d_model 8, layers 2, storage int8)";
  BOOST_TEST(choice::compiled() == list);
  const aligned_bytes other(saved(ln::packed<stored<storage::int4<32>>>()));
  BOOST_TEST(message(choice::view(other.all(), "w")) ==
             "w: model type: expected one of 2 that were compiled: " + list +
                 ", got another, by storage int4; storage int4");
  const aligned_bytes good(saved(ln::pack(w)));
  LINNET_REQUIRE_OK(choice::view(good.all()));
  for (std::size_t n = 0; n < good.all().size(); n += 61)
    BOOST_TEST(!choice::view(good.first(n)), n << " bytes");
  BOOST_TEST(message(choice::view(good.first(31), "w")) ==
             "w: file size: expected at least 32 bytes, got 31");
}

BOOST_AUTO_TEST_CASE(files_that_cannot_be_mapped) {
  const scratch_folder folder;
  const auto code = [](const auto& r) { return r ? ln::errc::invalid : r.error().code; };
  BOOST_TEST((code(ln::map_packed<model>(folder.path("none"))) == ln::errc::io));
  BOOST_TEST((code(ln::map_packed<model>(folder.path(""))) == ln::errc::io));
  BOOST_TEST((code(ln::map_packed<model>("/dev/null")) == ln::errc::io));
  LINNET_REQUIRE_OK(ln::write_file(folder.path("empty"), {}));
  BOOST_TEST((code(ln::map_packed<model>(folder.path("empty"))) == ln::errc::malformed));
  ln::packed<model> gone, p = std::move(gone);
  BOOST_TEST((code(ln::save_packed(gone, folder.path("w"))) == ln::errc::invalid));
  BOOST_TEST(!ln::save_packed(p, folder.path("no/w")));
}

// A header for C++ with the bytes as an array.
BOOST_AUTO_TEST_CASE(arrays) {
  const scratch_folder folder;
  std::string all;
  for (int i = 0; i < 300; ++i) all += static_cast<char>(i % 256);
  LINNET_REQUIRE_OK(ln::write_array(folder.path("a.h"), "_Model_2", bytes(all)));
  const std::string text = contents(folder.path("a.h"));
  const std::string beginning =
      "#pragma once\nalignas(64) inline constexpr unsigned char _Model_2[] = {\n";
  BOOST_REQUIRE(text.substr(0, beginning.size()) == beginning);
  std::string read;
  for (std::size_t i = beginning.size(); i < text.size(); ++i) {
    int value = 0;
    for (; text[i] >= '0' && text[i] <= '9'; ++i) value = 10 * value + (text[i] - '0');
    read += static_cast<char>(value);
    if (text[i] == ',' && text[i + 1] == '\n') ++i;
    if (text[i] == '}') break;
  }
  BOOST_TEST(read == all);
  BOOST_TEST(text.substr(text.size() - 3) == "};\n");
  for (const char* name : {"", "2nd", "a-b", "a b", "a\n"})
    BOOST_TEST(!ln::write_array(folder.path("b.h"), name, bytes(all)));
  BOOST_TEST(!ln::write_array(folder.path("b.h"), "b", {}));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::packed_file_test
