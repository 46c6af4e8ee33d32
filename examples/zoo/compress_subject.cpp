// SPDX-License-Identifier: MIT
#include "compress_subject.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <linnet/file/file.hpp>
#include <span>

#include "models.hpp"
#include "support.hpp"
#include "trained.hpp"

namespace zoo {

using json = nlohmann::ordered_json;

void end_if_asked() {
  if (const int signal = stop_requests::received(); signal != 0)
    throw interruption(signal, "ended by a signal; nothing is written");
}

subject subject_of(const compress_options& o) {
  constexpr ln::index longest_window = 512;  // tokens, unless --length says how many
  subject s{{.model = {},
             .to = o.how,
             .method = o.method,
             .shape = o.shape,
             .scores = o.shape.empty() ? "" : o.importance,
             .activation = o.activation,
             .rank = o.rank},
            o.weights,
            {},
            0};
  std::string tokenizer = o.tokenizer;
  if (o.model.empty()) {
    if (!is_trained(o.weights))
      throw failure(
          "--model is required, unless --weights is a folder that zoo train --text wrote");
    const trained_model trained = open_trained(o.weights);
    refuse_adapter(trained, "compress");
    if (trained.model.embeds())
      throw failure(o.weights +
                    ": holds an encoder of masked tokens; zoo compress takes encoders "
                    "that give vectors, such as --model minilm");
    s.what.model = trained.model;
    s.what.ffn = trained.kind.ffn;
    s.weights = trained.weights();
    if (tokenizer.empty()) tokenizer = trained.tokenizer_path();
  } else {
    s.what.model = parse_model("model", o.model, true);
    s.weights = weights_of(o.model, o.weights);
  }
  const model_spec& m = s.what.model;
  if (m.vocabulary() == 0) throw failure(m.name() + ": vocabulary=N is missing");
  const ln::index context = m.encodes() ? longest_window : m.context(),
                  usual = m.embeds() ? longest_text : longest_window;
  if (o.length > 0 && !m.encodes() && o.length > context)
    throw failure(
        fmt::format("--length: {} is more than the model's context of {}", o.length, context));
  s.length = o.length > 0 ? o.length : std::min(usual, context);
  if (!o.calibrate.empty() || !o.evaluate.empty())
    s.text = find_tokenizer(tokenizer, s.weights,
                            {.name = m.name(),
                             .encodes = m.encodes(),
                             .vocabulary = m.vocabulary(),
                             .context = 0,
                             .open = nullptr});
  return s;
}

std::optional<json> kept_json(const char* option, const std::string& path, const json& of) {
  if (path.empty() || !std::filesystem::exists(path)) return {};
  json all = json::parse(file_text(path), nullptr, false);
  if (!all.is_object() || !all.contains("of") || all["of"] != of)
    throw failure(
        fmt::format("{}: {}: is of another model, other weights or another text, or of a "
                    "method that changes the model first; remove it, or name another file",
                    option, path));
  return all;
}
void keep_json(const std::string& path, const json& all) {
  if (path.empty()) return;
  const std::string text = all.dump() + "\n";
  take(ln::write_file(path, std::as_bytes(std::span(text))));
}

}  // namespace zoo
