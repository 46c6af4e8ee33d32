// SPDX-License-Identifier: MIT
// Training on several processes. The cases of suite `distributed` start this program again under
// mpirun, on one to four ranks, with the cases of another suite.

#include "support/images.hpp"

#if __has_include(<mpi.h>) && __has_include(<xxhash.h>)
#include <linnet/mpi_checkpoint.hpp>

#include "support/ranks.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>
#include <chrono>
#include <csignal>
#include <fstream>
#include <new>
#include <optional>

namespace test::mpi_test {

namespace {

// With a tensor of more than one chunk, so that shards cut it.
constexpr ln::decoder_shape two_chunks = [] {
  ln::decoder_shape s = tiny_decoder_shape;
  s.vocabulary = 600;
  return s;
}();
using model = ln::decoder<two_chunks>;
template <int Stage>
using trainer = ln::distributed_trainer<model, ln::adamw, ln::zero<Stage>>;
constexpr index parts = 5, sequences = 10, length = 5;  // uneven shares, trees of two depths

ln::limits limits_of(int threads) {
  ln::limits l{
      .batch = sequences / parts, .target = length, .threads = threads, .min_flops_per_thread = 0};
  l.run_on = std_threads();
  return l;
}
constexpr ln::training_options with_dropout{.clip = 0.5, .dropout = 0.1, .z_loss = 1e-3, .seed = 7};

/// Some steps and an evaluation. `part(t, data)` is what this process gives of a batch.
template <class Trainer, class Part>
void take_steps(int n, Trainer& t, ln::weights<model>& w, record& to, const Part& part) {
  const decoder_tokens data(sequences, length, model::vocabulary);
  for (int i = 0; i < n; ++i) {
    to.add(t.step(part(t, data)));
    to.add(t.gradient_norm());
  }
  to.add(t.evaluate(part(t, data)).nats);
  add_weights(t, w, to);
}
/// Two steps, and one of three batches.
template <class Trainer, class Part>
void train(Trainer& t, ln::weights<model>& w, record& to, const Part& part) {
  take_steps(2, t, w, to, part);
  for (std::uint64_t i = 2; i < 5; ++i)
    to.add(t.accumulate(part(t, decoder_tokens(sequences, length, model::vocabulary, i))).nats);
  t.update();
  to.add(t.gradient_norm());
  add_weights(t, w, to);
}
constexpr auto own_part = [](const auto& t, const decoder_tokens& data) {
  const auto [first, last] = t.part_of(sequences);
  return data.part(first, last - first);
};

template <int Stage>
record run(int threads, ln::distributed_options how = {.parts = parts}) {
  ln::weights<model> w;
  randomize(w);
  record r;
  ln::limits l = limits_of(threads);
  l.batch = sequences / how.parts;
  how.bucket = 1000;
  const index bytes = trainer<Stage>::footprint(l, all_ranks().rank(), all_ranks().size(), how);
  std::vector<std::byte> memory(at(bytes + ln::alignment));
  auto t = [&] {
    ln::memory_scope scope(memory);
    const index before = scope.left();
    auto opened = trainer<Stage>::open(w, all_ranks(), l, {}, with_dropout, how);
    BOOST_TEST(before - scope.left() == bytes);
    return opened;
  }();
  LINNET_REQUIRE_OK(t);
  if (Stage == 3) std::ranges::fill(w.block(), std::byte{0xff});  // open() alone reads them
  train(*t, w, r, own_part);
  BOOST_TEST(t->last_refusal() == "");
  BOOST_TEST(t->steps() == 3);
  const index sent = all_ranks().sent_bytes();
  (void)t->step(own_part(*t, decoder_tokens(sequences, length, model::vocabulary)));
  BOOST_TEST(all_ranks().sent_bytes() - sent ==
             trainer<Stage>::sent_bytes(all_ranks().rank(), all_ranks().size(), how));
  return r;
}

// Experts that leave out half of the choices, as each takes 4 of 12 tokens at most.
using routed =
    ln::decoder<two_chunks,
                ln::ffn::experts<3, 2, ln::ffn::swiglu, ln::expert_choice{.capacity = 1}>>;
constexpr index routed_length = 12;
template <int Stage>
using routed_trainer = ln::distributed_trainer<routed, ln::adamw, ln::zero<Stage>>;

/// What routers did in two steps, and in one of two batches.
template <int Stage>
record route(int threads, const ln::training_options& options = with_dropout) {
  ln::weights<routed> w;
  randomize(w);
  ln::limits l = limits_of(threads);
  l.target = routed_length;
  auto t = routed_trainer<Stage>::open(w, all_ranks(), l, {}, options, {.parts = parts});
  LINNET_REQUIRE_OK(t);
  record r;
  const auto batch = [&](std::uint64_t i) {
    return decoder_tokens(sequences, routed_length, routed::vocabulary, i);
  };
  r.add(t->experts());
  for (int i = 0; i < 2; ++i) {
    r.add(t->step(own_part(*t, batch(1))));
    r.add(t->experts());
  }
  const double balance = t->experts().balance;
  (void)t->evaluate(own_part(*t, batch(1)));
  BOOST_TEST(t->experts().balance == balance);
  for (std::uint64_t i = 2; i < 4; ++i) {
    (void)t->accumulate(own_part(*t, batch(i)));
    BOOST_TEST(t->experts().tokens == static_cast<index>(i - 1) * 2 * sequences * routed_length);
  }
  t->update();
  r.add(t->experts());
  const ln::training_progress at = t->progress();
  LINNET_REQUIRE_OK(t->resume(at));
  BOOST_TEST(t->experts().tokens == 0);
  return r;
}

/// Waits for all ranks.
void all_told() {
  ln::detail::rank_difference none;
  BOOST_TEST(all_ranks().compare({}, 0, none));
}

/// A file that each rank of a run has locked until it has ended, whatever ended it.
int lock_of(const std::string& path) {
  return ::open((path + ".alive").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
}

constexpr int most_steps = 40;
/// A run with zero<stage>.
class run_on {
  template <class F>
  auto of(F&& f) {
    return stage_ == 0   ? f(*whole_)
           : stage_ == 1 ? f(*shards_)
           : stage_ == 2 ? f(*units_)
                         : f(*layers_);
  }

 public:
  explicit run_on(int stage) : stage_(stage) {
    randomize(w_);
    const ln::limits l = limits_of(1);
    ln::distributed_options how{.parts = parts};
    if (stage > 0 && all_ranks().size() % 2 == 0) how.group = all_ranks().size() / 2;
    if (stage == 0)
      whole_.emplace(*trainer<0>::open(w_, all_ranks(), l, {}, with_dropout, how));
    else if (stage == 1)
      shards_.emplace(*trainer<1>::open(w_, all_ranks(), l, {}, with_dropout, how));
    else if (stage == 2)
      units_.emplace(*trainer<2>::open(w_, all_ranks(), l, {}, with_dropout, how));
    else
      layers_.emplace(*trainer<3>::open(w_, all_ranks(), l, {}, with_dropout, how));
  }
  double step() {
    const decoder_tokens data(sequences, length, model::vocabulary);
    return of([&](auto& t) { return t.step(own_part(t, data)); });
  }
  index steps() {
    return of([](auto& t) { return t.steps(); });
  }
  /// A step whose loss has to be that of the run that was not interrupted. False if the ranks
  /// could not take it together.
  bool check_step(const std::string& path) {
    std::ifstream in(path + ".whole");
    std::string line;
    for (index i = 0; i <= steps(); ++i) std::getline(in, line);
    record now;
    now.add(step());
    if (all_ranks().failed()) return false;
    BOOST_TEST(now.text == line + '\n');
    return true;
  }
  ln::result<void> save(const std::string& path, index n) {
    const std::vector<ln::section> own{ln::as_section("ranks", n)};
    return of([&](auto& t) { return ln::save_checkpoint(path, t, own); });
  }
  ln::result<ln::checkpoint> load(const std::string& path) {
    return of([&](auto& t) { return ln::load_checkpoint(path, t); });
  }

 private:
  int stage_;
  ln::weights<model> w_;
  std::optional<trainer<0>> whole_;
  std::optional<trainer<1>> shards_;
  std::optional<trainer<2>> units_;
  std::optional<trainer<3>> layers_;
};

}  // namespace

BOOST_AUTO_TEST_SUITE(ranks, *boost::unit_test::disabled())

BOOST_AUTO_TEST_CASE(same_bits) {
  const int n = static_cast<int>(all_ranks().size());
  const record one = run<0>(n % 2 + 1), shards = run<1>(2 - n % 2);
  BOOST_TEST(one.text == shards.text);
  BOOST_TEST(one.text == run<2>(n % 2 + 1).text);
  BOOST_TEST(one.text == run<3>(2 - n % 2).text);
  // As many parts as ranks, so that no sum waits.
  if (sequences % n == 0) {
    const record whole = run<0>(1, {.parts = n});
    BOOST_TEST(whole.text == run<2>(1, {.parts = n}).text);
    BOOST_TEST(whole.text == run<3>(1, {.parts = n}).text);
  }
  const double loss = std::strtod(one.text.c_str(), nullptr);
  const ln::distributed_options by_mpi{.parts = parts, .sums = ln::reduction::mpi};
  for (const record& other : {run<0>(1, by_mpi), run<2>(1, by_mpi)})
    BOOST_TEST(std::strtod(other.text.c_str(), nullptr) == loss,
               boost::test_tools::tolerance(1e-6));

  // State that half of the ranks share out, and the others have again.
  BOOST_TEST(all_ranks().ranks_of_machine() == n);
  if (n % 2 == 0) {
    BOOST_TEST(one.text == run<1>(1, {.parts = parts, .group = n / 2}).text);
    BOOST_TEST(one.text == run<2>(2, {.parts = parts, .group = n / 2}).text);
    BOOST_TEST(one.text == run<3>(1, {.parts = parts, .group = n / 2}).text);
  }
  // Gradients in half of the bytes: the first loss is the same, later ones are near.
  const ln::distributed_options rounded{.parts = parts, .gradients = ln::gradient_messages::bf16};
  const record few = run<0>(1, rounded);
  BOOST_TEST(few.text == run<1>(1, rounded).text);
  BOOST_TEST(few.text == run<2>(1, rounded).text);
  BOOST_TEST(few.text == run<3>(1, rounded).text);
  char *rest = nullptr, *few_rest = nullptr;
  BOOST_TEST(std::strtod(few.text.c_str(), &few_rest) == std::strtod(one.text.c_str(), &rest));
  for (int i = 0; i < 4; ++i) {
    const double x = std::strtod(rest, &rest), y = std::strtod(few_rest, &few_rest);
    BOOST_TEST(x == y, boost::test_tools::tolerance(3e-3));
    BOOST_TEST((i > 0 || x != y));
  }
  if (all_ranks().rank() == 0)
    std::ofstream(from_environment("LINNET_RANKS_WRITE")) << one.text << few.text;
}

// What routers did in a step: the counts of a trainer of the whole batch, its losses but for
// rounding, where no dropout depends on a token's place in an expert. All bits are those of any
// number of ranks, threads and any stage.
BOOST_AUTO_TEST_CASE(experts) {
  const int n = static_cast<int>(all_ranks().size());
  const record one = route<0>(n % 2 + 1);
  BOOST_TEST(one.text == route<2>(2 - n % 2).text);
  BOOST_TEST(one.text == route<3>(2 - n % 2).text);
  ln::weights<routed> w, v, u;
  randomize(w), randomize(v), randomize(u);
  ln::limits l = limits_of(1);
  l.batch = sequences;
  l.target = routed_length;
  auto alone = ln::trainer<routed>::open(v, l);
  LINNET_REQUIRE_OK(alone);
  const decoder_tokens data(sequences, routed_length, routed::vocabulary, 1);
  (void)alone->step(data.view());
  const ln::expert_load& load = alone->experts();
  BOOST_TEST(load.tokens == 2 * sequences * routed_length);
  BOOST_TEST(2 * load.dropped >= load.choices);
  const record plain = route<0>(1, {});
  const char* at = plain.text.c_str();
  const auto next = [&] {
    char* end = nullptr;
    const double x = std::strtod(at, &end);
    at = end;
    return x;
  };
  for (int i = 0; i < 5; ++i) BOOST_TEST(next() == 0);  // before the first step
  (void)next();                                         // its loss
  for (const index count : {load.tokens, load.choices, load.dropped})
    BOOST_TEST(next() == static_cast<double>(count));
  for (const double sum : {load.balance, load.z})
    BOOST_TEST(next() == sum, boost::test_tools::tolerance(1e-6));
  if (n == 1) {  // one part has the bits of the trainer
    auto shared = routed_trainer<0>::open(w, all_ranks(), l, {}, with_dropout, {.parts = 1});
    LINNET_REQUIRE_OK(shared);
    auto whole = ln::trainer<routed>::open(u, l, {}, with_dropout);
    LINNET_REQUIRE_OK(whole);
    (void)shared->step(data.view());
    (void)whole->step(data.view());
    BOOST_TEST(shared->experts().balance == whole->experts().balance);
    BOOST_TEST(shared->experts().z == whole->experts().z);
    BOOST_TEST(shared->experts().dropped == whole->experts().dropped);
  }
  if (all_ranks().rank() == 0)
    std::ofstream(from_environment("LINNET_RANKS_WRITE"), std::ios::app) << one.text;
}

// The windows of a text on all ranks: the score of one process, to the bit. Items likewise.
BOOST_AUTO_TEST_CASE(evaluation) {
  ln::communicator& all = all_ranks();
  ln::weights<model> w;
  randomize(w);
  const auto packed = ln::pack(w);
  auto scorer = ln::evaluator_scorer<model>::open(packed, {.batch = 1, .target = length});
  LINNET_REQUIRE_OK(scorer);
  const auto encode = [](std::string_view text) {
    std::vector<ln::token> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  };
  const std::string text = "in windows of a few bytes each, more or less";
  const auto score = [&](std::string_view of, index stride) {
    const auto alone = ln::score_text(*scorer, encode, 0, of, stride);
    const auto shared = ln::score_text(all, *scorer, encode, 0, of, stride);
    LINNET_REQUIRE_OK(alone);
    LINNET_REQUIRE_OK(shared);
    BOOST_TEST(shared->nats == alone->nats);
    BOOST_TEST(shared->tokens == alone->tokens);
    BOOST_TEST(shared->bytes == alone->bytes);
  };
  for (const index stride : {0, 1, 4, 5}) score(text, stride);
  score(text.substr(0, 3), 0);
  score("", 0);
  const auto said = [](const auto& r) { return r ? std::string("fine") : r.error().message(); };
  BOOST_TEST(said(ln::score_text(all, *scorer, encode, 0, text, length + 1)) ==
             "score_text: stride: expected at most 5, got 6");

  std::vector<double> items(7);
  const auto half = [](index i) { return 0.5 * static_cast<double>(i); };
  LINNET_REQUIRE_OK(ln::share_out(all, std::span(items), half));
  for (index i = 0; i < 7; ++i) BOOST_TEST(items[at(i)] == half(i));
  if (all.size() < 2) return;
  const bool other = all.rank() == 1;
  BOOST_TEST(said(ln::share_out(all, std::span(items).first(other ? 3 : 7), [](index) {
               return 0.0;
             })) == "share_out: rank 1: items: expected 7, got 3");
  // One rank has no memory: all are told before they wait for its items.
  BOOST_TEST(said(ln::share_out(all, std::span(items),
                                [&](index i) {
                                  if (other) throw std::bad_alloc();
                                  return half(i);
                                })) ==
             (other ? "share_out: expected enough memory, got less"
                    : "share_out: rank 1: items that it had no memory for: expected 0, got "
                      "1"));
  LINNET_REQUIRE_OK(ln::share_out(all, std::span(items), half));
  BOOST_TEST(said(ln::score_text(all, *scorer, encode, 0, text, other ? 2 : 3)) ==
             "score_text: rank 1: stride: expected 3, got 2");
  // One rank's scorer refuses a token of its windows.
  const auto last = [&](std::string_view of) {
    std::vector<ln::token> ids = encode(of);
    ids.back() = model::vocabulary;
    return ids;
  };
  const std::string why = said(ln::score_text(all, *scorer, last, 0, text));
  const std::string mine = "score_text: tokens: expected tokens of the model's vocabulary";
  BOOST_TEST((all.rank() + 1 == all.size() ? why.starts_with(mine)
                                           : why.find(": tokens that it could not score: expected "
                                                      "0, got 1") != why.npos),
             why);
}

// One part is what a trainer makes of the whole batch.
BOOST_AUTO_TEST_CASE(one_part) {
  if (all_ranks().size() != 1) return;
  ln::weights<model> w, v;
  randomize(w), randomize(v);
  ln::limits l = limits_of(1);
  l.batch = sequences;
  auto shared = trainer<0>::open(w, all_ranks(), l, {}, with_dropout, {.parts = 1});
  auto alone = ln::trainer<model>::open(v, l, {}, with_dropout);
  BOOST_REQUIRE((shared && alone));
  record one, other;
  take_steps(3, *shared, w, one, own_part);
  take_steps(3, *alone, v, other,
             [](const auto&, const decoder_tokens& data) { return data.view(); });
  BOOST_TEST(one.text == other.text);

  // Several parts have its loss and norm, but for rounding.
  ln::weights<model> u;
  randomize(u);
  auto cut = trainer<0>::open(u, all_ranks(), limits_of(1), {}, with_dropout, {.parts = parts});
  LINNET_REQUIRE_OK(cut);
  char* rest = nullptr;
  const double loss = std::strtod(other.text.c_str(), &rest), norm = std::strtod(rest, nullptr);
  const decoder_tokens data(sequences, length, model::vocabulary);
  BOOST_TEST(cut->step(own_part(*cut, data)) == loss, boost::test_tools::tolerance(1e-6));
  BOOST_TEST(cut->gradient_norm() == norm, boost::test_tools::tolerance(1e-5));
}

// Without the squares of other ranks there is no norm, so no step.
BOOST_AUTO_TEST_CASE(lost_squares) {
  if (all_ranks().size() != 1) return;
  using memory_of_shard = ln::detail::shard_memory<model, float>;
  auto alone = ln::communicator::open(MPI_COMM_WORLD, 60);
  BOOST_REQUIRE(alone);
  ln::arena counting;
  (void)memory_of_shard::place(counting, 0, 1);
  ln::memory_block block(counting.peak());
  ln::arena memory(block.data(), block.size());
  ln::detail::sharded<model, float, ln::adamw> optimizer;
  optimizer.memory = memory_of_shard::place(memory, 0, 1);
  ln::gradients<model> g;
  optimizer.memory.start(*alone, static_cast<const float*>(g.data()));
  g.visit([](const ln::parameter_path&, const ln::tensor_info& info, float* leaf) {
    std::fill_n(leaf, info.size(), 1.0f);
  });
  const auto squares = [&] {
    std::vector<double> of(2);
    bool both = false;  // a busy machine may have one thread
    ln::run(limits_of(2), nullptr, [&](const ln::ops::execution& on) {
      of[at(on.threads.rank())] = optimizer.sum_of_squares(on, g);
      if (on.threads.rank() == 1) both = true;
    });
    BOOST_TEST((!both || std::isnan(of[0]) == std::isnan(of[1])));
    return of[0];
  };
  BOOST_TEST(squares() == static_cast<double>(ln::count_parameters<model>()));
  const ln::communicator taken = std::move(*alone);  // the other one sends nothing any more
  BOOST_TEST(alone->failed());
  BOOST_TEST(std::isnan(squares()));
}

// A run that other numbers of ranks continue, with and without shards: each step has the loss of a
// run that was never interrupted.
BOOST_AUTO_TEST_CASE(continued) {
  const std::string path = from_environment("LINNET_RANKS_WRITE") + ".run";
  const index n = all_ranks().size(), rank = all_ranks().rank();
  if (n == 1) {
    run_on whole(0);
    record all;
    for (int i = 0; i < most_steps; ++i) all.add(whole.step());
    std::ofstream(path + ".whole") << all.text;
  }
  run_on run(static_cast<int>(n) % 4);
  if (n > 1) {
    const auto loaded = run.load(path);
    LINNET_REQUIRE_OK(loaded);
    index wrote = 0;
    BOOST_TEST(loaded->read("ranks", wrote));
    BOOST_TEST(wrote > 0);
    BOOST_TEST(loaded->note == "");
  }
  BOOST_TEST(run.check_step(path));
  LINNET_REQUIRE_OK(run.save(path, n));
  if (n != 2) return;

  // A rank whose disk is full, say: all are told, and what was saved stays.
  const auto next = ln::detail::round_of(path);
  BOOST_REQUIRE(next);
  const std::string obstacle =
      ln::detail::part_path(path, {next->generation + 1, n, {}}, 1) + "/in the way";
  const index steps = run.steps();
  BOOST_TEST(run.check_step(path));
  if (rank == 1) std::filesystem::create_directories(obstacle);
  const auto failed = run.save(path, n);
  BOOST_REQUIRE(!failed);
  BOOST_TEST((rank == 1 ? failed.error().code == ln::errc::io
                        : failed.error().message().starts_with("save_checkpoint: rank 1: ")));
  if (rank == 1) std::filesystem::remove_all(std::filesystem::path(obstacle).parent_path());
  LINNET_REQUIRE_OK(run.load(path));
  BOOST_TEST(run.steps() == steps);

  // A damaged part: all load the checkpoint before, and its steps have the same losses.
  if (rank == 0) {
    const std::string part = ln::detail::part_path(path, *next, 1);
    std::filesystem::resize_file(part, std::filesystem::file_size(part) - 1);
  }
  all_told();
  const auto older = run.load(path);
  LINNET_REQUIRE_OK(older);
  BOOST_TEST(older->note != "");
  BOOST_TEST(run.steps() == steps - 1);
  BOOST_TEST(!std::filesystem::exists(path));
  BOOST_TEST(std::filesystem::exists(path + ".damaged"));

  // What was loaded stays the one before, with its parts, while new ones are written. The files of
  // a link stand beside its target.
  const std::string link = path + ".link";
  if (rank == 0) std::filesystem::create_symlink(path, link);
  all_told();
  BOOST_TEST(run.check_step(path));
  LINNET_REQUIRE_OK(run.save(link, n));
  BOOST_TEST(std::filesystem::is_symlink(link));
  BOOST_TEST(!std::filesystem::exists(link + ".previous"));
  all_told();
  if (rank == 0) std::filesystem::rename(path, path + ".hidden");
  all_told();
  const auto kept = run.load(link);
  LINNET_REQUIRE_OK(kept);
  BOOST_TEST(kept->note != "");
  BOOST_TEST(run.steps() == steps - 1);
  all_told();
  if (rank == 0) std::filesystem::rename(path + ".hidden", path);
  all_told();
  LINNET_REQUIRE_OK(run.load(link));
  BOOST_TEST(run.steps() == steps);
  BOOST_TEST((run.load(path + ".none").error().code == ln::errc::missing));

  // A rank that sees other files: none is written, so no part of a checkpoint is lost.
  const auto another = run.save(rank == 1 ? path + ".other" : path, n);
  BOOST_REQUIRE(!another);
  BOOST_TEST(another.error().message().find("rank 1: expected to write the same round") !=
             std::string::npos);
  LINNET_REQUIRE_OK(run.load(path));

  ln::weights<model> w;
  auto other = trainer<0>::open(w, all_ranks(), limits_of(1), {}, {}, {.parts = 2});
  LINNET_REQUIRE_OK(other);
  const auto refused = ln::load_checkpoint(path, *other);
  BOOST_REQUIRE(!refused);
  BOOST_TEST(refused.error().message() == path + ": parts: expected 2 (the trainer's), got 5");

  // Gradients in bf16 are other bits: neither goes on with what the other has saved.
  auto rounded = trainer<0>::open(w, all_ranks(), limits_of(1), {}, {},
                                  {.parts = parts, .gradients = ln::gradient_messages::bf16});
  LINNET_REQUIRE_OK(rounded);
  LINNET_REQUIRE_OK(ln::save_checkpoint(path + ".rounded", *rounded));
  const auto said = [](const auto& loaded) {
    return loaded ? std::string("loaded") : loaded.error().message();
  };
  BOOST_TEST(said(ln::load_checkpoint(path, *rounded)) ==
             path + ": gradients: expected bf16 (the trainer's), got as_computed");
  BOOST_TEST(said(run.load(path + ".rounded")) ==
             path + ".rounded: gradients: expected as_computed (the trainer's), got bf16");
}

/// An objective that watches attention.
struct watches_attention : ln::cross_entropy_objective {
  const void* attention_tap() const { return nullptr; }
  double attention_nats() const { return 0; }
};

// On three ranks: whatever one of them does wrong, all are told, by the same words, and go on.
BOOST_AUTO_TEST_CASE(refusals) {
  ln::communicator& all = all_ranks();
  if (all.size() != 3) return;
  const index rank = all.rank();
  const ln::limits l = limits_of(1);
  ln::weights<model> w;
  randomize(w, rank == 1 ? 2 : 1);
  const auto open = [&](const ln::training_options& options, index of_parts,
                        const ln::limits& some) {
    const auto opened = trainer<1>::open(w, all, some, {}, options, {.parts = of_parts});
    return opened ? std::string() : opened.error().message();
  };
  BOOST_TEST(open({}, parts, l).find("rank 1: digest of the weights: expected") !=
             std::string::npos);
  randomize(w);
  BOOST_TEST(open({.clip = rank == 2 ? 1.0 : 2.0}, parts, l)
                 .starts_with("distributed_trainer::open: rank 2: digest of options and limits"));
  BOOST_TEST(open({}, 3 + rank, l)
                 .starts_with("distributed_trainer::open: rank 1: distributed_options.parts: "
                              "expected 3, got 4"));
  BOOST_TEST(open({}, 2, l) ==
             "distributed_trainer::open: distributed_options.parts: expected no fewer than ranks, "
             "3, got 2");
  BOOST_TEST(open({}, index{1} << 40, l)
                 .starts_with("distributed_trainer::open: distributed_options.parts: expected at "
                              "most 38347922, got "));
  const auto shared = [&](const ln::distributed_options& how) {
    const auto opened = trainer<1>::open(w, all, l, {}, {}, how);
    return opened ? std::string() : opened.error().message();
  };
  BOOST_TEST(shared({.parts = parts, .group = 2}) ==
             "distributed_trainer::open: distributed_options.group: expected 0, or a number of "
             "ranks that divides 3, got 2");
  for (const ln::distributed_options& how :
       {ln::distributed_options{.sums = ln::reduction::mpi, .group = 1},
        ln::distributed_options{.sums = ln::reduction::mpi,
        .gradients = ln::gradient_messages::bf16}})
    BOOST_TEST(shared(how) ==
               "distributed_trainer::open: distributed_options.sums: expected fixed_order with a "
               "group, or with gradients in bf16, got mpi");
  BOOST_TEST(shared({.parts = parts, .group = rank == 2 ? 3 : 1})
                 .starts_with("distributed_trainer::open: rank 2: digest of options and limits"));
  const auto whole = trainer<0>::open(w, all, l, {}, {}, {.parts = parts, .group = 1});
  BOOST_REQUIRE(!whole);
  BOOST_TEST(whole.error().message() ==
             "distributed_trainer::open: distributed_options.group: expected 0 with zero<0>, got "
             "1");
  ln::limits wrong = l;
  if (rank == 1) wrong.batch = -1;
  BOOST_TEST(open({}, parts, wrong) ==
             (rank == 1 ? "trainer::open: limits.batch: expected at least 1, got -1"
                        : "distributed_trainer::open: rank 1: trainer, which it could not open: "
                          "expected 0, got 1"));

  auto t = trainer<1>::open(w, all, l, {}, with_dropout, {.parts = parts});
  LINNET_REQUIRE_OK(t);
  const decoder_tokens data(sequences, length, model::vocabulary);
  const auto [first, last] = t->part_of(sequences);
  const auto refused = [&](const ln::decoder_batch& b) {
    return std::isnan(t->step(b)) ? t->error().message() : std::string("a step");
  };
  ln::decoder_batch b = data.part(first, last - first);
  BOOST_TEST(refused(rank == 1 ? ln::decoder_batch{} : b) ==
             "distributed_trainer: rank 1: refusal of its batch: expected none, got batch is below "
             "1: give at least one sequence");
  ln::decoder_batch uneven = b;
  if (rank == 2) --uneven.batch;
  BOOST_TEST(
      refused(uneven).starts_with("distributed_trainer: rank 2: sequences left over by its "
                                  "parts: expected 0, got 1"));
  ln::decoder_batch shorter = b;
  if (rank == 0) --shorter.length;
  BOOST_TEST(refused(shorter) ==
             "distributed_trainer: rank 1: tokens of a sequence: expected 4, got 5");
  BOOST_TEST((rank == 2 ? std::isnan(t->evaluate(b).nats) : refused(b) != "a step"));
  BOOST_TEST(t->error().what == "rank 2: call");
  // Options that were changed on one rank alone.
  if (rank == 1) t->optimizer().beta1 = 2;
  const std::string options =
      "distributed_trainer: rank 1: refusal of its batch: expected none, "
      "got an option is outside its range: see docs/options.md";
  BOOST_TEST(refused(b) == options);
  BOOST_TEST(std::isnan(t->accumulate(b).nats));
  BOOST_TEST(t->error().message() == options);
  t->update();
  BOOST_TEST(t->error().message() == options);
  BOOST_TEST(!std::isnan(t->evaluate(b).nats));
  t->optimizer() = {};
  BOOST_TEST(t->refused() >= 3);
  BOOST_TEST(t->steps() == 0);
  BOOST_TEST(refused(b) == "a step");
  BOOST_TEST(t->last_refusal() == "");

  // An objective on attention knows no layers that are left out: refused once, for all parts.
  auto skips = trainer<0>::open(w, all, l, {}, {.layer_dropout = {.rate = 0.1}}, {.parts = parts});
  LINNET_REQUIRE_OK(skips);
  BOOST_TEST(std::isnan(skips->accumulate(b, watches_attention{}).nats));
  BOOST_TEST(skips->error().message() ==
             "distributed_trainer: rank 0: refusal of its batch: expected none, "
             "got the objective watches attention in every layer, and layer dropout leaves some "
             "out: set training_options.layer_dropout.rate to 0");
  BOOST_TEST(skips->refused() == 1);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(killed_ranks, *boost::unit_test::disabled())

// A rank is killed while all take steps and save each. What was saved before one was killed is
// there. The rank and the time depend on the number of the checkpoint. Another may see that it is
// gone before mpirun ends it, and so ends itself; that is no error of this test.
BOOST_AUTO_TEST_CASE(killed) {
  const std::string path = from_environment("LINNET_RANKS_WRITE") + ".run";
  BOOST_REQUIRE(::flock(lock_of(path), LOCK_SH) == 0);
  const index n = all_ranks().size(), rank = all_ranks().rank();
  const auto before = ln::detail::round_of(path);
  const index number = before ? before->generation : 0;
  run_on run(static_cast<int>(number % 4));
  LINNET_REQUIRE_OK(run.load(path));
  index saved = 0;
  std::ifstream(path + ".saved") >> saved;
  BOOST_TEST(run.steps() >= saved);
  if (2 * run.steps() > most_steps) {  // from the begin again, so that steps are left
    if (rank == 0) std::ofstream(path + ".saved") << 0;
    run_on fresh(2);
    LINNET_REQUIRE_OK(fresh.save(path + ".fresh", n));
    LINNET_REQUIRE_OK(run.load(path + ".fresh"));
  }
  std::thread([=] {
    if (rank != number % n) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(3 + number * 7 % 23));
    (void)std::raise(SIGKILL);
  }).detach();
  for (;;) {
    if (run.steps() + 4 < most_steps && !run.check_step(path)) MPI_Abort(MPI_COMM_WORLD, 6);
    const auto done = run.save(path, n);
    if (all_ranks().failed()) MPI_Abort(MPI_COMM_WORLD, 6);
    LINNET_REQUIRE_OK(done);
    if (rank == 0) std::ofstream(path + ".saved") << run.steps();
  }
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(silent_ranks, *boost::unit_test::disabled())

// Rank 1 goes away without a word. Rank 0 is told in time, and ends all.
BOOST_AUTO_TEST_CASE(silence) {
  auto some = ln::communicator::open((all_ranks(), MPI_COMM_WORLD), 4);
  LINNET_REQUIRE_OK(some);
  ln::weights<model> w;
  auto t = trainer<0>::open(w, *some, limits_of(1), {}, {}, {.parts = 2});
  LINNET_REQUIRE_OK(t);
  if (some->rank() == 1) {
    std::this_thread::sleep_for(std::chrono::seconds(60));
    return;
  }
  const decoder_tokens data(sequences, length, model::vocabulary);
  BOOST_TEST(std::isnan(t->step(data.part(0, 2))));
  BOOST_TEST(t->stopped());
  BOOST_TEST(std::isnan(t->step(data.part(0, 2))));
  std::cout << t->error().message() << std::endl;
  MPI_Abort(MPI_COMM_WORLD, 5);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(distributed)

// Every byte of a block that all ranks have is written by one of them.
BOOST_AUTO_TEST_CASE(shares_cover_a_block) {
  for (const index size : {0, 1, 63, 64, 65, 1000, 4096, 4100})
    for (index ranks = 1; ranks <= 5; ++ranks) {
      index next = 0;
      for (index rank = 0; rank < ranks; ++rank) {
        const auto [first, last] = ln::detail::share_of_block(size, rank, ranks);
        BOOST_TEST(first == next);
        BOOST_TEST(first % ln::alignment == 0);
        next = last;
      }
      BOOST_TEST(next == size);
    }
}

// Names of sections and counts that no checkpoint has.
BOOST_AUTO_TEST_CASE(numbers_of_a_part_are_bounded) {
  const auto begin = [](const char* name) { return ln::detail::piece_begin(name, "weights"); };
  BOOST_TEST(begin(ln::detail::piece_name("weights", 640).c_str()) == 640);
  BOOST_TEST(begin("weights@9223372036854775807") == 9223372036854775807);
  for (const char* const wrong : {"weights", "weight@0", "weights@", "weights@-1", "weights@1x",
                                  "weights@9223372036854775808"})
    BOOST_TEST(begin(wrong) == -1, wrong);

  const auto reads = [](std::int64_t generation, std::int64_t of_ranks) {
    const ln::detail::checkpoint_round round{generation, of_ranks, {}};
    const ln::detail::section_file file{{}, {ln::as_section("linnet.round", round)}};
    return bool(ln::detail::read_round(file, "file"));
  };
  BOOST_TEST(reads(1, 1));
  BOOST_TEST(reads(1000000000000000, 4));
  BOOST_TEST(!reads(1000000000000001, 4));
  BOOST_TEST(!reads(9223372036854775807, 4));
  BOOST_TEST(!reads(0, 4));
  BOOST_TEST(!reads(1, 0));
}

// Options of ranks that differ in one number differ in their digest.
BOOST_AUTO_TEST_CASE(digests_tell_options_apart) {
  const auto of = [](const auto& options) {
    ln::detail::digest d;
    d.add_options(options);
    return d.number();
  };
  using dropout = ln::dropout_schedule;
  const auto with = [&](const dropout& rates) {
    return of(ln::training_options{.dropout = rates});
  };
  BOOST_TEST(with(0.1) == with(0.1));
  const std::vector<std::int64_t> unlike{
      with(0),
      with(0.1),
      with(dropout::linear(0.1, 0.2, 3, 9)),
      with(dropout::linear(0.1, 0.3, 3, 9)),
      with(dropout::linear(0.1, 0.2, 4, 9)),
      with(dropout::linear(0.1, 0.2, 3, 8)),
      with(dropout::triangle(0.1, 0.2, 8)),
      with(dropout::triangle(0.1, 0.2, 12)),
      of(ln::training_options{.layer_dropout = {.rate = 0.1}}),
      of(ln::training_options{.if_not_finite = ln::bad_step::stop})};
  for (std::size_t i = 0; i < unlike.size(); ++i)
    BOOST_TEST(std::count(unlike.begin(), unlike.end(), unlike[i]) == 1, i);
}

// What a rank receives at a time: a bucket, or the largest shard, of each sum.
BOOST_AUTO_TEST_CASE(received_values_are_counted) {
  using sums = ln::detail::gradient_sums<model, float>;
  BOOST_TEST(sums::received_values(0, 1, {.parts = 5, .bucket = 1000}) == 1000);
  BOOST_TEST(sums::received_values(1, 5, {.parts = 5, .bucket = 1000}) == 5000);
  const index largest = ln::detail::largest_shard<model, float>(5);
  BOOST_TEST(sums::received_values(0, 5, {.parts = 5, .bucket = 1 << 30}) == 5 * largest);
  BOOST_TEST(sums::received_values(0, 1, {.sums = ln::reduction::mpi}) == sums::values);
}

// With a part on each rank, all ranks together send what the paper's formula says, and reports.
// Stages 1 and 2 also send squares of chunks.
BOOST_AUTO_TEST_CASE(sent_bytes_are_those_of_the_formula) {
  constexpr index values = ln::detail::values_in_block<model, float>();
  constexpr index chunks = ln::detail::count_chunks<model, float>();
  index in_layers = 0;
  for (const auto& unit : ln::detail::gradient_units<model, float>())
    if (unit.in_layer()) in_layers += unit.size();
  for (index n = 1; n <= 9; ++n) {
    index whole = 0, shards = 0, units = 0, fetched = 0;
    for (index rank = 0; rank < n; ++rank) {
      whole += trainer<0>::sent_bytes(rank, n, {.parts = n});
      shards += trainer<1>::sent_bytes(rank, n, {.parts = n});
      units += trainer<2>::sent_bytes(rank, n, {.parts = n});
      fetched += trainer<3>::sent_bytes(rank, n, {.parts = n});
    }
    const double ranks = static_cast<double>(n);
    const double sent = ln::costs_of_zero(0, static_cast<double>(values), ranks).sent * ranks;
    BOOST_TEST(static_cast<double>(whole - 56 * n * (n - 1)) == 4 * sent,
               boost::test_tools::tolerance(1e-12));
    BOOST_TEST(shards == whole + 8 * chunks * (n - 1));
    BOOST_TEST(units == shards);
    // The paper's third pass is one over layers; what is outside of them is sent once.
    BOOST_TEST(fetched == units + 4 * (n - 1) * in_layers);
  }
  constexpr double million = 1e6;
  BOOST_TEST(ln::costs_of_zero(0, million, 4).bytes == 16e6);
  BOOST_TEST(ln::costs_of_zero(1, million, 4).bytes == 4e6 + 3e6);
  BOOST_TEST(ln::costs_of_zero(2, million, 4).bytes == 2e6 + 3.5e6);
  BOOST_TEST(ln::costs_of_zero(3, million, 4).bytes == 4e6);
  BOOST_TEST(ln::costs_of_zero(3, million, 4).sent == 2.25e6);
}

// bfloat16 halves the bytes of gradients and of nothing else.
BOOST_AUTO_TEST_CASE(rounded_gradients_are_sent_in_half_of_the_bytes) {
  constexpr auto bf16 = ln::gradient_messages::bf16;
  for (index n = 1; n <= 9; ++n)
    for (index rank = 0; rank < n; ++rank) {
      const index gradients = 4 * (ln::detail::values_in_block<model, float>() -
                                   ln::detail::shard_values<model, float>(rank, n));
      BOOST_TEST(trainer<0>::sent_bytes(rank, n, {.parts = n}) -
                     trainer<0>::sent_bytes(rank, n, {.parts = n, .gradients = bf16}) ==
                 gradients / 2);
      BOOST_TEST(trainer<2>::sent_bytes(rank, n, {.parts = 2 * n}) -
                     trainer<2>::sent_bytes(rank, n, {.parts = 2 * n, .gradients = bf16}) ==
                 gradients);
    }
  for (const double x : {0.0, 1.0, -1.0, 1.00390625, 1.01171875, 3.1415926, 1e-40, -1e-42, 3.4e38,
                         3.39e38, 65280.0, HUGE_VAL}) {
    const auto one = static_cast<float>(x);
    BOOST_TEST(ln::detail::bf16_message(one) == ln::detail::bf16_message(double{one}), x);
    BOOST_TEST(ln::detail::rounded_to_bf16(ln::detail::rounded_to_bf16(one)) ==
               ln::detail::rounded_to_bf16(one));
  }
}

// Groups of ranks: each has all shards once, each rank's is one of its state's, and the ranks send
// as much as without groups. Only the weights stay in the group.
BOOST_AUTO_TEST_CASE(groups_have_all_shards) {
  using sums = ln::detail::gradient_sums<model, float>;
  for (const auto& [n, group] : {std::pair<index, index>{4, 2}, {4, 1}, {4, 4}, {6, 3}, {6, 2}}) {
    std::vector<index> seen(at(n));
    index sent = 0, without = 0, state = 0;
    for (index rank = 0; rank < n; ++rank) {
      const index shard = ln::detail::shard_of_rank(rank, n, group);
      ++seen[at(shard)];
      BOOST_TEST(shard / (n / group) == rank % group);
      sent += trainer<1>::sent_bytes(rank, n, {.parts = n, .group = group});
      without += trainer<1>::sent_bytes(rank, n, {.parts = n});
      if (rank < group) state += sums::state_values(rank, n, group);
      const ln::limits l{.batch = 1, .target = length};
      const index more = trainer<1>::footprint(l, rank, n, {.parts = n, .group = group}) -
                         trainer<1>::footprint(l, rank, n, {.parts = n});
      const index values =
          sums::state_values(rank, n, group) - ln::detail::shard_values<model, float>(rank, n);
      BOOST_TEST(more == 3 * 4 * values);
    }
    BOOST_TEST((seen == std::vector<index>(at(n), 1)));
    BOOST_TEST(sent == without);
    BOOST_TEST(state == sums::values);
  }
}

// Sums of parts that wait on a rank, and the units of a model with two stacks.
BOOST_AUTO_TEST_CASE(sums_wait_as_in_the_tree) {
  for (index all = 1; all <= 17; ++all)
    for (index ranks = 1; ranks <= all; ++ranks)
      for (index rank = 0; rank < ranks; ++rank) {
        const auto [begin, end] = ln::detail::items_of(all, rank, ranks);
        BOOST_TEST(ln::detail::sums_that_wait(all, begin, end) ==
                   ln::detail::partial_sums_of(all, rank, ranks).sums);
      }
  BOOST_TEST(ln::detail::most_waiting(8, 0, 1) == 3);
  BOOST_TEST(ln::detail::most_waiting(8, 1, 4) == 1);

  using two_stacks = ln::t5<tiny_t5_shape>;
  static_assert(ln::detail::has_own_layers<two_stacks>());
  static_assert(!ln::detail::has_own_layers<ln::decoder<tiny_decoder_shape, ln::sharing::all>>());
  index layers = 0, end = 0;
  for (const auto& unit : ln::detail::gradient_units<two_stacks, float>()) {
    BOOST_TEST(unit.begin == end);
    end = unit.end;
    layers += unit.layer >= 0;
  }
  BOOST_TEST(end == (ln::detail::values_in_block<two_stacks, float>()));
  BOOST_TEST(layers == 4);
}

// Each part of a batch has its own images, with its own labels.
BOOST_AUTO_TEST_CASE(parts_have_their_own_images) {
  using classifier = tiny_vit<ln::head::linear_classification<3>>;
  const image_data<classifier> data(6);
  const ln::encoder_batch part = ln::detail::part_of_batch(data.view(), 4, 2, true);
  BOOST_TEST(part.batch == 2);
  BOOST_TEST(part.images.pixels == data.pixels.data() + 4 * data.size);
  BOOST_TEST(part.labels == data.labels.data() + 4);
  BOOST_TEST(part.tokens == nullptr);
  const ln::encoder_batch texts = ln::detail::part_of_batch(ln::encoder_batch{}, 4, 2);
  BOOST_TEST(texts.images.pixels == nullptr);

  ln::image_text_batch both;
  both.length = length;
  both.images = data.images();
  BOOST_TEST(ln::detail::part_of_batch(both, 3, 1).images.pixels ==
             data.pixels.data() + 3 * data.size);
}

// Each part of a batch of T5 has its own documents.
BOOST_AUTO_TEST_CASE(parts_have_their_own_documents) {
  const t5_tokens data(2, 4, 3, tiny_t5_shape.vocabulary);
  const index sources[] = {0, 0, 2, 2, 0, 1, 1, 1}, targets[] = {0, 1, 1, 0, 0, 2};
  ln::t5_batch b = data.view();
  b.source_documents = sources;
  b.target_documents = targets;
  const ln::t5_batch one = ln::detail::part_of_batch(b, 1, 1);
  BOOST_TEST(one.batch == 1);
  BOOST_TEST(one.source == data.source.data() + 4);
  BOOST_TEST(one.labels == data.labels.data() + 3);
  BOOST_TEST(one.source_documents == sources + 4);
  BOOST_TEST(one.target_documents == targets + 3);
}

// The same batch on one to four ranks: losses, norms and weights are equal to the bit. One rank
// also compares itself with a trainer, three look at refusals.
BOOST_AUTO_TEST_CASE(any_number_of_ranks_has_the_same_bits) {
  const scratch_folder folder;
  const std::string file = folder.path("bits");
  std::string first;
  for (int n = 1; n <= 4; ++n) {
    const outcome said = on_ranks(n, "ranks", file);
    BOOST_TEST(said.status == 0, said.out + said.err);
    const std::string text = contents(file);
    if (n == 1) first = text;
    BOOST_TEST(std::count(text.begin(), text.end(), '\n') == 22 + 22);
    BOOST_TEST(text == first);
    if (n > 1) continue;
    // 2, if it names no number; of more, as many as fit into a minute.
    const std::string kills = from_environment("LINNET_KILLS");
    const int most = kills.empty() ? 2 : std::stoi(kills);
    const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    for (int kill = 0; kill < most; ++kill) {
      if (kill >= 2 && std::chrono::steady_clock::now() > end) break;
      const outcome killed = on_ranks(2 + kill % 2, "killed_ranks", file);
      const int lock = lock_of(file + ".run");  // mpirun does not wait until all ranks have ended
      BOOST_REQUIRE(::flock(lock, LOCK_EX) == 0);
      (void)::close(lock);
      BOOST_TEST(killed.status != 0);
      BOOST_TEST(killed.out.find("error: in") == std::string::npos, killed.out);
    }
  }
}

BOOST_AUTO_TEST_CASE(a_silent_rank_ends_all_in_time) {
  const outcome said = on_ranks(2, "silent_ranks");
  BOOST_TEST(said.status == 5, said.out + said.err);
  BOOST_TEST(
      said.out.find("communicator: rank 0: expected an answer of each rank within 4 seconds") !=
      std::string::npos);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::mpi_test
#endif
