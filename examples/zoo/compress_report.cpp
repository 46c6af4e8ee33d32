// SPDX-License-Identifier: MIT
#include "compress_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <linnet/eval/estimates.hpp>
#include <string>
#include <vector>

#include "support.hpp"

namespace zoo {

using json = nlohmann::ordered_json;

json results(const compress_options& o, const subject& s, const compressor& by, const costs& c,
             const made_model& made, const std::optional<score>& before,
             const std::optional<score>& after) {
  const auto parameters = static_cast<double>(by.parameters());
  const ln::index bytes = made.model.bytes();
  json all{{"model", s.what.model.name()},
           {"method", o.method},
           {"storage", o.how.storage},
           {"compute", o.how.compute},
           {"seed", o.seed},
           {"sequential", o.sequential},
           {"parameters", by.parameters()},
           {"bytes", bytes},
           {"bits_per_weight", 8 * static_cast<double>(bytes) / parameters}};
  if (!o.shape.empty()) {
    all["shape"] = o.shape;
    all["importance"] = o.importance;
    all["parameters_after"] = made.model.parameters();
  }
  if (made.pruned) {
    all["zeros"] = made.model.zeros();
    all["dropped"] = made.dropped;
  }
  for (const found_units& one : made.found)
    for (std::size_t layer = 0; layer < one.layers.size(); ++layer) {
      const ln::predictor_quality& q = one.layers[layer];
      all["predictors"].push_back({{"of", one.units},
                                   {"layer", layer},
                                   {"recall", q.recall},
                                   {"found", q.predicted},
                                   {"active", q.active}});
    }
  const auto pair = [&](const char* name, auto&& figure) {
    all[std::string(name) + "_before"] = before ? json(figure(*before)) : json();
    all[std::string(name) + "_after"] = after ? json(figure(*after)) : json();
  };
  pair("bytes", [](const score& x) { return static_cast<double>(x.weight_bytes); });
  const bool embeds = s.what.model.embeds();
  pair(embeds ? "texts_per_second" : "tokens_per_second",
       [](const score& x) { return x.per_second; });
  // The mean over windows, with its interval.
  const auto judged = [&](const char* what, const std::vector<double>& of_windows) {
    const ln::estimate mean = ln::mean_estimate(of_windows);
    const auto number = [](double x) { return ln::is_finite(x) ? json(x) : json(); };
    all["difference"] = {{what, number(mean.value)},
                         {"low", number(mean.value - 1.96 * mean.error)},
                         {"high", number(mean.value + 1.96 * mean.error)}};
  };
  if (!embeds) {
    pair("bits_per_byte", [](const score& x) { return x.bits_per_byte(); });
    pair("perplexity", [](const score& x) { return x.perplexity(); });
  }
  if (before && after && embeds) {
    const std::vector<double> all_cosines = cosines(*before, *after);
    judged("cosine", all_cosines);
    all["cosine_before"] = 1;
    all["cosine_after"] = all["difference"]["cosine"];
    all["cosine_least"] = *std::ranges::min_element(all_cosines);
    all["windows"] = {{"cosine", all_cosines}};
  } else if (before && after) {
    judged("bits_per_byte", differences(*before, *after));
    all["greedy_agreement"] = agreement(*before, *after);
    all["windows"] = {
        {"nats_before", before->nats}, {"nats_after", after->nats}, {"bytes", before->bytes}};
  }
  all["calibration_windows"] = c.windows;
  all["calibration_seconds"] = c.calibrating;
  all["method_steps"] = c.steps;
  all["method_seconds"] = c.compressing;
  all["method_peak_bytes"] = c.peak;
  all["peak_bytes"] = std::max(c.peak_before, c.peak_after);
  return all;
}

namespace {

void print_predictors(const json& all) {
  std::vector<text_row> rows{{"predictors of", "layer", "recall", "found", "active"}};
  for (const json& one : all) {
    const auto share = [&](const char* name) {
      return fmt::format("{:.3f}", one.at(name).get<double>());
    };
    rows.push_back({one.at("of").get<std::string>(), std::to_string(one.at("layer").get<int>()),
                    share("recall"), share("found"), share("active")});
  }
  put("\n{}\n", aligned(rows));
}

}  // namespace

void print_results(const compress_options& o, const json& r) {
  const auto number = [&](const char* name) { return r.at(name).get<double>(); };
  put("{}: {} by {}, {} of {} weights, {:.2f} bits per weight\n", o.out, o.how.storage, o.method,
      human_bytes(r.at("bytes").get<ln::index>()), grouped(r.at("parameters").get<ln::index>()),
      number("bits_per_weight"));
  if (r.at("calibration_windows").get<ln::index>() > 0)
    put("calibration: {} windows in {}; ", r.at("calibration_windows").get<ln::index>(),
        duration(number("calibration_seconds")));
  if (const auto steps = r.at("method_steps").get<ln::index>(); steps > 0)
    put("{} steps of learning; ", steps);
  put("rounding: {}; at most {} of memory\n", duration(number("method_seconds")),
      human_bytes(r.at("peak_bytes").get<ln::index>()));
  if (r.contains("parameters_after"))
    put("{}: {} weights are left\n", o.shape, grouped(r.at("parameters_after").get<ln::index>()));
  if (r.contains("zeros"))
    put("zeros: {:.1f}% of the weights of matrices\n", 100 * number("zeros"));
  if (r.contains("predictors")) print_predictors(r.at("predictors"));
  if (!r.contains("difference")) return;
  std::vector<text_row> rows{{"", "before", "after"}};
  const auto row = [&](const char* title, const std::string& name, auto&& text) {
    rows.push_back({title, text(r.at(name + "_before").get<double>()),
                    text(r.at(name + "_after").get<double>())});
  };
  const auto bytes = [](double x) { return human_bytes(std::lround(x)); };
  row("bytes", "bytes", bytes);
  const auto speed = [](double x) { return fmt::format("{:.1f}", x); };
  const json& d = r.at("difference");
  if (d.contains("cosine")) {
    row("texts/s", "texts_per_second", speed);
    put("\n{}\ncosine to the vectors before: {:.5f} over {} texts, {:.5f} at least", aligned(rows),
        number("cosine_after"), r.at("windows").at("cosine").size(), number("cosine_least"));
    if (!d.at("low").is_null())
      put(", 95% interval {:.5f} to {:.5f}", d.at("low").get<double>(), d.at("high").get<double>());
    put("\n");
    return;
  }
  row("bits per byte", "bits_per_byte", [](double x) { return fmt::format("{:.4f}", x); });
  row("perplexity", "perplexity", [](double x) { return fmt::format("{:.3f}", x); });
  row("tokens/s", "tokens_per_second", speed);
  put("\n{}", aligned(rows));
  if (!d.at("low").is_null())
    put("\n{:+.4f} bits per byte, 95% interval {:+.4f} to {:+.4f} over {} windows\n",
        d.at("bits_per_byte").get<double>(), d.at("low").get<double>(), d.at("high").get<double>(),
        r.at("windows").at("bytes").size());
  put("the same likeliest token for {:.1f}% of the text\n", 100 * number("greedy_agreement"));
}

}  // namespace zoo
