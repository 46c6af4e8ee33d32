// SPDX-License-Identifier: MIT
// Top eigenvalues of blocks of the Hessian, against matrices of known spectra and against second
// differences of the loss; and storages that are chosen by them.

#include <linnet/compression.hpp>

#include "support/encoders.hpp"
#include "support/heap.hpp"

namespace test::hessian_test {

namespace {

using small = ln::decoder<tiny_decoder_shape>;

/// A dense symmetric matrix [n, n] as a function.
struct dense {
  index n;
  std::vector<double> values = std::vector<double>(at(n * n));

  void operator()(std::span<const double> v, std::span<double> to) const {
    for (index i = 0; i < n; ++i) {
      to[at(i)] = 0;
      for (index j = 0; j < n; ++j) to[at(i)] += values[at(i * n + j)] * v[at(j)];
    }
  }
};
/// Q diag(spectrum) Q for a reflection Q.
dense with_spectrum(const std::vector<double>& spectrum) {
  const index n = std::ssize(spectrum);
  const std::vector<double> u = normal<double>(n, 3);
  double squares = 0;
  for (const double x : u) squares += x * x;
  const auto q = [&](index i, index j) { return (i == j) - 2 * u[at(i)] * u[at(j)] / squares; };
  dense a{n};
  for (index i = 0; i < n; ++i)
    for (index j = 0; j < n; ++j)
      for (index k = 0; k < n; ++k) a.values[at(i * n + j)] += q(i, k) * spectrum[at(k)] * q(k, j);
  return a;
}
ln::eigenvalue_estimate top_of(const std::vector<double>& spectrum,
                               const ln::power_iteration& how) {
  return ln::top_eigenvalue(std::ssize(spectrum), with_spectrum(spectrum), how);
}

BOOST_AUTO_TEST_SUITE(hessian)

BOOST_AUTO_TEST_CASE(known_spectra) {
  const ln::power_iteration exact{.iterations = 500, .tolerance = 1e-14};
  const auto positive = top_of({1, 5, -3, 0.5, 0, 2}, exact);
  BOOST_TEST(distance_of(positive.value, 5) < 1e-11);
  BOOST_TEST(positive.converged);
  BOOST_TEST(positive.residual < 1e-6);
  BOOST_TEST(positive.iterations < 100);
  BOOST_TEST(distance_of(top_of({1, 5, -7, 0.5}, exact).value, -7) < 1e-11);
  BOOST_TEST(distance_of(top_of({-2, -2, -2}, exact).value, -2) < 1e-14);
  BOOST_TEST(top_of({3}, exact).value == 3);
  // What it ends with.
  const auto few = top_of({1, 5, -4.9, 0.5}, {.iterations = 3, .tolerance = 0});
  BOOST_TEST(few.iterations == 3);
  BOOST_TEST(!few.converged);
  BOOST_TEST(few.residual > 0.1);
  const auto early = top_of({1, 5, -3, 0.5, 0, 2}, {.iterations = 500, .tolerance = 0.1});
  BOOST_TEST(early.converged);
  BOOST_TEST(early.iterations < positive.iterations);
  // Two of one size and unlike signs: no eigenvalue, and the residual tells.
  const auto torn = top_of({4, -4, 1}, exact);
  BOOST_TEST(distance_of(std::hypot(torn.value, torn.residual), 4) < 1e-10);
  BOOST_TEST(torn.residual > 0.1);
  const auto none = top_of({0, 0}, exact);
  BOOST_TEST(none.value == 0);
  BOOST_TEST(none.converged);
  BOOST_TEST(none.iterations == 1);
  const auto broken = ln::top_eigenvalue(2, [](auto, std::span<double> to) {
    to[0] = std::numeric_limits<double>::infinity();
    to[1] = 0;
  });
  BOOST_TEST(!ln::is_finite(broken.value));
  BOOST_TEST(!broken.converged);
}

/// Names of blocks, and of their tensors.
template <class M>
std::vector<std::string> blocks_of(ln::hessian_blocks by) {
  std::vector<std::string> names, all;
  ln::each_tensor<M>(
      [&](const ln::parameter_path& path, const ln::tensor_info&) { names.push_back(path.str()); });
  for (const auto& block : ln::detail::blocks_of<M>(by)) {
    std::string line = block.name + ':';
    for (const index tensor : block.tensors) line += ' ' + names[at(tensor)];
    all.push_back(line);
  }
  return all;
}

BOOST_AUTO_TEST_CASE(blocks) {
  using by = ln::hessian_blocks;
  const auto layers = blocks_of<small>(by::layers);
  BOOST_TEST_REQUIRE(layers.size() == 3u);
  BOOST_TEST(layers[0] == "embedding.weight: embedding.weight");
  BOOST_TEST(layers[2] ==
             "blocks.1: blocks.1.attention.q.weight blocks.1.attention.k.weight "
             "blocks.1.attention.v.weight blocks.1.attention.o.weight blocks.1.ffn.gate.weight "
             "blocks.1.ffn.up.weight blocks.1.ffn.down.weight");
  const auto roles = blocks_of<small>(by::roles);
  BOOST_TEST_REQUIRE(roles.size() == 8u);
  BOOST_TEST(roles[3] == "attention_v: blocks.0.attention.v.weight blocks.1.attention.v.weight");
  BOOST_TEST(roles[7] == "ffn_down: blocks.0.ffn.down.weight blocks.1.ffn.down.weight");
  BOOST_TEST(blocks_of<small>(by::matrices).size() == 15u);
  BOOST_TEST(blocks_of<small>(by::matrices)[14] ==
             "blocks.1.ffn.down.weight: blocks.1.ffn.down.weight");
  // Roles of a stack of two kinds, of an encoder with its head, and of a model with few roles.
  const auto t5 = blocks_of<ln::t5<tiny_t5_shape>>(by::roles);
  BOOST_TEST(t5[1].starts_with("attention_q: encoder."));
  BOOST_TEST(t5[1].find(" decoder.") != std::string::npos);
  const auto encoder = blocks_of<ln::encoder<tiny_encoder_shape>>(by::roles);
  BOOST_TEST(encoder[0].starts_with("embedding: "));
  const auto recurrent = blocks_of<ln::rwkv4<tiny_decoder_shape>>(by::roles);
  BOOST_TEST(std::ssize(recurrent) >= 2);
  BOOST_TEST(recurrent[1].starts_with("rest: "));
}

/// Two texts for two subsets.
struct two_texts {
  decoder_tokens first{1, 5, 11, 1}, second{1, 5, 11, 7};
  ln::decoder_batch operator()(index i) const {
    return i < 2 ? (i == 0 ? first : second).view() : ln::decoder_batch{};
  }
};

/// Second differences of the mean loss by some weights.
dense differences(const std::vector<double*>& at_weights, const auto& loss) {
  const index n = std::ssize(at_weights);
  dense h{n};
  const double step = 5e-5;
  for (index i = 0; i < n; ++i)
    for (index j = 0; j <= i; ++j) {
      double sum = 0;
      double &x = *at_weights[at(i)], &y = *at_weights[at(j)];
      const double x_kept = x, y_kept = y;
      for (const double a : {step, -step})
        for (const double b : {step, -step}) {
          x += a;
          y += b;
          sum += (a < 0 ? -1 : 1) * (b < 0 ? -1 : 1) * loss();
          x = x_kept;
          y = y_kept;
        }
      h.values[at(i * n + j)] = h.values[at(j * n + i)] = sum / (4 * step * step);
    }
  return h;
}

/// All of one role, and one matrix of it, against the loss alone.
BOOST_AUTO_TEST_CASE(second_differences_of_the_loss) {
  ln::weights<small, double> w;
  randomize(w);
  const two_texts text;
  const ln::limits l = text.first.limits();
  const auto found = [&](ln::hessian_blocks by) {
    return ln::hessian_sensitivities(
        w, text, l,
        {.blocks = by, .subsets = 2, .eigenvalue = {.iterations = 100, .tolerance = 1e-8}});
  };
  const auto roles = found(ln::hessian_blocks::roles),
             matrices = found(ln::hessian_blocks::matrices);
  BOOST_REQUIRE(roles && matrices);
  const auto block_of = [](const auto& all, const char* name) {
    const auto one = std::find_if(all->blocks.begin(), all->blocks.end(),
                                  [&](const auto& b) { return b.name == name; });
    BOOST_REQUIRE(one != all->blocks.end());
    return *one;
  };
  const ln::hessian_block role = block_of(roles, "attention_v");
  const ln::hessian_block matrix = block_of(matrices, "blocks.1.attention.v.weight");
  BOOST_TEST((role.role == ln::storage::part::attention_v));
  BOOST_TEST(role.weights == 64);
  BOOST_TEST(matrix.weights == 32);

  auto train = ln::trainer<small, ln::adamw, double>::open(w, l);
  BOOST_REQUIRE(static_cast<bool>(train));
  std::vector<double*> values;
  w.visit([&](const ln::parameter_path& path, const ln::tensor_info& info, auto& leaf) {
    if (path.str().ends_with("attention.v.weight"))
      for (index i = 0; i < info.size(); ++i) values.push_back(values_of(leaf) + i);
  });
  BOOST_TEST_REQUIRE(values.size() == 64u);
  for (index subset = 0; subset < 2; ++subset) {
    const dense all = differences(values, [&] {
      train->refresh();
      return train->evaluate(text(subset)).mean();
    });
    dense second{32};
    for (index i = 0; i < 32; ++i)
      for (index j = 0; j < 32; ++j)
        second.values[at(i * 32 + j)] = all.values[at((32 + i) * 64 + 32 + j)];
    const ln::power_iteration long_way{.iterations = 2000, .tolerance = 1e-12};
    const auto top = ln::top_eigenvalue(64, all, long_way);
    const auto part = ln::top_eigenvalue(32, second, long_way);
    BOOST_TEST_REQUIRE(top.residual < 1e-3 * std::abs(top.value));
    BOOST_TEST_REQUIRE(std::abs(part.value) < 0.99 * std::abs(top.value));
    BOOST_TEST(distance_of(role.eigenvalues[at(subset)], top.value) < 1e-5 * std::abs(top.value));
    BOOST_TEST(distance_of(matrix.eigenvalues[at(subset)], part.value) <
               1e-5 * std::abs(part.value));
  }
  BOOST_TEST(std::abs(role.eigenvalues[0] - role.eigenvalues[1]) > 1e-3);
}

/// Weights in f32 lead nearly to the eigenvalues of those in double; any number of threads gives
/// the same bits, and the weights stay.
BOOST_AUTO_TEST_CASE(single_precision_and_threads) {
  ln::weights<small> w;
  ln::weights<small, double> twice;
  randomize(w);
  ln::each_tensor_of([](const ln::parameter_path&, const ln::tensor_info& info, auto& to,
                        auto& from) { std::copy_n(values_of(from), info.size(), values_of(to)); },
                     twice, w);
  const auto before = w.clone();
  const two_texts text;
  const auto found = [&](const auto& some, int threads, index iterations) {
    ln::limits l = text.first.limits(threads);
    l.run_on = std_threads();
    return ln::hessian_sensitivities(
        some, text, l, {.subsets = 1, .eigenvalue = {.iterations = iterations, .tolerance = 0}});
  };
  const auto one = found(w, 1, 3), three = found(w, 3, 3);
  const auto single = found(w, 1, 40), exact = found(twice, 1, 40);
  BOOST_REQUIRE(one && three && single && exact);
  BOOST_TEST(same_bytes(w, before));
  for (std::size_t i = 0; i < one->blocks.size(); ++i) {
    const std::string& name = one->blocks[i].name;
    BOOST_TEST(same_bits(one->blocks[i].eigenvalues, three->blocks[i].eigenvalues), name);
    const double a = single->blocks[i].sensitivity(), b = exact->blocks[i].sensitivity();
    BOOST_TEST(distance_of(a, b) < 0.003 * b, name);
  }
}

BOOST_AUTO_TEST_CASE(sensitivities_by_hand) {
  ln::hessian_block block;
  block.eigenvalues = {-1, -5, 3};
  BOOST_TEST(block.mean() == -1);
  BOOST_TEST(distance_of(block.deviation(), std::sqrt(32.0 / 3)) < 1e-15);
  BOOST_TEST(distance_of(block.sensitivity(), 1 + std::sqrt(32.0 / 3)) < 1e-15);
}

/// Statistics of which role number i, in the order of visit(), has sensitivity values[i].
ln::hessian_statistics<small> roles_with(const std::vector<double>& values) {
  ln::hessian_statistics<small> stats{ln::hessian_blocks::roles,
                                      ln::detail::blocks_of<small>(ln::hessian_blocks::roles)};
  for (std::size_t i = 0; i < values.size(); ++i) stats.blocks[i].eigenvalues = {values[i]};
  return stats;
}

BOOST_AUTO_TEST_CASE(storages_by_sensitivity) {
  using namespace ln::storage;
  // embedding, q, k, v, o, gate, up, down
  const auto stats = roles_with({7, 1, 2, 6, 3, 4, 5, 8});
  const ln::storage_candidate candidates[] = {
      ln::storage_candidate_of<int8>("storage::int8"),
      ln::storage_candidate_of<int4<0>>("storage::int4<0>"),
      ln::storage_candidate_of<bf16>("storage::bf16"),
  };
  using smallest = int4<0>;
  constexpr index least = ln::weight_bytes<small, smallest>();
  const auto all = ln::allocate_storages(stats, candidates, ln::weight_bytes<small, bf16>());
  BOOST_REQUIRE(static_cast<bool>(all));
  BOOST_TEST(all->bytes == (ln::weight_bytes<small, bf16>()));
  BOOST_TEST(all->per_role == "storage::per_role<storage::bf16>");
  const auto none = ln::allocate_storages(stats, candidates, least);
  BOOST_REQUIRE(static_cast<bool>(none));
  BOOST_TEST(none->bytes == least);
  BOOST_TEST(none->ranking.front().block == "ffn_down");
  BOOST_TEST(none->ranking.back().block == "attention_q");

  // What is spelled is what is counted.
  using chosen = per_role<int4<0>, ffn_down<int8>, embedding<int8>, attention_v<int8>>;
  constexpr index bytes = ln::weight_bytes<small, chosen>();
  for (const index more : {0, 7}) {
    const auto some = ln::allocate_storages(stats, candidates, bytes + more);
    BOOST_REQUIRE(static_cast<bool>(some));
    BOOST_TEST(some->bytes == bytes);
    BOOST_TEST(some->per_role ==
               "storage::per_role<storage::int4<0>, storage::ffn_down<storage::int8>, "
               "storage::embedding<storage::int8>, storage::attention_v<storage::int8>>");
  }
  // For any budget: no block could take more, and what is more sensitive came first.
  constexpr const char* names[] = {"storage::int4<0>", "storage::int8", "storage::bf16"};
  const auto bytes_of = [&](const std::string& role, std::ptrdiff_t storage) {
    index sum = 0, ordinal = 0;
    ln::each_tensor<small>([&](const ln::parameter_path&, const ln::tensor_info& info) {
      for (const auto& block : stats.blocks)
        if (block.name == role &&
            std::count(block.tensors.begin(), block.tensors.end(), ordinal) > 0)
          sum += storage == 0   ? ln::matrix_bytes<int4<0>>(info.rows, info.columns)
                 : storage == 1 ? ln::matrix_bytes<int8>(info.rows, info.columns)
                                : ln::matrix_bytes<bf16>(info.rows, info.columns);
      ++ordinal;
    });
    return sum;
  };
  index before = 0;
  for (index budget = least; budget < least + 900; budget += 13) {
    const auto some = ln::allocate_storages(stats, candidates, budget);
    BOOST_REQUIRE(static_cast<bool>(some));
    BOOST_TEST(some->bytes <= budget);
    index first = least;  // bytes if the blocks so far had int8, and the others int4
    before = (std::max)(before, some->bytes);
    for (const auto& one : some->ranking) {
      const std::ptrdiff_t size =
          std::find(std::begin(names), std::end(names), std::string(one.storage)) - names;
      BOOST_TEST(one.bytes == bytes_of(one.block, size));
      if (size < 2) BOOST_TEST(some->bytes - one.bytes + bytes_of(one.block, size + 1) > budget);
      const index more = first + bytes_of(one.block, 1) - bytes_of(one.block, 0);
      if (more <= budget) {
        first = more;
        BOOST_TEST(size > 0);
      } else {
        BOOST_TEST(size == 0);
      }
    }
  }
  BOOST_TEST(before > least + 500);
}

/// What it allocates is known before.
BOOST_AUTO_TEST_CASE(footprint) {
  ln::weights<small> w;
  randomize(w);
  const two_texts text;
  const ln::limits l = text.first.limits();
  const ln::hessian_options how{.subsets = 1, .eigenvalue = {.iterations = 2}};
  const long used = heap_use_of([&] {
                      BOOST_TEST(static_cast<bool>(ln::hessian_sensitivities(w, text, l, how)));
                    }).bytes;
  const index planned = ln::hessian_footprint<small>(l, how);
  // Each block has vectors of its own, one after the other; the largest has 360 weights.
  BOOST_TEST(used >= planned);
  BOOST_TEST(used < planned + 2 * 8 * (360 + 88) + 8192);
}

/// Every refusal is one sentence that names what is wrong.
BOOST_AUTO_TEST_CASE(refusals) {
  ln::weights<small> w;
  randomize(w);
  two_texts text;
  const ln::limits l = text.first.limits();
  const auto why = [&](const ln::hessian_options& how) {
    const auto s = ln::hessian_sensitivities(w, text, l, how);
    return s ? std::string() : s.error().message();
  };
  BOOST_TEST(why({.subsets = 2, .batches = 2}) ==
             "hessian_sensitivities: batches: expected 4 (hessian_options.subsets times "
             "hessian_options.batches), got 2");
  BOOST_TEST(why({.eigenvalue = {.iterations = 0}}) ==
             "hessian_sensitivities: hessian_options.eigenvalue.iterations: expected at least 1, "
             "got 0");
  text.first.inputs[3] = 11;
  BOOST_TEST(why({}).starts_with(
      "hessian_sensitivities: batch 0: expected one that the model and the limits take, got a "
      "token is outside the vocabulary"));
  text.first.inputs[3] = 1;
  std::fill(text.first.labels.begin(), text.first.labels.end(), ln::ignored);
  BOOST_TEST(why({}) == "hessian_sensitivities: batch 0: expected a label, got none");
  text.first.labels = text.second.labels;
  w.visit([&](const ln::parameter_path& path, const ln::tensor_info&, auto& leaf) {
    if (path.str() == "norm.weight") std::fill_n(values_of(leaf), 8, 3.4e38f);
  });
  BOOST_TEST(why({}) ==
             "hessian_sensitivities: embedding.weight: expected a finite gradient, got a NaN or an "
             "infinity");

  const auto stats = roles_with({7, 1, 2, 6, 3, 4, 5, 8});
  const std::vector<ln::storage_candidate> candidates(
      5, ln::storage_candidate_of<ln::storage::int8>("storage::int8"));
  const auto chosen = [&](const auto& some, index count, index budget) {
    const auto s = ln::allocate_storages(some, std::span(candidates).first(at(count)), budget);
    return s ? std::string() : s.error().message();
  };
  constexpr index bytes = ln::weight_bytes<small, ln::storage::int8>();
  BOOST_TEST(chosen(stats, 1, bytes) == "");
  BOOST_TEST(chosen(stats, 1, bytes - 1) ==
             "allocate_storages: budget: expected at least " + std::to_string(bytes) +
                 " bytes, those of storage::int8, got " + std::to_string(bytes - 1));
  BOOST_TEST(chosen(stats, 5, bytes) ==
             "allocate_storages: candidates: expected 1 to 4 storages, as many as a per_role<> "
             "takes, got 5");
  BOOST_TEST(chosen(stats, 0, bytes).starts_with("allocate_storages: candidates: "));
  BOOST_TEST(chosen(ln::hessian_statistics<small>{}, 1, bytes) ==
             "allocate_storages: blocks: expected what hessian_sensitivities() returns, got none");
}

}  // namespace

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::hessian_test
