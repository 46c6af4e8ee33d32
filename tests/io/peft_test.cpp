// SPDX-License-Identifier: MIT
// Adapters in PEFT's directories: one that PEFT saved computes and learns as it does there, what is
// saved is loaded again, and what would compute something else is refused.

#include <filesystem>

#include "support/golden.hpp"

#if __has_include(<xxhash.h>)
#include <linnet/checkpoint.hpp>
#endif

namespace test::peft_test {

namespace {

template <class M>
using adapted_of =
    ln::adapted<M, ln::lora<3, ln::target_modules<"attention.q", "attention.v", "ffn.down">>>;

/// The fixture's base, and the adapter that PEFT saved.
template <class M>
struct loaded {
  using A = adapted_of<M>;
  golden_case<M> c{"llama_gqa_untied"};
  ln::packed<M, double> base = ln::pack(c.template weights<double>());
  ln::weights<A, double> adapter;

  loaded() {
    auto made = ln::adapt<typename A::method>(base);
    LINNET_REQUIRE_OK(made);
    adapter = std::move(*made);
    LINNET_REQUIRE_OK(ln::load_peft(adapter, golden("peft_llama")));
  }
};

/// Logits, loss, gradients and steps of an adapter, as PyTorch and PEFT have them.
template <class M>
void check_golden_adapter() {
  loaded<M> l;
  using A = typename loaded<M>::A;
  BOOST_TEST(l.adapter.tree().base.how.alpha == 5);
  BOOST_TEST(l.adapter.tree().base.how.rslora);
  BOOST_TEST(l.adapter.tree().base.how.dropout == 0.1);
  l.adapter.tree().base.how.dropout = 0;
  auto expected = ln::read_safetensors(golden("peft_llama/expected.safetensors"));
  LINNET_REQUIRE_OK(expected);
  const auto numbers = [&](const std::string& name) {
    auto values = expected->values<double>(name);
    LINNET_REQUIRE_OK(values);
    return *values;
  };
  auto train = ln::trainer<A, ln::adamw, double>::open(
      l.adapter, l.c.limits(), {ln::schedule::constant(1e-2), 0.9, 0.95, 1e-8, 0.1});
  LINNET_REQUIRE_OK(train);
  std::vector<double> logits(at(l.c.batch * l.c.target_length * M::vocabulary));
  (void)train->evaluate(l.c.view(), logits);
  const auto want = numbers("logits");
  double worst = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const index row = static_cast<index>(i) / M::vocabulary;
    if (row % l.c.target_length < l.c.lengths[at(row / l.c.target_length)])
      worst = (std::max)(worst, std::abs(want[i] - logits[i]));
  }
  BOOST_TEST(worst <= 1e-11);
  const ln::loss_sum sum = train->accumulate(l.c.view());
  BOOST_TEST(std::abs(sum.mean() - numbers("loss")[0]) <= 1e-12);
  // The file's gradients as weights of the adapter, under the names that PEFT gives them.
  ln::weights<A, double> slopes;
  auto parts = ln::detail::peft_parts(slopes);
  LINNET_REQUIRE_OK(ln::detail::load_parts(*expected, parts, "grad.", ln::nonfinite::refuse,
                                           [](std::string_view) { return false; }));
  double size = 0, error = 0;
  ln::each_tensor_of(
      [&](const ln::parameter_path&, const ln::tensor_info& info, const auto& a, const auto& b) {
        for (index i = 0; i < info.size(); ++i) {
          const double got = a[i] / static_cast<double>(sum.tokens);
          error = (std::max)(error, std::abs(got - ln::detail::numbers_in(b)[i]));
          size = (std::max)(size, std::abs(got));
        }
      },
      train->gradient(), slopes);
  BOOST_TEST(size > 0);
  BOOST_TEST(error <= 1e-9 * size, error << " of " << size);
  train->update();
  const auto losses = numbers("adamw_losses");
  for (std::size_t i = 1; i < losses.size(); ++i) {
    const double loss =
        i + 1 < losses.size() ? train->step(l.c.view()) : train->evaluate(l.c.view()).mean();
    BOOST_TEST(std::abs(loss - losses[i]) <= 1e-7, "step " << i << ": " << loss - losses[i]);
  }
}

/// Writes a file without what it says of options and base, as older versions did.
void forget_notes(const std::string& from, const std::string& to) {
  const auto file = ln::read_safetensors(from);
  LINNET_REQUIRE_OK(file);
  ln::file_metadata notes = file->metadata();
  for (const char* key : {"alpha", "rslora", "linnet.base"}) BOOST_TEST(notes.erase(key) == 1u);
  std::vector<ln::named_tensor> tensors;
  for (const auto& one : file->tensors())
    tensors.push_back({one.name, one.type, {one.shape().begin(), one.shape().end()}, one.data});
  LINNET_REQUIRE_OK(ln::write_safetensors(to, tensors, notes));
}
/// linnet's own file of an adapter is loaded with the options and the base that it was saved with,
/// and refused with others. One that says nothing of them is loaded.
template <class Method, class Base>
void check_own_file(const Base& base, const Base& changed) {
  const scratch_folder folder;
  const std::string path = folder.path("own"), old = folder.path("old");
  const ln::lora_options how{.alpha = 16, .rslora = true, .dropout = 0.5};
  const auto adapter = [](const Base& to, const ln::lora_options& with, std::uint64_t seed) {
    auto made = ln::adapt<Method>(to, with, ln::seed{seed});
    LINNET_REQUIRE_OK(made);
    return std::move(*made);
  };
  const auto saved = adapter(base, how, 1);
  LINNET_REQUIRE_OK(ln::save_safetensors(saved, path));
  forget_notes(path, old);
  auto other = adapter(base, {}, 2);
  BOOST_TEST(message(ln::load_safetensors(other, path)) ==
             path + ": alpha: expected 8 (the adapter's lora_options), got 16");
  other = adapter(base, {.alpha = 16}, 2);
  BOOST_TEST(message(ln::load_safetensors(other, path)) ==
             path + ": rslora: expected false (the adapter's lora_options), got true");
  BOOST_TEST(!same_bytes(other, saved));
  LINNET_REQUIRE_OK(ln::load_safetensors(other, old));
  BOOST_TEST(same_bytes(other, saved));
  other = adapter(base, {.alpha = 16, .rslora = true}, 2);  // dropout is of training
  LINNET_REQUIRE_OK(ln::load_safetensors(other, path));
  BOOST_TEST(same_bytes(other, saved));
  auto elsewhere = adapter(changed, how, 2);
  const auto refused = ln::load_safetensors(elsewhere, path);
  BOOST_REQUIRE(!refused);
  BOOST_TEST((refused.error().code == ln::errc::mismatch));
  BOOST_TEST(refused.error().what == "linnet.base");
  LINNET_REQUIRE_OK(
      ln::load_safetensors(elsewhere, path, {}, ln::nonfinite::keep, ln::peft_base::any));
  LINNET_REQUIRE_OK(ln::load_safetensors(elsewhere, old));
  BOOST_TEST(same_bytes(elsewhere, saved));
  // The base is read for a hash that is compared, and for nothing else.
  static int reads = 0;
  reads = 0;
  elsewhere.tree().base.mark = [](const void*) { return std::uint64_t(++reads); };
  LINNET_REQUIRE_OK(ln::load_safetensors(elsewhere, old));
  LINNET_REQUIRE_OK(
      ln::load_safetensors(elsewhere, path, {}, ln::nonfinite::keep, ln::peft_base::any));
  BOOST_TEST(reads == 0);
  BOOST_TEST(!ln::load_safetensors(elsewhere, path));
  BOOST_TEST(reads == 1);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(peft)

BOOST_AUTO_TEST_CASE(of_peft) { check_golden_adapter<llama_gqa>(); }
BOOST_AUTO_TEST_CASE(of_peft_with_interleaved_pairs) {
  check_golden_adapter<llama_gqa_interleaved>();
}

// What is saved is loaded again, with its options, and is byte for byte the same when saved anew.
BOOST_AUTO_TEST_CASE(saved_and_loaded) {
  const scratch_folder folder;
  loaded<llama_gqa> l;
  using A = loaded<llama_gqa>::A;
  LINNET_REQUIRE_OK(ln::save_peft(l.adapter, folder.path(), "some/base"));
  auto other = ln::adapt<A::method>(l.base);
  LINNET_REQUIRE_OK(other);
  LINNET_REQUIRE_OK(ln::load_peft(*other, folder.path()));
  BOOST_TEST(same_bytes(*other, l.adapter));
  BOOST_TEST(other->tree().base.how.alpha == 5);
  BOOST_TEST(other->tree().base.how.rslora);
  const std::string config = contents(folder.path() + "/adapter_config.json");
  for (const char* text :
       {"\"r\": 3", "\"target_modules\": [\"q_proj\", \"v_proj\", \"down_proj\"]",
        "\"base_model_name_or_path\": \"some/base\""})
    BOOST_TEST(config.find(text) != config.npos, text);
  const auto theirs = ln::read_safetensors(golden("peft_llama/adapter_model.safetensors"));
  const auto ours = ln::read_safetensors(folder.path() + "/adapter_model.safetensors");
  BOOST_REQUIRE(theirs && ours && theirs->tensors().size() == ours->tensors().size());
  for (std::size_t i = 0; i < ours->tensors().size(); ++i)
    BOOST_TEST(ours->tensors()[i].name == theirs->tensors()[i].name);

  // Matrices whose last name others have, too, are named whole.
  const auto whole =
      ln::detail::peft_targets<ln::adapted<t5_1_0, ln::lora<1, ln::target_modules<"cross.q">>>>();
  BOOST_TEST(whole[0] == "decoder.block.0.layer.1.EncDecAttention.q");

  // Another base is noticed, and may be meant.
  auto w = l.c.weights<double>();
  w.tree().norm.weight[0] += 1;
  const auto changed = ln::pack(w);
  auto elsewhere = ln::adapt<A::method>(changed);
  LINNET_REQUIRE_OK(elsewhere);
  const auto refused = ln::load_peft(*elsewhere, folder.path());
  BOOST_REQUIRE(!refused);
  BOOST_TEST((refused.error().code == ln::errc::mismatch));
  BOOST_TEST(refused.error().what == "linnet.base");
  LINNET_REQUIRE_OK(ln::load_peft(*elsewhere, folder.path(), ln::peft_base::any));
  ln::weights<A, double> nobodys;
  BOOST_TEST(!ln::load_peft(nobodys, folder.path()));
}

BOOST_AUTO_TEST_CASE(own_files) {
  const golden_case<llama_gqa> c("llama_gqa_untied");
  auto w = c.weights<double>();
  const auto base = ln::pack(w);
  w.tree().norm.weight[0] += 1;
  const auto changed = ln::pack(w);
  check_own_file<loaded<llama_gqa>::A::method>(base, changed);
  check_own_file<ln::dynamic_lora<2, 1, 1, ln::target_modules<"attention.q">>>(base, changed);
}
// Of GPT-2, too, whose queries need no common A there.
BOOST_AUTO_TEST_CASE(own_files_of_fused_maps) {
  const golden_case<gpt2> c("gpt2");
  auto w = c.weights<double>();
  const auto base = ln::pack(w);
  w.tree().norm.weight[0] += 1;
  const auto changed = ln::pack(w);
  check_own_file<ln::lora<1, ln::target_modules<"q", "ffn.wo">>>(base, changed);
}

#if __has_include(<xxhash.h>)
// A checkpoint is the adapter with its moments, and training goes on from it with the same bits.
BOOST_AUTO_TEST_CASE(checkpoints) {
  const scratch_folder folder;
  loaded<llama_gqa> one, two;
  using A = loaded<llama_gqa>::A;
  using trainer = ln::trainer<A, ln::adamw, double>;
  auto first = trainer::open(one.adapter, one.c.limits());
  LINNET_REQUIRE_OK(first);
  for (int i = 0; i < 2; ++i) (void)first->step(one.c.view());
  const std::string path = folder.path("run");
  LINNET_REQUIRE_OK(ln::save_checkpoint(path, *first));
  const auto size = static_cast<index>(std::filesystem::file_size(path));
  BOOST_TEST(size > 3 * 8 * A::parameters());
  constexpr index tensors = ln::weights<A, double>::bytes();
  BOOST_TEST(size < 3 * tensors + 4096);
  randomize(two.adapter, 9);
  auto second = trainer::open(two.adapter, two.c.limits());
  LINNET_REQUIRE_OK(second);
  LINNET_REQUIRE_OK(ln::load_checkpoint(path, *second));
  for (int i = 0; i < 2; ++i) BOOST_TEST(first->step(one.c.view()) == second->step(two.c.view()));
  BOOST_TEST(same_bytes(one.adapter, two.adapter));

  // With other options or another base it is refused, unless it says nothing of them, as older
  // ones.
  const auto bytes = ln::read_file(path);
  LINNET_REQUIRE_OK(bytes);
  const auto file = ln::detail::parse_sections(*bytes, path);
  LINNET_REQUIRE_OK(file);
  auto notes = file->metadata;
  BOOST_TEST(std::erase_if(notes, [](const auto& note) {
               return note.key == "alpha" || note.key == "rslora" || note.key == "linnet.base";
             }) == 3u);
  LINNET_REQUIRE_OK(ln::detail::write_checkpoint_file(folder.path("old"), notes, file->sections));
  auto w = one.c.weights<double>();
  w.tree().norm.weight[0] += 1;
  const auto changed = ln::pack(w);
  const auto said = [&](const auto& base, const ln::lora_options& how, const std::string& from) {
    auto made = ln::adapt<A::method>(base, how);
    LINNET_REQUIRE_OK(made);
    auto train = trainer::open(*made, one.c.limits());
    LINNET_REQUIRE_OK(train);
    return message(ln::load_checkpoint(from, *train));
  };
  const ln::lora_options same{.alpha = 5, .rslora = true};
  BOOST_TEST(said(one.base, same, path) == "success");
  BOOST_TEST(said(one.base, {.alpha = 4, .rslora = true}, path) ==
             path + ": alpha: expected 4 (the adapter's lora_options), got 5");
  const std::string other = said(changed, same, path);
  BOOST_TEST(other.starts_with(path + ": linnet.base: expected the hash of the adapter's base, "),
             other);
  BOOST_TEST(other.find(" (training goes on with its own base alone), got ") != other.npos, other);
  BOOST_TEST(said(changed, {}, folder.path("old")) == "success");
}
#endif

// One A of GPT-2's c_attn becomes that of queries, keys and values; logits are those of a model
// that NumPy computes (tests/reference/make_peft_gpt2.py). What has unlike ones is not written.
BOOST_AUTO_TEST_CASE(fused_queries_keys_and_values) {
  using method = ln::lora<2, ln::target_modules<"q", "k", "v", "ffn.wo">>;
  using A = ln::adapted<gpt2, method>;
  const golden_case<gpt2> c("gpt2");
  const auto base = ln::pack(c.weights<double>());
  auto made = ln::adapt<method>(base);
  LINNET_REQUIRE_OK(made);
  const scratch_folder saved;
  const auto fresh = ln::save_peft(*made, saved.path());
  BOOST_REQUIRE(!fresh);
  BOOST_TEST(fresh.error().message() ==
             "save_peft: target_modules: expected one lora_A for q, k and v, as PEFT has of GPT-2 "
             "(save_safetensors() keeps others), got unlike ones");
  LINNET_REQUIRE_OK(ln::load_peft(*made, golden("peft_gpt2")));
  auto expected = ln::read_safetensors(golden("peft_gpt2/expected.safetensors"));
  LINNET_REQUIRE_OK(expected);
  const auto want = expected->values<double>("logits");
  LINNET_REQUIRE_OK(want);
  const auto packed = ln::pack(*made);
  auto e = ln::evaluator<A, double>::open(packed, c.limits());
  LINNET_REQUIRE_OK(e);
  std::vector<double> logits(want->size());
  BOOST_REQUIRE(ln::is_finite(e->loss(c.view(), logits).nats));
  double worst = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const index row = static_cast<index>(i) / gpt2::vocabulary;
    if (row % c.target_length < c.lengths[at(row / c.target_length)])
      worst = (std::max)(worst, std::abs((*want)[i] - logits[i]));
  }
  BOOST_TEST(worst <= 1e-11, worst);

  // Written again, it is the same file.
  LINNET_REQUIRE_OK(ln::save_peft(*made, saved.path()));
  const auto theirs = ln::read_safetensors(golden("peft_gpt2/adapter_model.safetensors"));
  const auto ours = ln::read_safetensors(saved.path("adapter_model.safetensors"));
  BOOST_REQUIRE(theirs && ours && ours->tensors().size() == theirs->tensors().size());
  for (const auto& one : theirs->tensors())
    BOOST_TEST(*theirs->values<double>(one.name) == *ours->values<double>(one.name));
  const std::string config = contents(saved.path("adapter_config.json"));
  BOOST_TEST(config.find("\"fan_in_fan_out\": true") != config.npos);

  auto part = ln::adapt<ln::lora<2, ln::target_modules<"q", "v">>>(base);
  LINNET_REQUIRE_OK(part);
  BOOST_TEST(message(ln::load_peft(*part, golden("peft_gpt2"))) ==
             "load_peft: target_modules: expected q, k and v together or none of them, as PEFT has "
             "one adapter for all three of GPT-2, got 2 of them");
}

// Deltas of each Conv1D of GPT-2 under PEFT's names. A Conv1D keeps W as [in, out], so that a
// merged one is W + s (B A)^T in the file.
BOOST_AUTO_TEST_CASE(deltas_of_conv1d) {
  const golden_case<gpt2> c("gpt2");
  auto w = c.weights<double>();
  const auto base = ln::pack(w);
  const auto plain = ln::read_safetensors(golden("gpt2/model.safetensors"));
  LINNET_REQUIRE_OK(plain);
  struct delta {
    std::string name;
    index in, out;
    std::vector<float> a, b;  // [2, in] and [out, 2]
  };
  std::vector<delta> deltas;
  for (const auto& one : plain->tensors()) {
    const std::string name(one.name);
    if (name.find(".c_") == name.npos || !name.ends_with(".weight")) continue;
    delta made{name.substr(0, name.size() - 7), one.shape()[0], one.shape()[1], {}, {}};
    const auto small = [&](index i, index step) {
      return static_cast<float>((i * step + std::ssize(deltas) * 7) % 41 - 20) / 64;
    };
    for (index i = 0; i < 2 * made.in; ++i) made.a.push_back(small(i, 13));
    for (index i = 0; i < 2 * made.out; ++i) made.b.push_back(small(i, 17));
    deltas.push_back(std::move(made));
  }
  BOOST_TEST(deltas.size() == 8u);  // c_attn, c_proj, c_fc and c_proj of two blocks
  const auto write = [&](const std::string& folder, const ln::file_metadata& notes) {
    std::vector<ln::named_tensor> tensors;
    for (const delta& one : deltas) {
      const std::string name = "base_model.model." + one.name;
      tensors.push_back(
          {name + ".lora_A.weight", ln::dtype::f32, {2, one.in}, std::as_bytes(std::span(one.a))});
      tensors.push_back(
          {name + ".lora_B.weight", ln::dtype::f32, {one.out, 2}, std::as_bytes(std::span(one.b))});
    }
    LINNET_REQUIRE_OK(ln::write_safetensors(folder + "/adapter_model.safetensors", tensors, notes));
  };
  const scratch_folder given, saved, merged;
  write(given.path(), {{"format", "pt"}});
  const std::string config =
      "{\"peft_type\": \"LORA\", \"task_type\": \"CAUSAL_LM\", \"r\": 2, \"lora_alpha\": 6,"
      " \"fan_in_fan_out\": true, \"bias\": \"none\","
      " \"target_modules\": [\"c_attn\", \"c_proj\", \"c_fc\"]}";
  LINNET_REQUIRE_OK(ln::write_file(given.path("adapter_config.json"), bytes(config)));
  auto made = ln::adapt<ln::lora<2>>(base);
  LINNET_REQUIRE_OK(made);
  LINNET_REQUIRE_OK(ln::load_peft(*made, given.path()));
  BOOST_TEST(made->tree().base.how.alpha == 6);
  LINNET_REQUIRE_OK(ln::merge(w, *made));
  LINNET_REQUIRE_OK(ln::save_hugging_face(w, merged.path()));
  const auto sums = ln::read_safetensors(merged.path("model.safetensors"));
  LINNET_REQUIRE_OK(sums);
  double worst = 0;
  for (const delta& one : deltas) {
    const auto before = *plain->values<double>(one.name + ".weight"),
               after = *sums->values<double>(one.name + ".weight");
    BOOST_REQUIRE(before.size() == after.size());
    for (index i = 0; i < one.in; ++i)
      for (index o = 0; o < one.out; ++o) {
        double sum = 0;
        for (index r = 0; r < 2; ++r)
          sum += static_cast<double>(one.b[at(o * 2 + r)]) *
                 static_cast<double>(one.a[at(r * one.in + i)]);
        worst = (std::max)(worst, std::abs(after[at(i * one.out + o)] -
                                           before[at(i * one.out + o)] - 6.0 / 2 * sum));
      }
  }
  BOOST_TEST(worst <= 1e-14, worst);

  // What linnet writes of it has PEFT's names and numbers, and a note of the base.
  LINNET_REQUIRE_OK(ln::save_peft(*made, saved.path(), "gpt2"));
  const auto ours = ln::read_safetensors(saved.path("adapter_model.safetensors"));
  LINNET_REQUIRE_OK(ours);
  BOOST_TEST(ours->tensors().size() == 16u);
  for (const delta& one : deltas) {
    const std::string name = "base_model.model." + one.name;
    BOOST_TEST(*ours->values<float>(name + ".lora_A.weight") == one.a);
    BOOST_TEST(*ours->values<float>(name + ".lora_B.weight") == one.b);
  }
  BOOST_TEST(ours->metadata().count("linnet.base") == 1u);
  const std::string own = contents(saved.path("adapter_config.json"));
  for (const char* text : {"\"target_modules\": [\"c_attn\", \"c_proj\", \"c_fc\"]",
                           "\"fan_in_fan_out\": true", "\"lora_alpha\": 6"})
    BOOST_TEST(own.find(text) != own.npos, text << " in " << own);

  // On the merged base the note tells; PEFT's own file has none.
  const auto other = ln::pack(w);
  auto elsewhere = ln::adapt<ln::lora<2>>(other);
  LINNET_REQUIRE_OK(elsewhere);
  const auto refused = ln::load_peft(*elsewhere, saved.path());
  BOOST_REQUIRE(!refused);
  BOOST_TEST((refused.error().code == ln::errc::mismatch));
  BOOST_TEST(refused.error().what == "linnet.base");
  LINNET_REQUIRE_OK(ln::load_peft(*elsewhere, saved.path(), ln::peft_base::any));
  LINNET_REQUIRE_OK(ln::load_peft(*elsewhere, given.path()));
  BOOST_TEST(same_bytes(*elsewhere, *made));
  write(given.path(), {{"format", "pt"}, {"linnet.base", "7"}});
  BOOST_TEST(!ln::load_peft(*elsewhere, given.path()));

  // One of the three maps of c_attn has no delta of its own in PEFT's files.
  deltas[0].b.resize(at(deltas[0].out * 2 / 3 * 2));
  deltas[0].out = deltas[0].out * 2 / 3;
  write(given.path(), {});
  const auto short_b = ln::load_peft(*elsewhere, given.path());
  BOOST_REQUIRE(!short_b);
  BOOST_TEST((short_b.error().code == ln::errc::mismatch));
  BOOST_TEST(short_b.error().what == "base_model.model." + deltas[0].name + ".lora_B.weight");
  BOOST_TEST(same_bytes(*elsewhere, *made));
}

// Options that change the mathematics are refused by their names.
BOOST_AUTO_TEST_CASE(refusals) {
  const scratch_folder folder;
  loaded<llama_gqa> l;
  LINNET_REQUIRE_OK(ln::save_peft(l.adapter, folder.path()));
  const std::string path = folder.path() + "/adapter_config.json", good = contents(path);
  const auto complaint = [&](std::string_view from, std::string_view to) {
    LINNET_REQUIRE_OK(ln::write_file(path, bytes(replaced(good, from, to))));
    return message(ln::load_peft(l.adapter, folder.path()));
  };
  const auto refuses = [&](std::string_view from, std::string_view to, std::string_view field) {
    const std::string said = complaint(from, to);
    BOOST_TEST(said.find(": " + std::string(field) + ": expected ") != said.npos, said);
  };
  refuses("\"use_dora\": false", "\"use_dora\": true", "use_dora");
  refuses("\"bias\": \"none\"", "\"bias\": \"lora_only\"", "bias");
  refuses("\"modules_to_save\": null", "\"modules_to_save\": [\"lm_head\"]", "modules_to_save");
  refuses("\"fan_in_fan_out\": false", "\"fan_in_fan_out\": true", "fan_in_fan_out");
  refuses("\"use_dora\": false", "\"alpha_pattern\": {\"q_proj\": 4}", "alpha_pattern");
  refuses("\"use_dora\": false", "\"lora_bias\": true", "lora_bias");
  refuses("\"use_dora\": false", "\"layer_replication\": [[0, 4]]", "layer_replication");
  refuses("\"use_dora\": false", "\"what_is_this\": 3", "what_is_this");
  refuses("\"init_lora_weights\": true", "\"init_lora_weights\": \"pissa\"", "init_lora_weights");
  refuses("\"peft_type\": \"LORA\"", "\"peft_type\": \"LOHA\"", "peft_type");
  refuses("\"peft_type\": \"LORA\",", "", "peft_type");
  refuses("\"r\": 3", "\"r\": 4", "r");
  refuses("\"lora_alpha\": 5", "\"lora_alpha\": \"5\"", "lora_alpha");
  refuses("\"lora_alpha\": 5", "\"lora_alpha\": -5", "lora_options.alpha");
  refuses("\"use_dora\": false", "\"use_rslora\": true", "use_rslora");  // twice
  // Empty or false it says nothing.
  BOOST_TEST(complaint("\"use_dora\": false", "\"alpha_pattern\": {}, \"lora_bias\": false") ==
             "success");
  // Deltas of an embedding.
  const scratch_folder more_folder;
  const auto saved = ln::read_safetensors(folder.path("adapter_model.safetensors"));
  LINNET_REQUIRE_OK(saved);
  std::vector<ln::named_tensor> tensors;
  for (const auto& one : saved->tensors())
    tensors.push_back({one.name, one.type, {one.shape().begin(), one.shape().end()}, one.data});
  const std::string name = "base_model.model.model.embed_tokens.lora_embedding_A",
                    file = more_folder.path("adapter_model.safetensors");
  tensors.push_back({name, ln::dtype::f32, {0, 3}, {}});
  LINNET_REQUIRE_OK(ln::write_safetensors(file, tensors));
  LINNET_REQUIRE_OK(ln::write_file(more_folder.path("adapter_config.json"), bytes(good)));
  BOOST_TEST(message(ln::load_peft(l.adapter, more_folder.path())) ==
             file + ": " + name + ": expected only tensors of the model type, got F32 [0, 3]");
  // Tensors of an adapter of other matrices.
  using few = ln::adapted<llama_gqa, ln::lora<3, ln::target_modules<"attention.q">>>;
  auto smaller = ln::adapt<few::method>(l.base);
  LINNET_REQUIRE_OK(smaller);
  const auto more = ln::load_peft(*smaller, folder.path());
  BOOST_REQUIRE(!more);
  BOOST_TEST((more.error().code == ln::errc::mismatch));
  auto larger = ln::adapt<ln::lora<3>>(l.base);
  LINNET_REQUIRE_OK(larger);
  const auto lacking = ln::load_peft(*larger, folder.path());
  BOOST_REQUIRE(!lacking);
  BOOST_TEST((lacking.error().code == ln::errc::missing));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::peft_test
