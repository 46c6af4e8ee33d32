// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// A golden fixture and everything that is compared with it; tests/reference/README.md says what
/// the tensors mean.

#include <map>

#include "io/models.hpp"
#include "support/scoring.hpp"

namespace test {

/// Whose names the files of a fixture have: linnet's own for models that load_hugging_face() does
/// not read.
template <class M>
inline constexpr bool foreign_names = ln::hf_kind_of<M>() != ln::hf_kind::none;
template <class M>
using names_of =
    std::conditional_t<foreign_names<M>, ln::naming::hugging_face, ln::naming::canonical>;

/// The inputs and the expected numbers of one case.
template <class M>
struct golden_case {
  static constexpr bool encodes = M::encodes, encoder = ln::detail::is_encoder<M>;
  std::string folder;
  ln::safetensors expected;
  std::vector<token> source, labels;  ///< `source` is the input of decoders and encoders
  std::vector<token> types{};         ///< of encoders, if they have any
  std::vector<index> lengths;
  index batch = 0, source_length = 0, target_length = 0;

  explicit golden_case(const std::string& name) : folder(golden(name)) {
    auto file = ln::read_safetensors(folder + "/expected.safetensors");
    LINNET_REQUIRE_OK(file);
    expected = *std::move(file);
    source = numbers<token>(encodes ? "source_ids" : "input_ids");
    labels = numbers<token>("labels");
    for (const auto n : numbers<std::int64_t>(encodes ? "source_lengths" : "lengths"))
      lengths.push_back(n);
    if constexpr (encoder)
      if (M::shape.types > 0) types = numbers<token>("types");
    batch = std::ssize(lengths);
    source_length = std::ssize(source) / batch;
    target_length = std::ssize(labels) / batch;
  }
  template <class T>
  std::vector<T> numbers(const char* name) const {
    auto values = expected.template values<T>(name);
    LINNET_REQUIRE_OK(values);
    return *std::move(values);
  }
  typename M::batch view() const {
    if constexpr (encodes)
      return {source.data(), lengths.data(), labels.data(), batch, source_length, target_length};
    else if constexpr (encoder)
      return {source.data(), lengths.data(), labels.data(),
              batch,         source_length,  types.empty() ? nullptr : types.data()};
    else
      return {source.data(), labels.data(), batch, target_length};
  }
  ln::limits limits() const {
    return {.batch = batch,
            .source = encodes ? source_length : 0,
            .target = encoder ? source_length : target_length};
  }

  /// The model's weights, loaded as a user loads them.
  template <class T>
  ln::weights<M, T> weights() const {
    ln::weights<M, T> w;
    if constexpr (foreign_names<M>)
      LINNET_REQUIRE_OK(ln::load_hugging_face(w, folder));
    else
      LINNET_REQUIRE_OK(ln::load_safetensors(w, folder + "/model.safetensors"));
    return w;
  }
  /// The largest difference from expected rows of `width` values, of those rows that mean
  /// something.
  template <class T>
  double difference(const char* name, const std::vector<T>& got, index length, bool all) const {
    const auto want = numbers<double>(name);
    if (want.size() != got.size()) return hopeless;
    const index width = std::ssize(want) / (batch * length);
    double worst = 0;
    for (index i = 0; i < std::ssize(want); ++i) {
      const index row = i / width;
      if (all || row % length < lengths[at(row / length)])
        worst = (std::max)(worst, distance_of(got[at(i)], want[at(i)]));
    }
    return worst;
  }
};

/// The largest error of a gradient relative to the norm of its tensor, over the tensors of the
/// file: GPT-2 has q, k and v in one.
template <class M, class T>
double worst_gradient(const golden_case<M>& c, ln::gradients<M, T>& sums, index tokens) {
  ln::weights<M, double> want;
  LINNET_REQUIRE_OK(ln::load_safetensors(want, c.expected, names_of<M>{}, "grad."));
  std::map<std::string, std::pair<double, double>> squares;  // of the error, of the value
  ln::each_tensor_of(
      [&](const ln::parameter_path& at_path, const ln::tensor_info& info, const auto& right,
          const auto& sum) {
        std::string name = at_path.str();
        if constexpr (foreign_names<M>) name = ln::hugging_face_name(ln::hf_kind_of<M>(), name);
        auto& [error, size] = squares[name];
        for (index i = 0; i < info.size(); ++i) {
          const double g = static_cast<double>(sum[i]) / static_cast<double>(tokens),
                       r = values_of(right)[i];
          error += distance_of(g, r) * distance_of(g, r);
          size += r * r;
        }
      },
      want, sums);
  double worst = 0;
  for (const auto& [name, one] : squares) {
    BOOST_TEST(one.second > 0, name);
    // The bias of keys has no derivative but rounding: it adds the same to all scores of a query.
    const double size = std::sqrt(one.second);
    worst = (std::max)(worst, std::sqrt(one.first) / (size > 1e-12 ? size : 1));
  }
  return worst;
}

/// How far a model may be from its fixture.
struct golden_tolerance {
  double logits, loss, gradient, adamw;
};

/// Logits, loss, every gradient and eleven losses of AdamW steps, all through the public trainer.
template <class M, class T>
void check_golden(const std::string& name, const golden_tolerance& allowed) {
  const golden_case<M> c(name);
  auto w = c.template weights<T>();
  const ln::adamw optimizer{ln::schedule::constant(1e-3), 0.9, 0.95, 1e-8, 0.1};
  auto train = ln::trainer<M, ln::adamw, T>::open(w, c.limits(), optimizer, {.clip = 1.0});
  LINNET_REQUIRE_OK(train);

  std::vector<T> logits(at(c.batch * c.target_length * M::vocabulary));
  const ln::loss_sum loss = train->evaluate(c.view(), logits);
  BOOST_TEST(loss.tokens ==
             std::ssize(c.labels) - std::count(c.labels.begin(), c.labels.end(), ln::ignored));
  BOOST_TEST(c.difference("logits", logits, c.target_length, c.encodes) <= allowed.logits, name);
  BOOST_TEST(distance_of(loss.mean(), c.template numbers<double>("loss").at(0)) <= allowed.loss,
             name);

  (void)train->accumulate(c.view());
  BOOST_TEST(worst_gradient(c, train->gradient(), loss.tokens) <= allowed.gradient, name);

  const auto want = c.template numbers<double>("adamw_losses");
  auto fresh = ln::trainer<M, ln::adamw, T>::open(w, c.limits(), optimizer, {.clip = 1.0});
  LINNET_REQUIRE_OK(fresh);
  std::vector<double> losses;
  for (std::size_t step = 0; step + 1 < want.size(); ++step)
    losses.push_back(fresh->step(c.view()));
  losses.push_back(fresh->evaluate(c.view()).mean());
  BOOST_TEST(want.size() == 11u);
  BOOST_TEST(want.back() < want.front() - 0.05);  // training changes something
  BOOST_TEST(distance(losses, want) <= allowed.adamw, name);
}

/// In double, where nothing but the formulas and the last few bits can differ; and in float.
template <class M>
void check_golden_in_both(const std::string& name) {
  check_golden<M, double>(name, {1e-11, 1e-11, 1e-11, 1e-11});
  check_golden<M, float>(name, {2e-5, 5e-6, 2e-5, 2e-5});
}

/// The output of T5's encoder after its final norm, at valid tokens.
template <class M, class T>
void check_hidden(const std::string& name, double tolerance) {
  const golden_case<M> c(name);
  const auto p = ln::pack(c.template weights<T>());
  const ln::memory_block memory(ln::session<M, T>::footprint(c.limits()));
  auto work =
      ln::detail::place_workspace<M, T>(c.limits(), ln::purpose::decoding, memory.data()).work;
  M::template encode<T, ln::storage_of<M, T>>(p.tree(), c.source.data(), c.batch, c.source_length,
                                              c.lengths.data(), work,
                                              ln::ops::execution{{}, ln::simd::best()});
  const std::vector<T> hidden(work.memory, work.memory + c.batch * c.source_length * M::d);
  BOOST_TEST(c.difference("hidden.encoder", hidden, c.source_length, false) <= tolerance, name);
}
/// The hidden states of all layers of an encoder, at valid tokens.
template <class M, class T>
void check_states(const std::string& name, double tolerance) {
  const golden_case<M> c(name);
  const auto p = ln::pack(c.template weights<T>());
  auto run = ln::embedder<M, T>::open(p, c.limits());
  LINNET_REQUIRE_OK(run);
  const auto want = c.template numbers<double>("hidden.states");
  const index size = c.batch * c.source_length * M::d;
  BOOST_REQUIRE_EQUAL(std::ssize(want), size * (M::shape.layers + 1));
  index layer = 0;
  (void)run->hidden(c.view(), [&](index l, std::span<const T> got) {
    BOOST_TEST(l == layer++);
    for (index i = 0; i < size; ++i)
      if (i / M::d % c.source_length < c.lengths[at(i / M::d / c.source_length)])
        BOOST_REQUIRE_MESSAGE(distance_of(got[at(i)], want[at(l * size + i)]) <= tolerance,
                              name << ", layer " << l << ", value " << i);
  });
  BOOST_TEST(layer == M::shape.layers + 1);
}
/// An encoder's case: everything above.
template <class M>
void check_golden_encoder(const std::string& name) {
  check_golden_in_both<M>(name);
  check_states<M, double>(name, 1e-11);
  check_states<M, float>(name, 2e-5);
}
/// A T5 case: everything above.
template <class M>
void check_golden_t5(const std::string& name) {
  check_golden_in_both<M>(name);
  check_hidden<M, double>(name, 1e-11);
  check_hidden<M, float>(name, 2e-5);
}

}  // namespace test
