// SPDX-License-Identifier: MIT
// Limits whose memory exceeds what an index holds: footprints stop at linnet::most_bytes instead of
// wrapping, and open() refuses. Run with the sanitizers: nothing on the way may overflow.

#include "support/models.hpp"

namespace test::huge_limits_test {

namespace {

using index_member = index ln::limits::*;
constexpr index_member fields[] = {&ln::limits::batch,     &ln::limits::source,
                                   &ln::limits::target,    &ln::limits::chunk,
                                   &ln::limits::kv_blocks, &ln::limits::max_logits};
constexpr const char* names[] = {"limits.batch", "limits.source",    "limits.target",
                                 "limits.chunk", "limits.kv_blocks", "limits.max_logits"};

/// Calls f(limits, name, value) for every field and power of two, alone and with others that are
/// large, too.
template <class F>
void for_huge_limits(F&& f) {
  constexpr ln::limits small{.source = 8, .target = 8, .chunk = 4, .kv_blocks = 2, .threads = 2};
  constexpr ln::limits large{.batch = index{1} << 20,
                             .source = index{1} << 21,
                             .target = index{1} << 22,
                             .chunk = 1 << 18,
                             .kv_blocks = index{1} << 19,
                             .threads = 1 << 12,
                             .max_logits = 1 << 16};
  for (const ln::limits& from : {small, large})
    for (std::size_t i = 0; i < std::size(fields); ++i)
      for (int shift = 8; shift<64; shift += from.batch> 1 ? 5 : 1) {
        ln::limits l = from;
        l.*fields[i] = shift < 63 ? index{1} << shift : std::numeric_limits<index>::max();
        f(l, names[i], l.*fields[i]);
      }
}

/// `bytes` of a kind of buffers: never negative, never smaller for larger limits.
template <class Bytes>
void check_footprint(const char* what, Bytes&& bytes) {
  index before = 0, largest = 0;
  std::string last;
  int wrong = 0;
  for_huge_limits([&](const ln::limits& l, const std::string& name, index value) {
    const index now = bytes(l);
    if (name != last || value == 256) before = 0;
    wrong += now < before || now <= 0 || now > ln::most_bytes;
    largest = (std::max)(largest, now);
    before = now;
    last = name;
  });
  BOOST_TEST(wrong == 0, what);
  BOOST_TEST(largest == ln::most_bytes, what);
}
template <class M>
void check_footprints(const char* name) {
  check_footprint(name, [](const ln::limits& l) { return ln::session<M>::footprint(l); });
  check_footprint(name, [](const ln::limits& l) { return ln::evaluator<M>::footprint(l); });
  if constexpr (std::is_same_v<typename M::storage, ln::storage::f32>)
    check_footprint(name, [](const ln::limits& l) { return ln::trainer<M>::footprint(l); });
}

/// open() refuses what no machine has: by the name of a field if it cannot be counted. `unused`
/// names a field that it does not read.
template <class Open, class Bytes>
void check_open(const char* what, Open&& open, Bytes&& bytes, const std::string& unused = {}) {
  int opened = 0, unnamed = 0, refused = 0;
  for_huge_limits([&](const ln::limits& l, const std::string& name, index value) {
    const bool counted = value < index{1} << 31 || name == unused;
    if (counted && bytes(l) < index{1} << 48) return;  // some machine has that
    ++refused;
    const auto made = open(l);
    if (made) {
      ++opened;
      return;
    }
    const ln::error& why = made.error();
    if (!counted) unnamed += why.code != ln::errc::invalid || why.what.find("limits.") != 0;
  });
  BOOST_TEST(opened == 0, what);
  BOOST_TEST(unnamed == 0, what);
  BOOST_TEST(refused > 100, what);
}

using decoder = ln::decoder<tiny_decoder_shape>;
using t5 = ln::t5<tiny_t5_shape>;

}  // namespace

BOOST_AUTO_TEST_SUITE(huge_limits)

BOOST_AUTO_TEST_CASE(footprints_stop_at_the_most) {
  check_footprints<decoder>("decoder");
  check_footprints<t5>("t5");
  check_footprints<ln::decoder<tiny_decoder_shape, ln::kv::int4>>("int4 cache");
  check_footprints<ln::decoder<tiny_decoder_shape, ln::attention::sinks<2, 6>>>("sinks");
  check_footprints<ln::decoder<tiny_decoder_shape, ln::attention::linear<>>>("linear");
  check_footprints<ln::decoder<tiny_decoder_shape, ln::mixer::mamba<4, 3>, ln::position::none>>(
      "mamba");
  check_footprints<ln::quantized<decoder, ln::storage::int8, ln::compute::int8>>("rounded inputs");
}

// Growing step by step ends at the same number as computing it at once, which constants do.
BOOST_AUTO_TEST_CASE(exact_below_the_most) {
  constexpr ln::limits l{.batch = 3, .source = 70, .target = 1000, .threads = 5, .max_logits = 300};
  constexpr ln::limits wide{
      .batch = 300, .source = 257, .target = 511, .chunk = 300, .threads = 900};
  const auto check = [](index constant, index computed) { BOOST_TEST(constant == computed); };
  ln::limits at_run_time = l;
  constexpr index a = ln::session<decoder>::footprint(l), b = ln::session<t5>::footprint(l),
                  c = ln::trainer<decoder>::footprint(l), d = ln::evaluator<t5>::footprint(l);
  check(a, ln::session<decoder>::footprint(at_run_time));
  check(b, ln::session<t5>::footprint(at_run_time));
  check(c, ln::trainer<decoder>::footprint(at_run_time));
  check(d, ln::evaluator<t5>::footprint(at_run_time));
  at_run_time = wide;
  constexpr index e = ln::session<decoder>::footprint(wide);
  check(e, ln::session<decoder>::footprint(at_run_time));
}

BOOST_AUTO_TEST_CASE(open_refuses) {
  ln::weights<decoder> w;
  ln::weights<t5> v;
  const auto p = ln::pack(w);
  const auto q = ln::pack(v);
  check_open(
      "session", [&](const ln::limits& l) { return ln::session<decoder>::open(p, l); },
      [](const ln::limits& l) { return ln::session<decoder>::footprint(l); });
  check_open(
      "session of t5", [&](const ln::limits& l) { return ln::session<t5>::open(q, l); },
      [](const ln::limits& l) { return ln::session<t5>::footprint(l); });
  check_open(
      "evaluator", [&](const ln::limits& l) { return ln::evaluator<decoder>::open(p, l); },
      [](const ln::limits& l) { return ln::evaluator<decoder>::footprint(l); });
  check_open(
      "trainer", [&](const ln::limits& l) { return ln::trainer<decoder>::open(w, l); },
      [](const ln::limits& l) { return ln::trainer<decoder>::footprint(l); });
  check_open(
      "classifier",
      [&](const ln::limits& l) {
        return ln::classifier<t5>::open(q, {{3, 1}, {4, 5, 1}}, l);
      },
      [](ln::limits l) {
        l.target = (std::max)({l.target, l.max_logits, index{3}});
        l.chunk = 0;
        return ln::session<t5>::footprint(l);
      },
      "limits.chunk");
  ln::weights<decoder, double> x;
  randomize(x);
  const auto data = decoder_data<decoder>();
  const auto report = ln::check_model_gradients(x, data.view(), {.batch = index{1} << 60});
  BOOST_TEST(!report.passed());
  BOOST_TEST(report.tensor == "no memory for the check");
  for (const int threads : {65537, std::numeric_limits<int>::max()}) {
    const auto s = ln::session<decoder>::open(p, {.target = 8, .threads = threads});
    BOOST_TEST_REQUIRE(!s);
    BOOST_TEST(s.error().message() ==
               "session::open: limits.threads: expected 1 <= threads <= 65536, "
               "got " +
                   std::to_string(threads));
  }
}

// An arena counts no further than most_bytes, and hands out nothing that it does not have.
BOOST_AUTO_TEST_CASE(arenas_do_not_wrap) {
  constexpr index most = std::numeric_limits<index>::max();
  for (const index count : {most, most / 8, most / 8 + 1, index{-1}}) {
    ln::arena counter;
    (void)counter.take<double>(count);
    BOOST_TEST(counter.peak() >= ln::most_bytes / 64 * 60);
    (void)counter.take<double>(count);
    (void)counter.take<char>(1);
    BOOST_TEST(counter.peak() == ln::most_bytes);
  }
  BOOST_TEST(ln::memory_block(most).data() == nullptr);
  BOOST_TEST(ln::memory_block(ln::most_bytes).data() == nullptr);
  BOOST_TEST(ln::memory_block(-5).size() == 64);
  static_assert(ln::multiply_sizes(most, 2) == ln::most_bytes);
  static_assert(ln::multiply_sizes(3, 4) == 12);
  static_assert(ln::add_sizes(most, 1) == ln::most_bytes);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::huge_limits_test
