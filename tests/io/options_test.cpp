// SPDX-License-Identifier: MIT
// docs/options.md against the library: every field's default and range, and what is opened, or
// not, with values at and beyond their ends.

#include <fstream>
#include <functional>
#include <linnet/compression.hpp>
#include <map>
#include <sstream>

#if defined(LINNET_TEST_XXHASH)
#include <linnet/cached_logits.hpp>
#endif

#include "support/data.hpp"
#include "support/decoding.hpp"
#include "support/encoders.hpp"

namespace test::options_test {

namespace {

using M = ln::decoder<four_tokens>;

/// A rule as a reader understands it.
struct rule {
  double least = -std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();
  bool above = false, below = false, whole = false;

  bool accepts(double x) const {
    return ln::is_finite(x) && (above ? x > least : x >= least) && (below ? x < most : x <= most);
  }
};
/// A row of the document: | `name` | default | `rule` | remark |.
struct row {
  std::string fallback, text;
  bool checked = false;
};

std::vector<std::string> cells_of(const std::string& line) {
  std::vector<std::string> cells;
  std::istringstream in(line);
  std::string cell;
  std::getline(in, cell, '|');
  while (std::getline(in, cell, '|')) {
    cell.erase(0, cell.find_first_not_of(" `"));
    cell.erase(cell.find_last_not_of(" `") + 1);
    cells.push_back(cell);
  }
  return cells;
}
std::map<std::string, row> documented() {
  std::map<std::string, row> rows;
  std::ifstream in(std::string(LINNET_TEST_DIR) + "/../docs/options.md");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("| `")) {
      const auto cells = cells_of(line);
      BOOST_REQUIRE(cells.size() >= 4);
      BOOST_TEST(rows.emplace(cells[0], row{cells[1], cells[2]}).second, cells[0]);
    }
  BOOST_TEST(rows.size() > 50);
  return rows;
}
/// Reads a rule in words that the document explains.
rule parse(const std::string& text) {
  rule r;
  if (text == "any finite number") return r;
  if (const auto comma = text.find(", finite"); comma != std::string::npos)
    return parse(text.substr(0, comma));
  if (text.starts_with("above ")) {
    r.least = std::stod(text.substr(6));
    r.above = true;
  } else if (text.starts_with("at least ")) {
    r.least = std::stod(text.substr(9));
  } else if (const auto first = text.find(" <"); first != std::string::npos) {
    const auto last = text.rfind(" <");
    r.least = std::stod(text);
    r.above = text[first + 2] != '=';
    r.below = text[last + 2] != '=';
    r.most = std::stod(text.substr(text.find(' ', last + 1)));
  } else {  // names
    r.least = 0;
    r.most = static_cast<double>(std::count(text.begin(), text.end(), ','));
    r.whole = true;
  }
  return r;
}

template <class Value>
std::string text_of(const Value& x, const ln::detail::option_range& r) {
  if constexpr (std::is_same_v<Value, ln::dropout_schedule>)
    return ln::detail::number_text(x.at(1));
  else if constexpr (requires { x.begin(); })
    return ln::detail::number_text(x[0]) + ", each";
  else
    return r.names ? r.names[static_cast<int>(x)] : ln::detail::number_text(static_cast<double>(x));
}
template <class Value>
constexpr bool is_whole = std::is_integral_v<Value> || std::is_enum_v<Value>;

/// Sets a field if its type has the value.
template <class Value>
bool set(Value& to, double x) {
  if constexpr (std::is_same_v<Value, bool>) {
    if (x != 0 && x != 1) return false;
    to = x == 1;
  } else if constexpr (is_whole<Value>) {
    if (!ln::is_finite(x) || x != std::floor(x) || std::abs(x) > 9e18 ||
        (std::is_unsigned_v<Value> && x < 0) || (sizeof(Value) < 8 && std::abs(x) > 2e9))
      return false;
    to = static_cast<Value>(static_cast<std::int64_t>(x));
  } else if constexpr (requires { to.begin(); }) {
    to.back() = x;
  } else {
    to = x;
  }
  return true;
}

/// The error of options, if they are refused.
using complaint = std::optional<ln::error>;
template <class Result>
complaint complaint_of(const Result& r) {
  return r ? complaint() : complaint(r.error());
}

std::map<std::string, row> rows;  // of the document

/// Sums of gradients that are all 1.
struct sums_of_gradients {
  struct one {
    index samples = 1;
    bool squares = true;
    double mean(index) const { return 1; }
    double mean_square(index) const { return 1; }
  };
  one of(index) const { return {}; }
};

/// Each field of a struct: its row, its default; values within are accepted by the check of the
/// struct, values beyond are refused by `open`, which names the field behind `prefix`.
template <class Options>
void check(const std::string& name, const std::string& prefix, const Options& usual,
           const std::function<complaint(const Options&)>& open) {
  int fields = 0;
  const Options defaults{};
  Options::visit_options(defaults, [&](const char* field, const auto& value, const auto&... range) {
    const int number = fields++;
    if constexpr (sizeof...(range) == 1) {
      const auto& r = (range, ...);
      const auto found = rows.find(name + "." + field);
      BOOST_REQUIRE_MESSAGE(found != rows.end(), name << "." << field << " | " << text_of(value, r)
                                                      << " | " << r.text(field));
      row& said = found->second;
      said.checked = true;
      BOOST_TEST(said.fallback == text_of(value, r), name << "." << field);
      BOOST_TEST(said.text == r.text(field), name << "." << field);
      const rule want = parse(said.text);
      constexpr double inf = std::numeric_limits<double>::infinity();
      for (const double x : {want.least,
                             want.most,
                             want.least - 1,
                             want.most + 1,
                             std::nextafter(want.least, -inf),
                             std::nextafter(want.least, inf),
                             std::nextafter(want.most, -inf),
                             std::nextafter(want.most, inf),
                             (want.least + want.most) / 2,
                             1.0,
                             0.0,
                             -1e-300,
                             1e-9,
                             -1.0,
                             8e15,
                             1e15,
                             1e15 + 1,
                             inf,
                             -inf,
                             std::nan("")}) {
        Options changed = usual;
        bool can = true;
        int i = 0;
        Options::visit_options(changed, [&](const char*, auto& to, const auto&... its) {
          if constexpr (sizeof...(its) == 1)
            if (i == number) can = set(to, x);
          ++i;
        });
        if (!can) continue;
        constexpr bool counts =
            is_whole<std::remove_cvref_t<decltype(value)>> && sizeof(value) == 8;
        const bool fits = want.accepts(x) && (!counts || x <= 1e15);
        BOOST_TEST(ln::detail::in_range(changed) == fits, name << "." << field << " = " << x);
        const complaint wrong = fits ? complaint() : open(changed);
        BOOST_TEST(wrong.has_value() == !fits, name << "." << field << " = " << x);
        if (!wrong || prefix.empty()) continue;
        BOOST_TEST((wrong->code == ln::errc::invalid));
        BOOST_TEST(wrong->what == prefix + "." + field);
        BOOST_TEST(!wrong->expected.empty());
        BOOST_TEST(wrong->got == ln::detail::number_text(x));
      }
    }
  });
}

}  // namespace

BOOST_AUTO_TEST_SUITE(options)

BOOST_AUTO_TEST_CASE(the_document) {
  rows = documented();
  const auto p = random_packed<M, float>(1);
  auto s = opened(p, {.batch = 4, .target = 8, .max_logits = 3});
  ln::weights<M> w;
  randomize(w);
  const std::vector<token> prompt{1, 2};

  check<ln::sampling_options>("sampling_options", "sampling_options", {}, [](const auto& o) {
    // A sampler that was made without asking finds nothing to choose from.
    ln::sampler made(o);
    std::vector<float> logits{1, 2};
    std::vector<token> order(2);
    std::vector<double> law(2);
    BOOST_TEST(made(std::span(logits), std::span(order)) == ln::no_token);
    made.probabilities(std::span(logits), std::span(order), {}, std::span(law));
    BOOST_TEST(law[0] + law[1] == 0);
    return complaint_of(ln::sampler::open(o));
  });
  check<ln::generation_options>("generation_options", "", {}, [&](const auto& o) {
    return s.generate(
               prompt, ln::greedy{}, [](token) {}, o) == 0
               ? complaint(ln::error{})
               : complaint();
  });
  check<ln::contrast_options>("contrast_options", "contrast_options", {}, [&](const auto& o) {
    BOOST_TEST(!ln::contrast<M>(s, o).reset_and_prefill(prompt));
    return complaint_of(ln::contrast<M>::open(s, o));
  });
  check<ln::beam_options>("beam_options", "beam_options", {}, [&](const auto& o) {
    return complaint_of(ln::beam_search<M>::open(s, o));
  });
  check<ln::limits>("limits", "limits", {.target = 8}, [&](const auto& o) {
    BOOST_TEST((!ln::evaluator<M>::open(p, o) && !ln::trainer<M>::open(w, o)));
    return complaint_of(ln::session<M>::open(p, o));
  });

  const ln::limits l{.target = 8};
  const auto check_optimizer = [&]<class O>(const O&) {
    const std::string name(O::name());
    check<O>(name, name, {},
             [&](const auto& o) { return complaint_of(ln::trainer<M, O>::open(w, l, o)); });
  };
  check_optimizer(ln::adamw{});
  check_optimizer(ln::adafactor{});
  check_optimizer(ln::adamw_8bit{});
  check_optimizer(ln::lion{});
  check_optimizer(ln::sgd{});
  check_optimizer(ln::sophia{});
  check_optimizer(ln::muon{});
  check<ln::weight_average_options>(
      "weight_average_options", "weight_average_options", {},
      [&](const auto& o) { return complaint_of(ln::weight_average<M>::open(o)); });
  check<ln::rate_search_options>("rate_search_options", "rate_search_options", {},
                                 [&](const auto& o) {
                                   return complaint_of(ln::find_learning_rate(
                                       w, [](index) { return ln::decoder_batch{}; }, l, o));
                                 });
  check<ln::schedule>("schedule", "adamw.rate", {}, [&](const auto& o) {
    return complaint_of(ln::trainer<M>::open(w, l, {.rate = o}));
  });
  check<ln::training_options>("training_options", "training_options", {}, [&](const auto& o) {
    return complaint_of(ln::trainer<M>::open(w, l, {}, o));
  });
  check<ln::layer_dropout>(
      "layer_dropout", "training_options.layer_dropout", {}, [&](const auto& o) {
        return complaint_of(ln::trainer<M>::open(w, l, {}, {.layer_dropout = o}));
      });
  check<ln::early_exits>("early_exits", "training_options.early_exits", {}, [&](const auto& o) {
    return complaint_of(ln::trainer<M>::open(w, l, {}, {.early_exits = o}));
  });
  check<ln::distillation_options>(
      "distillation_options", "distillation_options", {},
      [&](const auto& o) { return complaint_of(ln::distillation<M, M>::open(p, l, o)); });

  check<ln::on_policy_options>("on_policy_options", "on_policy_options", {}, [&](const auto& o) {
    return complaint_of(ln::on_policy<M>::open(p, l, o));
  });
  check<ln::minillm_options>("minillm_options", "minillm_options", {}, [&](const auto& o) {
    return complaint_of(ln::minillm<M, M>::open(p, p, l, o));
  });
  check<ln::spin_options>("spin_options", "spin_options", {}, [&](const auto& o) {
    ln::limits two = l;
    two.batch = 2;
    return complaint_of(ln::spin<M>::open(p, two, o));
  });
  check<ln::uld_options>("uld_options", "uld_options", {},
                         [&](const auto& o) { return complaint_of(ln::uld<M, M>::open(p, l, o)); });
  check<ln::relation_options>("relation_options", "relation_options", {}, [&](const auto& o) {
    return complaint_of(ln::relation_distillation<M, M>::open(p, l, o));
  });
  using reader = ln::encoder<tiny_encoder_shape>;
  const auto read = ln::pack(ln::weights<reader>());
  check<ln::distilbert_options>("distilbert_options", "distilbert_options", {}, [&](const auto& o) {
    return complaint_of(ln::distilbert<reader, reader>::open(read, l, o));
  });
  check<ln::layer_distillation_options>(
      "layer_distillation_options", "layer_distillation_options", {},
      [&](const auto& o) { return complaint_of(ln::layer_distillation<M, M>::open(p, l, o)); });
  check<ln::latent_prediction_options>(
      "latent_prediction_options", "latent_prediction_options", {}, [&](const auto& o) {
        return complaint_of(ln::latent_prediction<ln::filtered<M, M::d, 0>>::open(l, o));
      });
  check<ln::attention_distillation_options>(
      "attention_distillation_options", "attention_distillation_options", {}, [&](const auto& o) {
        return complaint_of(ln::attention_distillation<M, M>::open(p, l, {}, o));
      });
  check<ln::token_adaptive_options>(
      "token_adaptive_options", "token_adaptive_options", {},
      [&](const auto& o) { return complaint_of(ln::token_adaptive<M>::open(l, o)); });

  check<ln::lora_options>("lora_options", "lora_options", {}, [&](const auto& o) {
    return complaint_of(ln::adapt<ln::lora<1>>(p, o));
  });

  const auto tokens_of_text = decoder_data<M>(1, 8);
  const auto text = [&](index) { return tokens_of_text.view(); };
  check<ln::calibration_options>(
      "calibration_options", "calibration_options", {},
      [&](const auto& o) { return complaint_of(ln::calibrate(w, text, l, o)); });
  check<ln::sensitivity_options>(
      "sensitivity_options", "sensitivity_options", {},
      [&](const auto& o) { return complaint_of(ln::sensitivities(w, text, l, o)); });
  check<ln::hessian_options>(
      "hessian_options", "hessian_options", {.subsets = 1, .eigenvalue = {.iterations = 1}},
      [&](const auto& o) { return complaint_of(ln::hessian_sensitivities(w, text, l, o)); });
  check<ln::power_iteration>(
      "power_iteration", "hessian_options.eigenvalue", {.iterations = 1}, [&](const auto& o) {
        return complaint_of(ln::hessian_sensitivities(w, text, l, {.subsets = 1, .eigenvalue = o}));
      });
  const auto statistics = ln::calibrate(w, text, l, {.batches = 1, .rows_per_input = 0});
  BOOST_REQUIRE(static_cast<bool>(statistics));
  using centred =
      ln::storage::int8_per<ln::storage::granularity::row, ln::storage::symmetry::asymmetric>;
  check<ln::gptq>("gptq", "gptq", {}, [&](const auto& o) {
    return complaint_of(ln::quantize<centred>(w, *statistics, o));
  });
  check<ln::clip_search>("clip_search", "clip_search", {}, [&](const auto& o) {
    return complaint_of(ln::quantize<centred>(w, *statistics, o));
  });
  check<ln::awq>("awq", "awq", {}, [&](const auto& o) {
    return complaint_of(ln::quantize<centred>(w, *statistics, o));
  });
  check<ln::smoothquant>("smoothquant", "smoothquant", {}, [&](const auto& o) {
    return complaint_of(ln::smooth(w, *statistics, o));
  });
  check<ln::spinquant>("spinquant", "spinquant", {}, [&](const auto& o) {
    return complaint_of(ln::rotate<ln::storage::f32>(w, text, l, o));
  });
  check<ln::zeroquant>("zeroquant", "zeroquant", {.epochs = 1}, [&](const auto& o) {
    return complaint_of(ln::quantize_in_blocks<centred>(w, text, l, o));
  });
  check<ln::omniquant>("omniquant", "omniquant", {.epochs = 1}, [&](const auto& o) {
    return complaint_of(ln::quantize_in_blocks<centred>(w, text, l, o));
  });
  check<ln::quarot>("quarot", "quarot", {},
                    [&](const auto& o) { return complaint_of(ln::rotate(w, o)); });
  using kept = ln::storage::outlier_columns<ln::storage::int4<8>, 1>;
  check<ln::owq>("owq", "owq", {.steps = 2, .group_steps = 2}, [&](const auto& o) {
    return complaint_of(ln::quantize<kept>(w, *statistics, o));
  });
  using sparse = ln::storage::sparse_outliers<ln::storage::int4<8>, 1>;
  check<ln::spqr>("spqr", "spqr", {}, [&](const auto& o) {
    return complaint_of(ln::quantize<sparse>(w, *statistics, o));
  });
  check<ln::magnitude>("magnitude", "magnitude", {},
                       [&](const auto& o) { return complaint_of(ln::prune(w, o)); });
  check<ln::wanda>("wanda", "wanda", {},
                   [&](const auto& o) { return complaint_of(ln::prune(w, *statistics, o)); });
  check<ln::sparsegpt>("sparsegpt", "sparsegpt", {},
                       [&](const auto& o) { return complaint_of(ln::prune(w, *statistics, o)); });
  check<ln::n_of_m>("n_of_m", "magnitude.pattern", {.kept = 1}, [&](const auto& o) {
    return complaint_of(ln::prune(w, ln::magnitude{.pattern = o}));
  });
  auto sparse_trainer = ln::trainer<M>::open(w, l, {}, {.keep_zeros = true});
  BOOST_REQUIRE(static_cast<bool>(sparse_trainer));
  check<ln::gradual_pruning<>>("gradual_pruning", "", {}, [&](const auto& o) {
    return complaint_of(o.before_step(*sparse_trainer, w));
  });
  check<ln::sparsity_schedule>(
      "sparsity_schedule", "ramp", {.last = 1000000000000000}, [&](const auto& o) {
        return complaint_of(ln::gradual_pruning<>{o}.before_step(*sparse_trainer, w));
      });
  check<ln::magnitude_score>("magnitude_score", "magnitude_score", {},
                             [&](const auto& o) { return complaint_of(ln::importance_of(w, o)); });
  check<ln::taylor_score>("taylor_score", "taylor_score", {}, [&](const auto& o) {
    return complaint_of(ln::importance_of(w, sums_of_gradients{}, o));
  });
  const auto adapter = ln::adapt<ln::lora<1>>(p);
  const ln::gradients<ln::adapted<M, ln::lora<1>>> adapter_gradient;
  BOOST_REQUIRE((adapter && adapter_gradient.valid()));
  check<ln::lora_score>("lora_score", "lora_score", {}, [&](const auto& o) {
    return complaint_of(ln::importance_of(w, *adapter, adapter_gradient, o));
  });
  check<ln::activation_score>("activation_score", "activation_score", {}, [&](const auto& o) {
    return complaint_of(ln::importance_of(w, *statistics, o));
  });
  const auto important = ln::importance_of(w);
  BOOST_REQUIRE(static_cast<bool>(important));
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
  static_assert(std::is_same_v<ln::uniqueness, ln::duplicate_options>);  // deprecated
  static_assert(std::is_same_v<ln::predictor_training, ln::predictor_options>);
  static_assert(std::is_same_v<ln::head_training, ln::head_predictor_options>);
#pragma GCC diagnostic pop
  check<ln::duplicate_options>("duplicate_options", "duplicate_options", {}, [&](const auto& o) {
    return complaint_of(ln::duplicates_first(*important, w, *statistics, o));
  });
  check<ln::influence_options>("influence_options", "influence_options", {}, [&](const auto& o) {
    return complaint_of(ln::block_influence(w, text, l, o));
  });
  check<ln::block_magnitude>("block_magnitude", "block_magnitude", {},
                             [&](const auto& o) { return complaint_of(ln::prune(w, o)); });
  check<ln::activity_options>("activity_options", "activity_options", {}, [&](const auto& o) {
    return complaint_of(ln::neuron_activity(w, text, l, o));
  });
  {
    using whole = ln::relufied<M>;
    const ln::weights<whole> of = ln::relufy(w);
    auto c = ln::contextualise<ln::contextualised<whole, 1>>(of);
    BOOST_REQUIRE(static_cast<bool>(c));
    check<ln::predictor_options>(
        "predictor_options", "predictor_options", {.batches = 1, .epochs = 1},
        [&](const auto& o) { return complaint_of(ln::train_predictors(*c, of, text, l, o)); });
  }
  {
    using predicting = ln::with_head_predictors<M, 1>;
    auto c = ln::predict_heads<predicting>(w);
    BOOST_REQUIRE(static_cast<bool>(c));
    check<ln::head_predictor_options>(
        "head_predictor_options", "head_predictor_options",
        {.predictor = {.batches = 1, .epochs = 1}},
        [&](const auto& o) { return complaint_of(ln::train_head_predictors(*c, w, text, l, o)); });
  }
  auto student = w.clone();
  check<ln::recovery_options>(
      "recovery_options", "recovery_options", {.steps = 1},
      [&](const auto& o) { return complaint_of(ln::recovery(p, text, l, o)(0, student)); });
  check<ln::hqq>("hqq", "hqq", {},
                 [&](const auto& o) { return complaint_of(ln::quantize<centred>(w, o)); });
  check<ln::text_generation_options>(
      "text_generation_options", "text_generation_options", {},
      [&](const auto& o) { return complaint_of(ln::generate_texts(p, l, o)); });
  check<ln::contrastive_options>(
      "contrastive_options", "contrastive_options", {},
      [&](const auto& o) { return complaint_of(ln::contrastive_objective::open(o)); });

  const std::string letters(100, 'a');
  const std::string_view texts[] = {letters};
  const auto bytes = ln::byte_tokenizer::t5();
  check<ln::denoising>("denoising", "denoising", {}, [&](const auto& o) {
    return complaint_of(ln::denoising_stream<>::open(ln::byte_source(texts, {}, bytes), o,
                                                     {.batch = 1, .source = 16}, ln::seed{1}));
  });
  check<ln::token_masking>("token_masking", "token_masking", {}, [&](const auto& o) {
    return complaint_of(ln::masking_stream<ln::byte_source>::open(ln::byte_source(texts, {}, bytes),
                                                                  o, {}, 1, 16, ln::seed{1}));
  });
  check<ln::example_limits>("example_limits", "", {.source = 16}, [&](const auto& o) {
    return complaint_of(
        ln::denoising_stream<>::open(ln::byte_source(texts, {}, bytes), {}, o, ln::seed{1}));
  });
  const auto source = ln::byte_source(texts, {}, bytes);
  check<ln::denoiser_limits>(
      "denoiser_limits", "denoiser_limits", {.length = 16}, [&](const auto& o) {
        return complaint_of(
            ln::denoiser_stream<>::open(source, ln::ul2_denoisers, {}, o, ln::seed{1}));
      });
  check<ln::prefix_split>("prefix_split", "prefix_split", {}, [&](const auto& o) {
    return complaint_of(ln::prefix_stream<ln::byte_source>::open(source, o, 1, 16, ln::seed{1}));
  });
  const index start[] = {0};
  check<ln::fill_in_the_middle>("fill_in_the_middle", "fill_in_the_middle", {}, [&](const auto& o) {
    return complaint_of(ln::middle_source<ln::byte_source>::open(
        source, start, o, {.prefix = 260, .suffix = 261, .middle = 262}, ln::seed{1}));
  });
  check<ln::selection_options>("selection_options", "selection_options", {}, [&](const auto& o) {
    return complaint_of(ln::document_selector::open(o));
  });
  const double difficulty[] = {1, 2, 3};
  check<ln::pacing>("pacing", "pacing", {}, [&](const auto& o) {
    return complaint_of(ln::curriculum::open(difficulty, o, ln::seed{1}));
  });
  check<ln::detail::mixture_change>("mixture", "mixture", {}, [&](const auto& o) {
    return complaint_of(ln::mixture::open(difficulty, difficulty, o.first, o.last, ln::seed{1}));
  });
  check<ln::pause_options>("pause_options", "", {}, [&](const auto& o) {
    std::vector<token> row(7), labels(7);
    return ln::insert_pauses(o, std::vector<token>(8, 1), ln::seed{1}, 0, row, labels) == 0
               ? complaint(ln::error{})
               : complaint();
  });
#if defined(LINNET_TEST_XXHASH)
  check<ln::cached_logits_format>(
      "cached_logits_format", "cached_logits_format", {.vocabulary = 100}, [&](const auto& o) {
        return complaint_of(ln::cached_logits_writer::open("nowhere/file", o));
      });
#endif
  for (const auto& [name, said] : rows)
    if (!name.starts_with("cached_logits_format."))
      BOOST_TEST(said.checked, name << " is no option");
}

// Options that depend on others.
BOOST_AUTO_TEST_CASE(relations) {
  ln::weights<M> w;
  randomize(w);
  const auto why = [&](const ln::schedule& rate) {
    const auto t = ln::trainer<M>::open(w, {.target = 8}, {.rate = rate});
    return t ? std::string("opened") : t.error().message();
  };
  BOOST_TEST(why(ln::schedule::cosine(1e-3, 10, 10)) == "opened");
  BOOST_TEST(
      why(ln::schedule::cosine(1e-3, 11, 10)).find("adamw.rate.steps: expected at least 11") !=
      std::string::npos);
  BOOST_TEST(why(ln::schedule::cosine(1e-3, 0, 0)).find("at least 1 ") != std::string::npos);
  BOOST_TEST(why(ln::schedule::inverse_sqrt_linear(0)) == "opened");
  const double inf = std::numeric_limits<double>::infinity();
  for (const double bad : {inf, -1.0, std::nan("")})
    for (const auto& rate :
         {ln::schedule::constant(bad), ln::schedule::cosine(bad, 0, 9),
          ln::schedule::cosine(1, 0, 9, bad), ln::schedule::inverse_sqrt(9, bad)})
      BOOST_TEST(why(rate) != "opened");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::options_test
