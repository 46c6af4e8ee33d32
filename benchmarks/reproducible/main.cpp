// SPDX-License-Identifier: MIT
// What compute::reproducible costs: whole models with and without it, in one program, on one thread
// and in turns. Prints median milliseconds of each, and the median of the quotients of neighbouring
// times. LINNET_SIMD chooses the instruction-set level of both.
// Started as bench_reproducible [ROUNDS [NAME]], NAME a part of works' names.

#define LINNET_REPRODUCIBLE  // the kernels of that policy; before the first header

#include <cstdio>
#include <cstdlib>
#include <memory>

#include <linnet/core/finite.hpp>
#include <linnet/eval/evaluator.hpp>
#include <linnet/model/decoder.hpp>
#include <linnet/model/encoder.hpp>
#include <linnet/model/t5.hpp>

#include "../in_turns.hpp"
#include "../works.hpp"

namespace {

namespace ln = linnet;

constexpr ln::index rows = 4, length = 64;  // texts of a call, and their tokens

template <class Arithmetic>
using decoder = ln::decoder<ln::decoder_shape{.d_model = 128,
                                              .d_ff = 512,
                                              .heads = 4,
                                              .kv_heads = 2,
                                              .layers = 4,
                                              .vocabulary = 1000,
                                              .context = length},
                            Arithmetic>;
template <class Arithmetic>
using t5 = ln::t5<ln::t5_shape{.d_model = 128,
                               .d_ff = 512,
                               .d_kv = 32,
                               .heads = 4,
                               .encoder_layers = 2,
                               .decoder_layers = 2,
                               .vocabulary = 1000},
                  Arithmetic>;
template <class Arithmetic>
using encoder = ln::encoder<ln::encoder_shape{.d_model = 128,
                                              .d_ff = 512,
                                              .heads = 4,
                                              .layers = 4,
                                              .vocabulary = 1000,
                                              .context = length},
                            Arithmetic>;
template <class M>
using w8a8 = ln::quantized<M, ln::storage::int8, ln::compute::int8>;

/// Texts, which a T5 reads and writes.
template <class M>
struct texts {
  std::vector<ln::token> tokens = works::some_tokens<M>(rows * length);

  typename M::batch view() const {
    typename M::batch b;
    b.labels = tokens.data();
    b.batch = rows;
    if constexpr (M::encodes) {
      b.source = tokens.data();
      b.source_length = b.target_length = length;
    } else {
      b.tokens = tokens.data();
      b.length = length;
    }
    return b;
  }
};
template <class M>
constexpr ln::limits limits() {
  return {.batch = rows, .source = M::encodes ? length : 0, .target = length};
}

/// The losses of the texts, of a model that runs as `M`.
template <class M>
struct scoring {
  texts<M> data;
  ln::packed<M> weights;
  ln::evaluator<M> score = works::take(ln::evaluator<M>::open(weights, limits<M>()));

  void operator()() {
    if (!ln::is_finite(score.loss(data.view()).nats)) std::abort();
  }
  void prepare() {}
};
/// A training step on the texts, with AdamW in f32.
template <class M>
struct training {
  texts<M> data;
  ln::weights<M> weights = works::random_weights<M>();
  ln::trainer<M> train = works::take(ln::trainer<M>::open(weights, limits<M>()));

  void operator()() {
    if (!ln::is_finite(train.step(data.view()))) std::abort();
  }
  void prepare() {}
};
/// A work of works.hpp: a prompt of a text, or tokens behind one.
template <class Work, class M>
struct session_work {
  ln::packed<M> weights;
  Work work{weights, works::sizes{.source = length / 2, .target = length / 2}};

  void operator()() { work(); }
  void prepare() { work.prepare(); }
};

template <class M, class Deployed>
ln::packed<Deployed> deployed() {
  const ln::weights<M> w = works::random_weights<M>();
  if constexpr (std::is_same_v<M, Deployed>)
    return ln::pack(w);
  else
    return ln::pack(ln::quantize<ln::storage::int8, ln::compute::int8>(w));
}

template <class Work>
timed timed_of(std::string name, std::shared_ptr<Work> work, int times = 1) {
  return {std::move(name), times, [work] { (*work)(); }, [work] { work->prepare(); }};
}

/// What is asked for.
struct request {
  int rounds = 101;
  std::string name;

  void compare(const std::string& what, auto&& reproducible, auto&& fast) const {
    if (what.find(name) == what.npos) return;
    const medians found = in_turns(reproducible(what), fast(what), rounds);
    std::printf("%-28s %10.3f %14.3f %10.2f\n", what.c_str(), 1e3 * found.other, 1e3 * found.one,
                found.quotient);
    std::fflush(stdout);
  }
};

template <class M, class Deployed>
timed score(const std::string& name) {
  return timed_of(
      name, std::shared_ptr<scoring<Deployed>>(new scoring<Deployed>{{}, deployed<M, Deployed>()}));
}
template <class M>
timed learn(const std::string& name) {
  return timed_of(name, std::make_shared<training<M>>());
}
template <template <class> class Work, class M, class Deployed>
timed write(const std::string& name) {
  using work = session_work<Work<Deployed>, Deployed>;
  return timed_of(name, std::shared_ptr<work>(new work{deployed<M, Deployed>()}),
                  std::is_same_v<Work<Deployed>, works::decode<Deployed>> ? length / 2 : 1);
}

/// All works of one family: `M` is reproducible, `F` is fast.
template <class M, class F>
void compare(const request& r, const std::string& name) {
  r.compare(name + ", scoring", score<M, M>, score<F, F>);
  r.compare(name + ", scoring W8A8", score<M, w8a8<M>>, score<F, w8a8<F>>);
  r.compare(name + ", training", learn<M>, learn<F>);
  if constexpr (M::supports_cache && !M::encodes) {
    r.compare(name + ", prompt", write<works::prefill, M, M>, write<works::prefill, F, F>);
    r.compare(name + ", prompt W8A8", write<works::prefill, M, w8a8<M>>,
              write<works::prefill, F, w8a8<F>>);
    r.compare(name + ", token", write<works::decode, M, M>, write<works::decode, F, F>);
    r.compare(name + ", token W8A8", write<works::decode, M, w8a8<M>>,
              write<works::decode, F, w8a8<F>>);
  }
}

}  // namespace

int main(int count, char** argument) {
  request r;
  if (count > 1) r.rounds = std::atoi(argument[1]);
  if (count > 2) r.name = argument[2];
  if (count > 3 || r.rounds < 1)
    return std::fputs("usage: bench_reproducible [ROUNDS [NAME]]\n", stderr), 2;
  using ln::compute::reproducible, ln::compute::fast;
  const std::string level = std::string("milliseconds, ") + ln::simd::name(ln::simd::best());
  std::printf("%-28s %10s %14s %10s\n", level.c_str(), "fast", "reproducible", "quotient");
  compare<decoder<reproducible>, decoder<fast>>(r, "decoder");
  compare<t5<reproducible>, t5<fast>>(r, "T5");
  compare<encoder<reproducible>, encoder<fast>>(r, "encoder");
}
