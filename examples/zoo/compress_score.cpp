// SPDX-License-Identifier: MIT
#include "compress_score.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <variant>

#include "models.hpp"
#include "support.hpp"

namespace zoo {

using json = nlohmann::ordered_json;

namespace {

/// Window `i` of so many that are evenly spread over a text.
any_batch spread(text_windows& text, ln::index i, ln::index windows) {
  return text.at(i * text.count() / windows);
}

constexpr ln::index timed = 64;  // texts or tokens one after the other, at most

/// The best of three rates of `count` in a row; run() returns the seconds that they take.
template <class F>
double best_rate(ln::index count, F&& run) {
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 3; ++i) least = std::min(least, run() / static_cast<double>(count));
  return 1 / least;
}

/// Texts per second.
double text_speed_of(stored_model& model, text_windows& text, ln::index windows) {
  const ln::index count = std::min(timed, windows);
  return best_rate(count, [&] {
    const double before = now();
    for (ln::index i = 0; i < count; ++i) {
      (void)model.embed(std::get<ln::encoder_batch>(spread(text, i, count)));
      end_if_asked();
    }
    return now() - before;
  });
}

/// Tokens per second of one session that writes what it finds likeliest.
double speed_of(const stored_model& model, const any_batch& b, int threads) {
  const auto* const t5 = std::get_if<ln::t5_batch>(&b);
  const auto* const decoder = std::get_if<ln::decoder_batch>(&b);
  const ln::index length = t5 ? timed : decoder->length,
                  read = t5 ? 1 : std::min(length / 2, timed),
                  count = std::min(timed, length - read);
  ln::limits l{.batch = 1, .target = length, .threads = threads};
  if (t5) l.source = t5->source_length;
  const auto session = model.open(l);
  const ln::token start = 0;
  return best_rate(count, [&] {
    session->reset();
    if (t5) session->encode({t5->source, static_cast<std::size_t>(t5->source_length)});
    auto logits = t5 ? session->feed({&start, 1})
                     : session->prefill({decoder->tokens, static_cast<std::size_t>(read)});
    const double before = now();
    for (ln::index i = 0; i < count; ++i) {
      if (logits.empty()) give_up(*session);
      const auto next =
          static_cast<ln::token>(std::max_element(logits.begin(), logits.end()) - logits.begin());
      logits = session->feed({&next, 1});
      end_if_asked();
    }
    return now() - before;
  });
}

/// Adds what a model says of one window.
void judge(score& s, stored_model& model, const text_windows& text, const any_batch& b,
           ln::index vocabulary) {
  if (const auto* const one = std::get_if<ln::encoder_batch>(&b)) {
    const auto vector = model.embed(*one);
    s.vectors.emplace_back(vector.begin(), vector.end());
    return;
  }
  const auto labels = labels_of(b);
  std::vector<float> logits(labels.size() * static_cast<std::size_t>(vocabulary));
  const ln::loss_sum sum = model.loss(b, logits);
  s.nats.push_back(sum.nats);
  s.labels.push_back(static_cast<double>(sum.tokens));
  s.bytes.push_back(text.bytes(b));
  auto& best = s.best.emplace_back();
  for (std::size_t t = 0; t < labels.size(); ++t) {
    if (labels[t] == ln::ignored) continue;
    const auto from = logits.begin() + static_cast<std::ptrdiff_t>(t) * vocabulary;
    best.push_back(static_cast<ln::token>(std::max_element(from, from + vocabulary) - from));
  }
}

json json_of(const score& s) {
  return {{"nats", s.nats},
          {"labels", s.labels},
          {"bytes", s.bytes},
          {"best", s.best},
          {"vectors", s.vectors},
          {"per_second", s.per_second},
          {"weight_bytes", s.weight_bytes}};
}

}  // namespace

score score_of(stored_model& model, text_windows& text, ln::index windows, ln::index vocabulary,
               int threads, std::string_view name) {
  score s;
  s.weight_bytes = model.bytes();
  progress shown;
  const double start = now();
  for (ln::index i = 0; i < windows; ++i) {
    judge(s, model, text, spread(text, i, windows), vocabulary);
    end_if_asked();
    if (shown.due())
      shown.show(
          static_cast<double>(i + 1) / static_cast<double>(windows),
          (now() - start) * static_cast<double>(windows - i - 1) / static_cast<double>(i + 1),
          {{"evaluating", std::string(name)}});
  }
  s.per_second = s.vectors.empty() ? speed_of(model, spread(text, 0, windows), threads)
                                   : text_speed_of(model, text, windows);
  return s;
}

score score_before(const compress_options& o, const subject& s, const compressor& by,
                   text_windows& text, ln::index windows) {
  json of;
  if (!o.reference.empty())
    of = {{"model", s.what.model.name()}, {"weights", mark_of(s.weights)},
          {"text", mark_of(o.evaluate)},  {"windows", windows},
          {"length", s.length},           {"threads", o.threads}};
  if (const auto kept = kept_json("--reference", o.reference, of)) try {
      const json& all = kept->at("score");
      return {all.at("nats"),    all.at("labels"),     all.at("bytes"),       all.at("best"),
              all.at("vectors"), all.at("per_second"), all.at("weight_bytes")};
    } catch (const json::exception&) {
      throw failure("--reference: " + o.reference + ": not what zoo compress writes");
    }
  const score made = score_of(*by.original(text.limits(o.threads)), text, windows,
                              s.what.model.vocabulary(), o.threads, "before");
  keep_json(o.reference, {{"of", of}, {"score", json_of(made)}});
  return made;
}

double agreement(const score& a, const score& b) {
  double same = 0, all = 0;
  for (std::size_t i = 0; i < a.best.size(); ++i)
    for (std::size_t t = 0; t < a.best[i].size(); ++t, ++all) same += a.best[i][t] == b.best[i][t];
  return same / all;
}

std::vector<double> cosines(const score& before, const score& after) {
  std::vector<double> all;
  for (std::size_t i = 0; i < before.vectors.size(); ++i) {
    const auto &a = before.vectors[i], &b = after.vectors[i];
    double both = 0, of_a = 0, of_b = 0;
    for (std::size_t j = 0; j < a.size(); ++j) {
      const auto x = static_cast<double>(a[j]), y = static_cast<double>(b[j]);
      both += x * y;
      of_a += x * x;
      of_b += y * y;
    }
    all.push_back(both / std::sqrt(of_a * of_b));
  }
  return all;
}

std::vector<double> differences(const score& before, const score& after) {
  std::vector<double> all;
  for (std::size_t i = 0; i < before.nats.size(); ++i)
    if (before.bytes[i] > 0)
      all.push_back(
          ln::bits_per_byte(after.nats[i] - before.nats[i], std::lround(before.bytes[i])));
  return all;
}

}  // namespace zoo
