// SPDX-License-Identifier: MIT
#pragma once
// Asks a model the questions of tests.

#include <linnet/formats/weights_file.hpp>
#include <linnet/generate/session.hpp>
#include <linnet/model/presets.hpp>

#include "support/console.hpp"
#include "support/progress.hpp"
#include "verdicts.hpp"
#include "vocabulary.hpp"

namespace stlm_10m {

/// A scorer of ids by a session of any of the two.
template <class Session>
auto scorer(Session& s, const vocabulary& v) {
  if constexpr (Session::ids_per_token > 1)
    return ln::session_scorer<Session>(s, v.bytes);
  else
    return ln::session_scorer<Session>(s);
}

template <class M>
void judge(const options& o) {
  const support::stop_requests stops;
  const vocabulary v = read_vocabulary(o);
  ln::weights<M> w;
  support::take(ln::load_safetensors(w, o.weights));
  const auto packed = ln::pack(w);
  auto session = support::take(ln::session<M>::open(
      packed, {.batch = 5, .target = 512, .chunk = 64, .threads = 1, .max_logits = 64}));
  auto paths = scorer(session, v);
  const auto encode = [&](std::string_view text) { return v.pieces.encode(text); };
  for (const std::string& name : o.tasks) {
    verdicts all(name, o);
    while (const ln::eval_item* const item = all.next()) {
      all.add(support::take(ln::score_options(paths, encode, *item, {.opening = v.opening})));
      if (const int signal = support::stop_requests::received())
        throw support::interruption(signal, name + ": the items so far are kept");
    }
    support::put("{}", all.line());
    support::flush_output();
  }
}

}  // namespace stlm_10m
