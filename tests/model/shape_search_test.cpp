// SPDX-License-Identifier: MIT
// A search over shapes: those within the budget are narrowed and judged, the best comes first.

#include "support/compression.hpp"
#include "support/data.hpp"
#include "support/models.hpp"

namespace test::shape_search_test {

namespace {

using model = ln::decoder<tiny_decoder_shape>;
constexpr ln::decoder_shape with(index d_ff, index layers) {
  auto s = tiny_decoder_shape;
  s.d_ff = d_ff;
  s.layers = layers;
  return s;
}
constexpr auto wide = with(6, 2), flat = with(7, 1), thin = with(3, 1);
template <auto Shape>
constexpr index bytes_of = ln::weight_bytes<ln::narrowed<model, Shape>>();
constexpr ln::shape_budget budget{.bytes = bytes_of<flat>, .length = 4};

/// Keeps runs in memory, and interrupts the one that has saved so often.
struct kept_runs {
  struct run {
    ln::training_progress at{};
    std::vector<std::byte> state{};
  };
  std::map<index, run>* runs;
  int* left;

  template <class Trainer>
  ln::result<void> load(index round, Trainer& train) {
    if (!runs->contains(round)) return {};
    const run& one = runs->at(round);
    auto from = one.state.begin();
    train.visit_state([&](std::string_view, std::span<std::byte> block) {
      std::copy_n(from, block.size(), block.begin());
      from += std::ssize(block);
    });
    return train.resume(one.at);
  }
  template <class Trainer>
  ln::result<void> save(index round, Trainer& train) {
    run& one = (*runs)[round];
    one = {train.progress(), {}};
    train.visit_state([&](std::string_view, std::span<std::byte> block) {
      one.state.insert(one.state.end(), block.begin(), block.end());
    });
    if (--*left == 0) return ln::error{ln::errc::io, "run", "power", "some", "none"};
    return {};
  }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(shape_search)

// Two rounds are what they are by hand, on any number of threads and however often interrupted.
BOOST_AUTO_TEST_CASE(narrow_and_recover_by_turns) {
  static_assert(ln::largest_shape<model, budget, wide, flat, thin>() == 1);
  static_assert(
      ln::largest_shape<model, ln::shape_budget{.bytes = bytes_of<wide>}, thin, wide, flat>() == 1);
  ln::weights<model> w;
  randomize(w);
  const auto teacher = ln::pack(w);
  const decoder_tokens data(2, 9, 11);
  const auto batches = [&](index i) { return i < 16 ? data.part(i % 2, 1) : ln::decoder_batch{}; };
  const auto scores = [](const auto& some) { return ln::importance_of(some); };
  const ln::recovery_options how{.steps = 8, .rate = 1e-2, .keep_every = 3};
  const auto run = [&](int threads, std::map<index, kept_runs::run>& runs, int stop) {
    return ln::narrow_in_rounds<wide, thin>(
        w, scores,
        ln::recovery(teacher, batches, data.limits(threads), how, kept_runs{&runs, &stop}));
  };
  std::map<index, kept_runs::run> runs, others;
  const auto whole = run(1, runs, 0);
  BOOST_REQUIRE_MESSAGE(whole, (whole ? "" : whole.error().message()));
  static_assert(std::is_same_v<std::remove_cvref_t<decltype(*whole)>::model,
                               ln::narrowed<ln::narrowed<model, wide>, thin>>);
  BOOST_TEST(runs.size() == 2);

  const auto alone = ln::recovery(teacher, batches, data.limits(1), how);
  auto by_hand = alone;
  auto first = ln::narrow<wide>(w, *scores(w));
  BOOST_REQUIRE(first);
  const auto untrained = first->clone();
  BOOST_REQUIRE_EQUAL(message(by_hand(0, *first)), "success");
  auto second = ln::narrow<thin>(*first, *scores(*first));
  BOOST_REQUIRE(second);
  BOOST_REQUIRE_EQUAL(message(by_hand(1, *second)), "success");
  BOOST_TEST(same_bytes(*second, *whole));
  // It learns what its teacher says.
  const auto loss = [&](const auto& student) {
    using N = typename std::remove_cvref_t<decltype(student)>::model;
    auto copy = student.clone();
    auto lesson =
        ln::distillation<N, model>::open(teacher, data.limits(), {.alpha = 0, .temperature = 1});
    auto train = ln::trainer<N>::open(copy, data.limits());
    return train->step(data.view(), *lesson);
  };
  BOOST_TEST(loss(*first) < loss(untrained));

  for (int stop = 1; stop <= 6; stop += 2) {
    std::map<index, kept_runs::run> kept;
    const auto stopped = run(1, kept, stop);
    BOOST_REQUIRE(!stopped);
    BOOST_TEST(stopped.error().where == "run");
    const auto again = run(3, kept, 0);
    BOOST_REQUIRE(again);
    BOOST_TEST(same_bytes(*again, *whole), stop);
  }
  // Two batches a step, and what ends the text.
  auto twice = how;
  twice.steps = 4, twice.batches = 2;
  const auto longer = ln::narrow_in_rounds<wide, thin>(
      w, scores, ln::recovery(teacher, batches, data.limits(1), twice));
  BOOST_REQUIRE_MESSAGE(longer, (longer ? "" : longer.error().message()));
  twice.steps = 8;
  const auto ended = ln::narrow_in_rounds<wide, thin>(
      w, scores, ln::recovery(teacher, batches, data.limits(1), twice));
  BOOST_REQUIRE(!ended);
  BOOST_TEST(ended.error().message() ==
             "recovery: batches: expected at least one in round 1, got none");
}

BOOST_AUTO_TEST_CASE(shapes_within_the_budget_are_tried) {
  static_assert(bytes_of<wide> > bytes_of<flat> && bytes_of<flat> > bytes_of<thin>);
  ln::weights<model> w;
  randomize(w);
  auto scores = ln::importance_of(w);
  BOOST_REQUIRE(scores);
  std::vector<index> sizes;
  const auto judge = [&](const auto& small) {
    using N = typename std::remove_cvref_t<decltype(small)>::model;
    sizes.push_back(N::shape.d_ff);
    return static_cast<double>(N::shape.d_ff);
  };
  const auto found = ln::try_shapes<budget, wide, flat, thin>(w, *scores, judge);
  BOOST_REQUIRE_MESSAGE(found, (found ? "" : found.error().message()));
  BOOST_TEST((sizes == std::vector<index>{7, 3}));
  BOOST_REQUIRE(found->size() == 2);
  BOOST_TEST((found->front().candidate == 2 && found->front().loss == 3));
  BOOST_TEST((found->back().candidate == 1 && found->back().bytes == bytes_of<flat>));
  BOOST_TEST(found->back().flops == (ln::narrowed<model, flat>::flops(1, 4)));

  const auto equal =
      ln::try_shapes<budget, flat, thin>(w, *scores, [](const auto&) { return 1.0; });
  BOOST_REQUIRE(equal);
  BOOST_TEST(equal->front().candidate == 1);
  const auto diverged = ln::try_shapes<budget, thin>(
      w, *scores, [](const auto&) { return std::numeric_limits<double>::quiet_NaN(); });
  BOOST_REQUIRE(!diverged);
  BOOST_TEST(diverged.error().message() ==
             "try_shapes: loss of shape 0: expected a finite number, got a NaN or an infinity");
  const auto refused = ln::try_shapes<budget, thin>(w, *scores, [](const auto&) {
    return ln::result<double>(ln::error{ln::errc::invalid, "judge", "text", "some", "none"});
  });
  BOOST_REQUIRE(!refused);
  BOOST_TEST(refused.error().where == "judge");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::shape_search_test
